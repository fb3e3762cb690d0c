"""A million operations on one queue by four producers and four consumers, of which one is killed
every 10 ms, at any instruction, and replaced.

Every item is accounted for.  Producers note what they are about to put and what they have put,
consumers what they got, each by one store into memory that outlives them.  So it is known at
the end that nobody hung, that no item was torn (checksums) or came twice or out of order, and that
nothing is missing but what a killed consumer may have had in its hands: one item, or the batch that it
had asked get_many() for.  Then the queue goes, and the arena is as it was before.

What is put and who is killed follows from KINFOLK_SEED.  KINFOLK_SOAK says how many operations (a
put and a get of an item are two), KINFOLK_SOAK_ROUNDS how often, each time with the next seed.
"""

import gc
import os
import queue as names
import random
import signal
import struct
import subprocess
import sys
import time
import zlib

import pytest

import kinfolk
from kinfolk import _kin

OPERATIONS = int(os.environ.get("KINFOLK_SOAK", 1_000_000))
ROUNDS = int(os.environ.get("KINFOLK_SOAK_ROUNDS", 2))
SEED = int(os.environ.get("KINFOLK_SEED", 20261122))
EVERY = 0.010  # seconds from kill to kill
ROOM = 10_000  # items that one producer may put
HIRED = 2000 + OPERATIONS // 200  # how many may be hired in all
BATCH = 8
STUCK = 60  # seconds without a single operation

HEAD = struct.Struct("<QQI")  # producer, number, checksum

pytestmark = pytest.mark.timeout(300)


class Board:
    """Notes, each one store: a kill finds it made or not made."""

    def __init__(self):
        self.stop = _kin.Memory(8)
        self.born = _kin.Memory(HIRED * 8)  # its code runs
        self.intent = _kin.Memory(HIRED * 8)  # up to which number a producer may have put
        self.put = _kin.Memory(HIRED * 8)  # … and certainly has
        self.hand = _kin.Memory(HIRED * 8)  # how many items a consumer may have in its hands
        self.got = _kin.Memory(HIRED * 8)  # how many it has got in all
        self.receipts = _kin.Memory(HIRED // 2 * ROOM)  # a byte an item

    def view(self, name, kind="Q"):
        return memoryview(getattr(self, name)).cast("B").cast(kind)


def body_of(producer, number):
    """The bytes of an item, and whether it mentions something of the arena."""
    dice = zlib.crc32(HEAD.pack(producer, number, 0)) % 1000
    if dice < 900:
        length = dice % 50
    elif dice < 985:
        length = dice * 6  # mostly a record of a size that a segment holds few of
    else:
        length = dice * 150  # a blob
    return bytes([number % 251]) * length, dice % 100 == 7


def item_of(producer, number):
    body, mentions = body_of(producer, number)
    head = HEAD.pack(producer, number, zlib.crc32(body))
    if not mentions:
        return head, body
    memory = _kin.Memory(len(head))
    memoryview(memory)[:] = head
    # One in ten of them brings a descriptor, too: standard input's, whatever that is.
    return (head, body, memory) if number % 10 else (head, body, memory, _kin.Descriptor(0))


def read(item):
    """Producer and number of an item that is whole."""
    head, body, *mentioned = item
    producer, number, check = HEAD.unpack(head)
    assert zlib.crc32(body) == check, "a torn item"
    expected, mentions = body_of(producer, number)
    assert body == expected and mentions == bool(mentioned), "not the item that was put"
    if mentions:
        memory, *descriptors = mentioned
        assert bytes(memoryview(memory)) == head, "what it mentions is something else"
        assert len(descriptors) == (number % 10 == 0)
        for descriptor in descriptors:
            fd = descriptor.detach()
            assert os.path.sameopenfile(fd, 0), "another descriptor"
            os.close(fd)
    return producer, number


def produce(queue, board, me, seed):
    """Put items, one by one or many at a time."""
    os.nice(10)
    rng = random.Random(seed * 1_000_003 + me)
    board.view("born")[me] = 1
    stop, intent, put = board.view("stop"), board.view("intent"), board.view("put")
    number = 1
    while not stop[0] and number + BATCH < ROOM:
        if rng.random() < 0.2:
            count = rng.randint(1, BATCH)
            intent[me] = number + count - 1
            batch = [item_of(me, number + i) for i in range(count)]
            timeout = rng.choice((None, 0.001))
            try:
                queue.put_many(batch, timeout=timeout)
            except names.Full as error:
                count = error.put
        else:
            count = 1
            intent[me] = number
            try:
                queue.put(item_of(me, number), timeout=rng.choice((None, None, 0.001)))
            except names.Full:
                count = 0
        number += count
        put[me] = number - 1


def consume(queue, board, me, seed):
    """Take items until the queue is shut down."""
    os.nice(10)
    rng = random.Random(seed * 1_000_003 + me)
    board.view("born")[me] = 1
    hand, got, receipts = board.view("hand"), board.view("got"), board.view("receipts", "B")
    last = {}
    while True:
        count = BATCH if rng.random() < 0.2 else 1
        timeout = rng.choice((None, None, 0.001))
        hand[me] = count
        try:
            if count > 1:
                items = queue.get_many(count, timeout=timeout)
            else:
                items = [queue.get(timeout=timeout)]
        except names.Empty:
            continue
        except kinfolk.ShutDown:
            hand[me] = 0
            return
        assert len(items) <= count
        for item in items:
            producer, number = read(item)
            assert last.get(producer, 0) < number, "out of order"
            last[producer] = number
            receipts[producer // 2 * ROOM + number] += 1
            got[me] += 1


class Crew:
    """Producers have even numbers, consumers odd ones: the rows of the board."""

    def __init__(self, seed):
        self.seed = seed
        self.random = random.Random(seed)
        self.context = kinfolk.get_context("fork")
        self.queue = self.context.Queue(300, max_bytes=4 << 20)
        self.board = Board()
        self.hired = [0, 0]
        self.killed = [set(), set()]
        self.members = [self.hire(role) for role in (0, 1) * 4]

    def hire(self, role):
        """Those who work give way to the one that kills, or it would come too seldom."""
        me = self.hired[role] * 2 + role
        self.hired[role] += 1
        process = self.context.Process(
            target=(produce, consume)[role],
            args=(self.queue, self.board, me, self.seed),
            daemon=True,
        )
        process.start()
        return role, me, process

    def dismiss(self, place):
        """Let one go that is dead or done, and hire another."""
        role, me, process = self.members[place]
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        process.close()
        self.members[place] = self.hire(role)

    def kill_one(self):
        """One that is born: what a process killed in its birth holds is given back later
        (docs/family.md)."""
        born = self.board.view("born")
        places = [place for place, (_, me, _) in enumerate(self.members) if born[me]]
        if not places:
            return
        place = self.random.choice(places)
        role, me, process = self.members[place]
        process.kill()
        self.killed[role].add(me)
        self.dismiss(place)

    def replace_the_done(self):
        for place, (_, _, process) in enumerate(self.members):
            if not process.is_alive():
                self.dismiss(place)

    def operations(self):
        return sum(self.board.view("put")) + sum(self.board.view("got"))

    def work(self):
        """Kill every 10 ms until enough has been done."""
        done, due = 0, time.monotonic()
        moved = due
        while done < OPERATIONS:
            due += EVERY
            time.sleep(max(0, due - time.monotonic()))  # the moment of a kill, no wait for anything
            self.kill_one()
            self.replace_the_done()
            now = self.operations()
            if now != done:
                done, moved = now, time.monotonic()
            assert time.monotonic() - moved < STUCK, "nobody moves"
        return done

    def wind_up(self):
        """Let the producers end by themselves, then the consumers when all is eaten."""
        self.board.view("stop")[0] = 1
        for wanted in (0, 1):
            for role, _, process in self.members:
                if role == wanted:
                    process.join(STUCK)
                    assert process.exitcode == 0, (("producer", "consumer")[role], process.exitcode)
                    process.close()
            if wanted == 0:
                self.queue.shutdown()

    def check(self):
        """Every item is accounted for; how many died with their consumers."""
        intent, put, hand = (self.board.view(name) for name in ("intent", "put", "hand"))
        receipts = self.board.view("receipts", "B")
        lost = 0
        for producer in range(self.hired[0]):
            row, mine = producer * 2, receipts[producer * ROOM : (producer + 1) * ROOM].tobytes()
            assert set(mine) <= {0, 1}, "an item came twice"
            assert 1 not in mine[intent[row] + 1 :], "an item that nobody put"
            assert row in self.killed[0] or intent[row] == put[row] or 1 not in mine[put[row] + 1 :]
            lost += put[row] - mine[1 : put[row] + 1].count(1)
        in_hand = sum(hand[row] for row in self.killed[1])
        assert lost <= in_hand, (lost, in_hand)
        return lost


def in_use():
    """What there is in the arena once the dead are buried."""
    gc.collect()
    _kin.reap()
    stats = _kin.stats()
    return {name: stats[name] for name in ("blocks", "objects", "in_use", "members", "waiting")}


def soak(seed):
    kinfolk.Lock()  # so that this process has its table of holds
    before = in_use()
    crew = Crew(seed)
    done = crew.work()
    crew.wind_up()
    lost = crew.check()
    assert crew.queue.empty()
    kills = len(crew.killed[0]) + len(crew.killed[1])
    print(f"seed {seed}: {done} operations, {kills} kills, {lost} items died with their consumers")
    del crew
    assert in_use() == before


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_every_item_is_accounted_for(seed):
    # In an interpreter, and so a family, of its own: what other tests have left is not in it.
    done = subprocess.run([sys.executable, __file__, str(seed)], timeout=280)
    assert done.returncode == 0


if __name__ == "__main__":
    soak(int(sys.argv[1]))
