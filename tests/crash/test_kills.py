"""Two thousand SIGKILLs at random moments, of producers and consumers on one queue and one lock.

The survivors never hang; no record is torn or comes twice; what a producer says that it put
arrives, but for the one record that a killed consumer may have had in its hands; afterwards
nothing is left.  The moments come from a seed: KINFOLK_KILLS and KINFOLK_SEED choose others.
"""

import os
import random
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib

import pytest

import kinfolk
from kinfolk import _kin

KILLS = int(os.environ.get("KINFOLK_KILLS", 2000))
SEED = int(os.environ.get("KINFOLK_SEED", 20261122))
ROOM = 4000  # records that one producer may put
RECORD = struct.Struct("<QQ")

pytestmark = pytest.mark.timeout(600)


class Board:
    """What the processes say that they have done, in memory that outlives them.

    Each note is one store, so that a kill finds it made or not made.
    """

    def __init__(self, producers):
        self.guarded = _kin.Memory(8)
        self.put = _kin.Memory(producers * 8)
        self.receipts = _kin.Memory(producers * ROOM)

    def views(self):
        """The two bytes that the lock guards; how far each producer is; who got what."""
        put, receipts = memoryview(self.put).cast("Q"), memoryview(self.receipts).cast("B")
        return memoryview(self.guarded).cast("B"), put, receipts


def record(producer, number):
    """A record that shows by itself whether it is whole; some are large, and ride as blobs."""
    body = RECORD.pack(producer, number) * (1 if number % 7 else 2000)
    return body + struct.pack("<I", zlib.crc32(body))


def read(data):
    body, (check,) = data[:-4], struct.unpack("<I", data[-4:])
    assert zlib.crc32(body) == check, "a torn record"
    return RECORD.unpack(body[:16])


def locked_step(lock, guarded):
    """Step two bytes that nobody else may step meanwhile."""
    with lock:
        guarded[0] = (guarded[0] + 1) % 256
        before = guarded[0]
        guarded[1] = before
        assert guarded[0] == before, "two at once"


def produce(queue, lock, board, producer):
    warnings.simplefilter("ignore", RuntimeWarning)
    guarded, put, _ = board.views()
    for number in range(1, ROOM):
        queue.put(record(producer, number))
        put[producer] = number
        if number % 5 == 0:
            locked_step(lock, guarded)


def consume(queue, lock, board):
    warnings.simplefilter("ignore", RuntimeWarning)
    guarded, _, receipts = board.views()
    for turn, data in enumerate(iter(queue.get, None)):
        producer, number = read(data)
        receipts[producer * ROOM + number] += 1
        if turn % 5 == 0:
            locked_step(lock, guarded)


class Crew:
    def __init__(self, kills, start):
        self.random = random.Random(SEED)
        self.context = kinfolk.get_context(start)
        self.queue = self.context.Queue(200)
        self.lock = self.context.Lock()
        self.board = Board(kills + 4)
        self.hired = 0
        self.consumers_killed = 0
        self.members = [self.hire(role) for role in ("producer", "consumer") * 2]

    def hire(self, role):
        if role == "producer":
            args, target = (self.queue, self.lock, self.board, self.hired), produce
            self.hired += 1
        else:
            args, target = (self.queue, self.lock, self.board), consume
        process = self.context.Process(target=target, args=args, daemon=True)
        process.start()
        return role, process

    def kill_one(self):
        time.sleep(self.random.random() * 0.004)  # the random moment, not a wait for anything
        place = self.random.randrange(len(self.members))
        role, process = self.members[place]
        process.kill()
        process.join()
        self.consumers_killed += role == "consumer"
        process.close()
        self.members[place] = self.hire(role)

    def wind_up(self):
        """Let the producers go, then the consumers when all is eaten."""
        for role, process in self.members:
            if role == "producer":
                process.kill()
                process.join()
        for role, _ in self.members:
            if role == "consumer":
                self.queue.put(None)
        for role, process in self.members:
            process.join()
            assert role == "producer" or process.exitcode == 0
            process.close()

    def check(self):
        _, put, receipts = self.board.views()
        lost = 0
        for producer in range(self.hired):
            got = receipts[producer * ROOM : (producer + 1) * ROOM].tobytes()
            assert set(got) <= {0, 1}, "a record came twice"
            assert 1 not in got[put[producer] + 2 :], "a record that nobody put"
            lost += put[producer] - got[1 : put[producer] + 1].count(1)
        assert lost <= self.consumers_killed, (lost, self.consumers_killed)
        return lost


@pytest.mark.parametrize("start, kills", [("fork", KILLS), ("forkserver", KILLS // 20)])
def test_the_living_go_on(start, kills):
    crew = Crew(kills, start)
    for _ in range(kills):
        crew.kill_one()
    crew.wind_up()
    lost = crew.check()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert crew.lock.acquire(timeout=30)
    crew.lock.release()
    assert crew.queue.empty()
    print(f"{kills} kills, {crew.hired} producers, {lost} records died with their consumers")


ORPHANS = """
import os, signal, sys, kinfolk

def work(queue, told):
    told.put(os.getpid())
    while True:
        queue.get()

if __name__ == "__main__":
    context = kinfolk.get_context(sys.argv[1])
    queue, told = context.Queue(), context.Queue()
    for _ in range(4):
        context.Process(target=work, args=(queue, told), daemon=True).start()
    pids = [told.get() for _ in range(4)]
    queue.put(b"x" * 1000000)
    print(os.fstat(kinfolk._kin.family_fds()[0]).st_ino, *pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def has_mapped(pid, inode):
    """Whether process `pid` has the arena with this inode in its memory."""
    try:
        with open(f"/proc/{pid}/maps") as file:
            return any("memfd:kinfolk" in line and f" {inode} " in line for line in file)
    except OSError:
        return False


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_nothing_is_left_when_the_parent_is_killed(start, tmp_path):
    program = tmp_path / "orphans.py"
    program.write_text(ORPHANS)
    shm = set(os.listdir("/dev/shm"))
    done = subprocess.run([sys.executable, program, start], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    inode, *pids = map(int, done.stdout.split())
    assert len(pids) == 4
    give_up = time.monotonic() + 30
    while any(map(is_running, pids)) or any(
        has_mapped(pid, inode) for pid in filter(str.isdigit, os.listdir("/proc"))
    ):
        assert time.monotonic() < give_up, "orphans"
        time.sleep(0.01)
    assert set(os.listdir("/dev/shm")) == shm
