"""How much a family holds: items, bytes, objects; and what happens at the limit."""

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


def test_many_locks_leave_nothing():
    lock = kinfolk.Lock()
    before = _kin.stats()
    for _ in range(200_000):
        kinfolk.Lock()
    after = _kin.stats()
    assert after["objects"] == before["objects"]
    assert after["in_use"] == before["in_use"]
    assert lock.acquire(timeout=0)
    lock.release()
