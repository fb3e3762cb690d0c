"""Kills at random moments, of processes that use a lock, a condition, a barrier, a SharedDict and
a SharedList together.

The living go on: nobody hangs, what a lock guards is whole but where its taker was told of a
death, what was made is eaten, a barrier lets go all or breaks, a dict and a list are never torn.
Afterwards nothing is left.
The moments come from KINFOLK_SEED; KINFOLK_SYNC_KILLS says how many (5,000 take some minutes).
"""

import os
import random
import signal
import threading
import time
import warnings

import pytest

import kinfolk
from kinfolk import _kin

KILLS = int(os.environ.get("KINFOLK_SYNC_KILLS", 400))
SEED = int(os.environ.get("KINFOLK_SEED", 20261122))
STUCK = 60  # seconds without a step of any kind

ROLES = ("locker", "locker", "maker", "eater", "eater", *("party",) * 3, *("keeper",) * 3)
PARTIES = ROLES.count("party")

pytestmark = pytest.mark.timeout(1200)


class Board:
    """What all share.  Each note is one store: a kill finds it made or not made."""

    def __init__(self, context):
        self.lock = context.RLock()
        self.condition = context.Condition(context.Lock())
        self.barrier = context.Barrier(PARTIES)
        self.dict, self.list = kinfolk.SharedDict(), kinfolk.SharedList()
        self.stop = context.Event()
        self.memory = _kin.Memory(6 * 8)
        self.born = _kin.Memory(len(ROLES))

    def cells(self):
        """left, right (guarded by the lock); made, eaten (by the condition); rounds; keepers' turns."""
        return memoryview(self.memory).cast("B").cast("Q")


def listen():
    """A list that gets longer when this process is told that a lock's holder was killed."""
    told = []
    warnings.simplefilter("always", RuntimeWarning)
    warnings.showwarning = lambda *args, **kwds: told.append(args[0])
    return told


def work(role, place, board, barrier=None):
    memoryview(board.born)[place] = 1
    globals()[role](board)


def locker(board):
    told, cells = listen(), board.cells()
    while not board.stop.is_set():
        with board.lock, board.lock:
            assert told or cells[0] == cells[1], "half-changed, and nobody was told"
            cells[0] = cells[1] = max(cells[0], cells[1])
            told.clear()
            cells[0] += 1
            cells[1] += 1


def maker(board):
    listen()
    cells = board.cells()
    while not board.stop.is_set():
        with board.condition:
            if cells[2] - cells[3] < 10:
                cells[2] += 1
            board.condition.notify(1)
        time.sleep(0)  # the eaters need the lock, too


def eater(board):
    listen()
    cells = board.cells()
    while True:
        with board.condition:
            if not board.condition.wait_for(lambda: cells[2] > cells[3] or board.stop.is_set(), 5):
                continue
            if cells[2] == cells[3]:
                return
            cells[3] += 1


def party(board):
    cells = board.cells()
    while not board.stop.is_set():
        try:
            if board.barrier.wait() == 0:
                cells[4] += 1
        except threading.BrokenBarrierError:
            while board.barrier.broken and not board.stop.is_set():
                time.sleep(0.001)  # until somebody has come in place of who was killed


def keeper(board):
    """Each value says what it is; a key is a number and stands beside it in its value."""
    shared, items, rng, cells = board.dict, board.list, random.Random(), board.cells()
    while not board.stop.is_set():
        key, size = rng.randrange(30), rng.choice((0, 10, 1000))
        shared[key] = (key, bytes(size), board.stop if size == 10 else None)
        found = shared.get(rng.randrange(30))
        assert found is None or len(found[1]) in (0, 10, 1000)
        shared.pop(rng.randrange(60), None)
        assert all(key == "count" or key == value[0] for key, value in shared.items())
        if rng.random() < 0.02:
            shared.clear()
        items.append(bytes([key]) * size)
        if len(items) > 40:
            del items[rng.randrange(10) : 30]
        items.insert(rng.randrange(5), b"")
        items.sort(key=len)
        assert all(item == item[:1] * len(item) for item in items.copy())
        shared.compute("count", lambda n: n + 1, 0)
        cells[5] += 1


class Crew:
    def __init__(self, context, board, rng):
        self.context, self.board, self.random = context, board, rng
        self.members = [self.hire(role, place) for place, role in enumerate(ROLES)]

    def hire(self, role, place):
        memoryview(self.board.born)[place] = 0
        args = (role, place, self.board, self.board.barrier)  # so that it is a party at once
        if role != "party":
            args = args[:3]
        process = self.context.Process(target=work, args=args, daemon=True)
        process.start()
        return role, process

    def kill_one(self):
        """One that is born: what a process killed in its birth holds is given back later
        (docs/family.md)."""
        time.sleep(self.random.random() * 0.006)  # the random moment, not a wait for anything
        born = [place for place, is_born in enumerate(memoryview(self.board.born)) if is_born]
        if not born:
            return
        place = self.random.choice(born)
        role, process = self.members[place]
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (role, process.exitcode)
        process.close()
        self.members[place] = self.hire(role, place)
        if role == "party":
            self.board.barrier.reset()

    def goes_on(self):
        """All four things go on: each is seen to have happened again."""
        cells = self.board.cells()
        before, give_up = list(cells), time.monotonic() + STUCK
        while any(cells[i] == before[i] for i in (0, 2, 3, 4, 5)):
            assert time.monotonic() < give_up, ("stuck", before, list(cells))
            if self.board.barrier.broken:
                self.board.barrier.reset()
            time.sleep(0.001)

    def wind_up(self):
        self.board.stop.set()
        with self.board.condition:
            self.board.condition.notify_all()
        self.board.barrier.abort()
        for role, process in self.members:
            process.join(STUCK)
            assert process.exitcode == 0, (role, process.exitcode)
            process.close()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("start, kills", [("fork", KILLS), ("forkserver", KILLS // 10)])
def test_the_living_go_on(start, kills):
    context = kinfolk.get_context(start)
    _kin.reap()
    before = _kin.stats()["blocks"]
    board = Board(context)
    crew = Crew(context, board, random.Random(SEED))
    for n in range(kills):
        crew.kill_one()
        if n % 50 == 0:
            crew.goes_on()
    crew.goes_on()
    crew.wind_up()
    cells = board.cells()
    assert cells[2] == cells[3], "something was not eaten"
    cells.release()
    del board, crew, cells
    _kin.reap()
    assert _kin.stats()["blocks"] <= before
