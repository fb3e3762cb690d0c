"""How much a family holds: items, bytes, objects; and what happens at the limit."""

import gc
import os
import subprocess
import sys

import pytest

import kinfolk
from kinfolk import _kin

pytestmark = pytest.mark.timeout(600)


def run(code, *, files=None, **env):
    """Run code in a fresh interpreter, where it founds a family of its own."""
    command = [sys.executable, "-c", code]
    if files:
        command = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', *command]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


FIVE_MILLION = """
import kinfolk
from kinfolk import _kin
queue = kinfolk.Queue()
queue.put(0); queue.get()
before = _kin.stats()
for i in range(5_000_000):
    queue.put(i)
assert queue.qsize() == 5_000_000
full = _kin.stats()["committed"]
for i in range(5_000_000):
    assert queue.get() == i
after = _kin.stats()
assert queue.empty()
assert after["in_use"] - before["in_use"] <= 65536, (before, after)
assert full > 60 << 20 and after["committed"] - before["committed"] < 24 << 20, (full, after)
"""


def test_five_million_items_come_and_go():
    run(FIVE_MILLION, KINFOLK_ARENA_LIMIT="256M")


FOUR_GIB = """
import kinfolk
from kinfolk import _kin
queue = kinfolk.Queue()
part = b"x" * (64 << 20)
for i in range(64):
    queue.put(part)
assert _kin.stats()["committed"] > 4 << 30
for i in range(64):
    assert len(queue.get()) == len(part)
del part
after = _kin.stats()
assert after["in_use"] < 1 << 20, after
assert after["committed"] < 600 << 20, after  # what is kept warm: a sixteenth of the limit
"""


@pytest.mark.skipif(
    os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE") < 7 << 30,
    reason="less than 7 GiB of memory free",
)
def test_four_gibibytes_come_and_go():
    run(FOUR_GIB, KINFOLK_ARENA_LIMIT="6G")


FULL = """
import kinfolk
queue = kinfolk.Queue()
put = 0
try:
    while True:
        queue.put(bytes(100_000))
        put += 1
except MemoryError as error:
    assert "KINFOLK_ARENA_LIMIT" in str(error), error
assert 500 < put < 700, put
assert queue.qsize() == put
for _ in range(put):
    assert queue.get() == bytes(100_000)
queue.put("goes on")
assert queue.get() == "goes on"
"""


def test_a_put_that_does_not_fit_raises_and_the_queue_goes_on():
    run(FULL, KINFOLK_ARENA_LIMIT="64M")


MANY = """
import kinfolk, os
first = kinfolk.Lock()
count = len(os.listdir("/proc/self/fd"))
queues = [kinfolk.Queue() for _ in range(10_000)]
locks = [kinfolk.Lock() for _ in range(100_000)]
assert len(os.listdir("/proc/self/fd")) == count

def child():
    queues[9_999].put(7)
    with locks[99_999]:
        pass

for method in ("fork", "spawn"):
    process = kinfolk.get_context(method).Process(target=child if method == "fork" else print)
    process.start()
    process.join()
    assert process.exitcode == 0
assert queues[9_999].get() == 7
del queues, locks
from kinfolk import _kin
assert _kin.stats()["objects"] < 10, _kin.stats()
"""


def test_ten_thousand_queues_and_a_hundred_thousand_locks_need_no_descriptor():
    run(MANY, files=256)


PRIMITIVES = """
import kinfolk, os
from kinfolk import _kin
makes = [
    kinfolk.Lock, kinfolk.RLock, kinfolk.Semaphore, kinfolk.BoundedSemaphore, kinfolk.Event,
    kinfolk.Condition, lambda: kinfolk.Barrier(1), lambda: kinfolk.Value("i", 3),
    kinfolk.SharedDict, kinfolk.SharedList,
]
first = [make() for make in makes]
count = len(os.listdir("/proc/self/fd"))
things = [make() for _ in range(20_000) for make in makes]
assert len(things) == 200_000 and len(os.listdir("/proc/self/fd")) == count

def use(lock, rlock, semaphore, bounded, event, condition, barrier, value, mapping, items):
    with lock, rlock, semaphore, bounded, condition:
        event.set()
        condition.notify_all()
        barrier.wait()
        value.value += 1
        mapping["key"] = value.value
        items.append(mapping["key"])

for method in ("fork", "spawn"):
    last = things[-10:]
    process = kinfolk.get_context(method).Process(target=use, args=last)
    process.start()
    process.join()
    assert process.exitcode == 0
use(*last)
assert last[4].is_set() and last[7].value == 6 and last[9] == [4, 5, 6]
"""


def test_two_hundred_thousand_primitives_need_no_descriptor():
    run(PRIMITIVES, files=256)


MAKES = {
    **{
        name: getattr(kinfolk, name)
        for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event", "Condition")
    },
    "Barrier": lambda: kinfolk.Barrier(2),
    "Value": lambda: kinfolk.Value("i", 1),
    "SharedDict": kinfolk.SharedDict,
    "SharedList": kinfolk.SharedList,
}
MADE = int(os.environ.get("KINFOLK_MADE", 60_000))  # how many of each: a million takes minutes
KEPT = 8 << 20  # bytes of unused small blocks that stay, at the most: see docs/arena.md


@pytest.mark.parametrize("kind", MAKES)
def test_many_leave_nothing(kind):
    make = MAKES[kind]
    held = [make() for _ in range(2000)]
    del held
    gc.collect()
    before = _kin.stats()
    for _ in range(MADE):
        make()
    held = [make() for _ in range(MADE)]
    assert _kin.stats()["objects"] >= before["objects"] + MADE
    del held
    gc.collect()
    after = _kin.stats()
    assert (after["objects"], after["blocks"]) == (before["objects"], before["blocks"])
    assert after["in_use"] == before["in_use"]
    assert after["committed"] <= before["committed"] + KEPT
