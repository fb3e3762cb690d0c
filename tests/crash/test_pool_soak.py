"""A pool under fire: workers are killed all the time, and every task has its result or WorkerDied.

KINFOLK_POOL_TASKS tasks (20,000), a worker killed every 20 ms; KINFOLK_SEED says which.  By the fork
server every 200 ms: a worker imports this module first, and pytest with it, and more kills than that
leave nobody to work.
"""

import os
import random
import threading
import time

import pytest

import kinfolk
from kinfolk.pool import CancelledError, WorkerDied

TASKS = int(os.environ.get("KINFOLK_POOL_TASKS", "20000"))
SEED = int(os.environ.get("KINFOLK_SEED", "1"))


def square(n):
    return n * n


class Killer(threading.Thread):
    """Kills a worker of the pool, any, every so many seconds."""

    def __init__(self, pool, pause):
        super().__init__(daemon=True)
        self.pool = pool
        self.pause = pause
        self.killed = 0
        self.enough = threading.Event()
        self.random = random.Random(SEED)

    def run(self):
        while not self.enough.wait(self.pause):
            workers = list(self.pool._pool)
            if workers:
                self.random.choice(workers).kill()
                self.killed += 1


def under_fire(pool, work, pause=0.02):
    killer = Killer(pool, pause)
    killer.start()
    try:
        return work(), killer
    finally:
        killer.enough.set()
        killer.join()


@pytest.mark.timeout(120 + TASKS / 500)
@pytest.mark.parametrize("method, pause", [("fork", 0.02), ("forkserver", 0.2)])
def test_each_task_returns_or_is_told_to_have_lost_its_worker(method, pause):
    with kinfolk.get_context(method).Pool(3) as pool:

        def work():
            results = []
            while len(results) < TASKS:
                some = range(len(results), min(len(results) + 1000, TASKS))
                asked = [pool.apply_async(square, (n,)) for n in some]
                results += [outcome(result) for result in asked]
            return results

        results, killer = under_fire(pool, work, pause)
        died = sum(result is WorkerDied for result in results)
        assert all(result in (n * n, WorkerDied) for n, result in enumerate(results))
        assert died <= killer.killed  # a death costs one task, and not always that
        # the pool has its full size again, and works
        until = time.monotonic() + 30
        while len([each for each in pool._pool if each.is_alive()]) < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert pool.map(square, range(100), chunksize=1) == [n * n for n in range(100)]


def outcome(result):
    try:
        return result.get(60)
    except WorkerDied:
        return WorkerDied


@pytest.mark.timeout(120 + TASKS / 500)
def test_streams_go_on():
    with kinfolk.get_context("fork").Pool(3) as pool:

        def work():
            stream = pool.imap_unordered(square, range(TASKS))
            got, died = [], 0
            while True:
                try:
                    got.append(stream.next(60))
                except WorkerDied:
                    died += 1
                except StopIteration:
                    return got, died

        (got, died), killer = under_fire(pool, work)
        assert len(got) + died == TASKS
        assert len(set(got)) == len(got)
        assert set(got) <= {n * n for n in range(TASKS)}
        assert died <= killer.killed


@pytest.mark.timeout(120 + TASKS / 500)
def test_with_retries_all_return():
    with kinfolk.get_context("fork").Pool(3, retries=20) as pool:

        def work():
            got = []
            for start in range(0, TASKS, 1000):
                got += pool.map(square, range(start, start + 1000), chunksize=1)
            return got

        got, _ = under_fire(pool, work)
        assert got == [n * n for n in range(TASKS)]


def square_or_stay(n):
    """Every 97th takes for ever."""
    if n % 97 == 0:
        time.sleep(600)
    return n * n


@pytest.mark.timeout(120 + TASKS / 100)
def test_with_limits_cancels_and_resizes_all_at_once():
    """A tenth of what the others do.  Each task ends in one of the ways that it may end in."""
    chance = random.Random(SEED)
    with kinfolk.get_context("fork").Pool(3) as pool:

        def work():
            got = {}
            for start in range(1, TASKS // 10, 200):
                some = range(start, start + 200)
                asked = {n: pool.apply_async(square_or_stay, (n,), timeout=0.5) for n in some}
                cancelled = {n for n in some if chance.random() < 0.05 and asked[n].cancel()}
                pool.resize(chance.randint(1, 5))
                for n, result in asked.items():
                    got[n] = ending(result)
                    assert (got[n] is CancelledError) == (n in cancelled)
            return got

        got, _ = under_fire(pool, work, 0.1)
        for n, end in got.items():
            # A quick one, too, may take long on a machine that has much else to do.
            allowed = [WorkerDied, CancelledError, kinfolk.TimeoutError]
            assert end in (allowed if n % 97 == 0 else [n * n, *allowed])
        assert kinfolk.TimeoutError in got.values()
        assert sum(end in allowed for end in got.values()) < len(got) / 4
        pool.resize(3)
        assert pool.map(square, range(100), chunksize=1) == [n * n for n in range(100)]
        until = time.monotonic() + 30
        while len([each for each in pool._pool if each.is_alive()]) != 3:
            assert time.monotonic() < until
            time.sleep(0.01)


def ending(result):
    try:
        return result.get(60)
    except (WorkerDied, CancelledError, kinfolk.TimeoutError) as exc:
        assert result.ready(), "it hangs"
        return type(exc)
