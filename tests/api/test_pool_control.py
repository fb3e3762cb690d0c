"""What ends the work of a pool before it is done, how many do it, and how it is shown."""

import os
import signal
import threading
import time

import pytest

import kinfolk
from kinfolk import _kin
from kinfolk.pool import CancelledError, ThreadPool


def same(x):
    return x


def slow(x):
    time.sleep(x)
    return x


def mark_and_wait(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)


def worker_at(path):
    """The worker that has marked it."""
    while not (path.exists() and path.read_text()):
        time.sleep(0.001)
    return int(path.read_text())


@pytest.fixture
def pool():
    with kinfolk.get_context("fork").Pool(2) as pool:
        yield pool
    pool.join()
    pool._pool.clear()  # pytest keeps the pool; let the descriptors of its workers go


# A time limit.


def test_a_task_that_takes_too_long_fails_alone(pool):
    before = set(pool.map(pid_of, range(50), chunksize=1)) | {p.pid for p in pool._pool}
    late = pool.apply_async(slow, (600,), timeout=0.1)
    others = [pool.apply_async(same, (i,)) for i in range(300)]
    with pytest.raises(kinfolk.TimeoutError, match=r"^slow took longer than 0.1 s"):
        late.get(60)
    assert [other.get(60) for other in others] == list(range(300))
    assert pool.map(same, range(9)) == list(range(9))
    assert len({p.pid for p in pool._pool} & before) == 1


def pid_of(_):
    return os.getpid()


def test_limits_of_each_task_of_a_stream(pool):
    results = pool.imap(slow, [0, 600, 0, 600], timeout=0.1)
    assert next(results) == 0
    with pytest.raises(kinfolk.TimeoutError):
        next(results)
    assert next(results) == 0
    with pytest.raises(kinfolk.TimeoutError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_a_limit_is_for_the_work_not_for_the_wait(pool):
    """Each of them waits for longer than it may take."""
    results = [pool.apply_async(slow, (0.05,), timeout=0.8) for _ in range(60)]
    assert [result.get(60) for result in results] == [0.05] * 60


def test_a_chunk_has_the_time_of_all_its_things(pool):
    assert pool.map(slow, [0.05] * 20, chunksize=10, timeout=0.25) == [0.05] * 20
    with pytest.raises(kinfolk.TimeoutError):
        pool.map(slow, [0, 600], chunksize=1, timeout=0.1)


def test_a_task_that_ran_out_of_time_is_not_tried_again(tmp_path):
    with kinfolk.get_context("fork").Pool(1, retries=5) as pool:
        with pytest.raises(kinfolk.TimeoutError):
            pool.apply(mark_and_wait, (tmp_path / "once",), timeout=0.1)
        assert pool.apply(same, (1,)) == 1


@pytest.mark.parametrize("limit", [0, -1.5])
def test_impossible_limits(pool, limit):
    with pytest.raises(ValueError, match="timeout must be positive"):
        pool.map(same, [1], timeout=limit)


def test_threads_have_no_limit():
    with ThreadPool(1) as pool, pytest.raises(ValueError, match="a thread cannot be ended"):
        pool.apply(same, (1,), timeout=1)


# cancel().


def test_a_running_task_is_cancelled(pool, tmp_path):
    result = pool.apply_async(mark_and_wait, (tmp_path / "mark",))
    others = [pool.apply_async(same, (i,)) for i in range(300)]
    pid = worker_at(tmp_path / "mark")
    assert result.cancel()
    with pytest.raises(CancelledError):
        result.get(0)
    assert not result.cancel()
    assert [other.get(60) for other in others] == list(range(300))
    while pid in {process.pid for process in pool._pool}:
        time.sleep(0.001)
    assert pool.map(same, range(9)) == list(range(9))


def test_what_was_not_begun_is_never_begun(tmp_path):
    """Neither what waits in the parent, nor what the worker has in its line."""
    with kinfolk.get_context("fork").Pool(1) as pool:
        pool.map(same, range(2000), chunksize=1)  # it is given several ahead now
        first = pool.apply_async(mark_and_wait, (tmp_path / "first",))
        others = [pool.apply_async(mark_and_wait, (tmp_path / str(i),)) for i in range(300)]
        worker_at(tmp_path / "first")
        assert all(other.cancel() for other in others)
        assert first.cancel()
        assert pool.apply_async(same, (1,)).get(60) == 1
        assert os.listdir(tmp_path) == ["first"]


def test_a_map_is_cancelled(pool, tmp_path):
    paths = [tmp_path / str(i) for i in range(500)]
    result = pool.map_async(mark_and_wait, paths, chunksize=1)
    worker_at(paths[0])
    assert result.cancel()
    with pytest.raises(CancelledError):
        result.get(0)
    assert pool.map(same, range(9)) == list(range(9))
    assert len(os.listdir(tmp_path)) <= 2


def test_an_endless_stream_is_cancelled(pool):
    def endless():
        while True:
            yield 1

    results = pool.imap(same, endless())
    assert [next(results) for _ in range(10)] == [1] * 10
    assert results.cancel()
    with pytest.raises(CancelledError):
        while True:
            next(results)
    pool.close()
    pool.join()


def test_the_error_callback_hears_of_it(pool, tmp_path):
    said = []
    result = pool.apply_async(mark_and_wait, (tmp_path / "mark",), error_callback=said.append)
    worker_at(tmp_path / "mark")
    assert result.cancel()
    assert [type(exc) for exc in said] == [CancelledError]


def test_what_is_done_cannot_be_cancelled(pool):
    result = pool.apply_async(same, (1,))
    assert result.get(60) == 1
    assert not result.cancel()
    assert result.get() == 1


def test_threads_are_not_ended():
    gate, here = threading.Event(), threading.Event()

    def work():
        here.set()
        return gate.wait(60)

    with ThreadPool(1) as pool:
        running = pool.apply_async(work)
        assert here.wait(60)
        waiting = pool.apply_async(work)
        assert not running.cancel()
        assert waiting.cancel()
        gate.set()
        assert running.get(60)


def test_random_cancels_cost_nobody_else_anything(pool):
    """Seeded by their numbers: every seventh, at whatever moment that is."""
    for _ in range(5):
        results = [pool.apply_async(same, (i,)) for i in range(400)]
        gone = {i for i in range(0, 400, 7) if results[i].cancel()}
        for i, result in enumerate(results):
            if i in gone:
                with pytest.raises(CancelledError):
                    result.get(60)
            else:
                assert result.get(60) == i


# resize().


def names(pool):
    return {process.pid for process in pool._pool}


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_more_and_fewer_workers(kind):
    make = ThreadPool if kind == "threads" else kinfolk.get_context("fork").Pool
    with make(2) as pool:
        for size in (5, 1, 3):
            pool.resize(size)
            assert pool.map(same, range(100), chunksize=1) == list(range(100))
            while len(pool._pool) != size:
                time.sleep(0.001)
        pool.close()
        pool.join()


def test_those_that_go_finish_what_they_have():
    with kinfolk.get_context("fork").Pool(4) as pool:
        result = pool.map_async(slow, [0.01] * 100, chunksize=1)
        pool.resize(1)
        assert result.get(60) == [0.01] * 100
        while len(pool._pool) != 1:
            time.sleep(0.001)


def test_a_worker_that_came_later_is_watched_too():
    with kinfolk.get_context("fork").Pool(1) as pool:
        first = names(pool)
        pool.resize(2)
        (later,) = names(pool) - first
        os.kill(later, signal.SIGKILL)
        while later in names(pool) or len(pool._pool) != 2:
            time.sleep(0.001)


def test_no_workers_are_too_few(pool):
    with pytest.raises(ValueError, match="at least 1"):
        pool.resize(0)
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.resize(2)


# Progress.


@pytest.fixture
def bars(monkeypatch):
    """What the bars have counted and whether they were closed: [total, n, closed] each."""
    tqdm = pytest.importorskip("tqdm")
    made = []

    class Bar:
        def __init__(self, total, **arguments):
            self.total, self.n, self.closed, self.arguments = total, 0, 0, arguments
            made.append(self)

        def update(self, count):
            self.n += count

        def close(self):
            self.closed += 1

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    return made


@pytest.mark.parametrize("chunksize", [1, 7, 100, None])
@pytest.mark.parametrize("name", ["map", "imap", "imap_unordered", "starmap"])
def test_a_bar_counts_what_is_done(pool, bars, name, chunksize):
    things = [(i,) for i in range(20)] if name == "starmap" else range(20)
    arguments = {} if chunksize is None else {"chunksize": chunksize}
    got = list(getattr(pool, name)(same, things, progress={"unit": "x"}, **arguments))
    assert sorted(got) == list(range(20))
    (bar,) = bars
    assert (bar.total, bar.n, bar.arguments) == (20, 20, {"unit": "x"})
    assert bar.closed


def test_a_bar_of_unknown_length_and_of_none(pool, bars):
    assert list(pool.imap(same, iter(x for x in "abc"), progress=True)) == ["a", "b", "c"]
    assert pool.map(same, [], progress=True) == []
    assert [(bar.total, bar.n) for bar in bars] == [(None, 3), (0, 0)]
    assert all(bar.closed for bar in bars)


def test_no_outcome_is_lost_to_a_bar(pool, bars, monkeypatch):
    import tqdm

    def fail(self, count):
        raise OSError("no terminal")

    monkeypatch.setattr(tqdm.tqdm, "update", fail)
    with pytest.warns(RuntimeWarning, match="no terminal"):
        assert list(pool.imap(same, range(5), progress=True)) == list(range(5))


def test_progress_of_another_kind(pool):
    with pytest.raises(TypeError, match="bool or a dict"):
        pool.map(same, [1], progress=3)


def test_without_tqdm(pool, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        pool.map(same, [1], progress=True)
    assert pool._cache == {}


# How many processors there are for it (control groups: libkin/tests/groups.c).


def test_a_pool_is_as_large_as_this_process_may_be():
    allowed = len(os.sched_getaffinity(0))
    assert 1 <= _kin.processors() <= allowed
    with ThreadPool() as pool:
        assert pool._processes == _kin.processors()


# Seeds and logs.


def draw(_):
    import random

    time.sleep(0.01)
    return os.getpid(), random.random()


def draw_of_numpy(_):
    import numpy

    time.sleep(0.01)
    return os.getpid(), numpy.random.random()


def first_draws(method, draw, seed):
    """What each of two workers draws first, in the order of the figures."""
    with kinfolk.get_context(method).Pool(2, seed=seed) as pool:
        drawn = {}
        while len(drawn) < 2:
            for pid, figure in pool.map(draw, range(4), chunksize=1):
                drawn.setdefault(pid, figure)
    pool.join()
    pool._pool.clear()
    return sorted(drawn.values())


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_seeded_workers_draw_apart_and_the_same_each_time(method):
    once = first_draws(method, draw, 7)
    assert once[0] != once[1]
    assert first_draws(method, draw, 7) == once
    assert first_draws(method, draw, -7) != once


def test_seeded_workers_and_numpy():
    pytest.importorskip("numpy")
    once = first_draws("fork", draw_of_numpy, 7)
    assert once[0] != once[1]
    assert first_draws("fork", draw_of_numpy, 7) == once


def test_seeds_of_another_kind():
    with pytest.raises(TypeError, match="seed must be an int"):
        kinfolk.Pool(1, seed="x")


def log(x):
    import logging

    logging.getLogger("jobs.inner").warning("done %d", x)
    return x


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_workers_log_reaches_the_parents_handlers(method, caplog):
    with kinfolk.get_context(method).Pool(2, logs=True) as pool:
        assert pool.map(log, range(20), chunksize=1) == list(range(20))
        pool.close()
        pool.join()
    pool._pool.clear()
    records = [record for record in caplog.records if record.name == "jobs.inner"]
    assert sorted(record.getMessage() for record in records) == sorted(
        f"done {i}" for i in range(20)
    )
    assert all(record.process != os.getpid() for record in records)


# stats().


def fail(_):
    raise ValueError


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_what_a_pool_has_done(kind):
    make = ThreadPool if kind == "threads" else kinfolk.get_context("fork").Pool
    with make(2) as pool:
        before = pool.stats()
        assert (before.tasks, before.failed, before.died) == (0, 0, 0)
        pool.map(slow, [0.02] * 10, chunksize=1)
        pool.map(same, range(1000), chunksize=10)
        for _ in range(3):
            with pytest.raises(ValueError):
                pool.apply(fail, (0,))
        with pytest.raises(TypeError):
            pool.apply(same, kwds={"x": 1, "y": 2})
        stats = pool.stats()
        assert (stats.tasks, stats.failed, stats.died) == (114, 4, 0)
        assert sum(worker.tasks for worker in stats.workers) == 114
        assert {worker.pid for worker in stats.workers} <= {p.ident for p in pool._pool}
        assert stats.working >= 0.2
        assert min(stats.waiting, stats.encoding, stats.decoding) >= 0
    pool.join()
    pool._pool.clear()


def test_the_dead_are_counted(pool):
    pool.map(same, range(100), chunksize=1)
    for _ in range(2):
        with pytest.raises(kinfolk.ProcessError):
            pool.apply(os._exit, (1,))
    pool.map(same, range(100), chunksize=1)
    stats = pool.stats()
    assert (stats.tasks, stats.failed, stats.died) == (200, 2, 2)


def test_work_under_way_counts(pool, tmp_path):
    pool.apply_async(mark_and_wait, (tmp_path / "mark",))
    worker_at(tmp_path / "mark")
    first = pool.stats()
    while pool.stats().working <= first.working:
        pass
    assert pool.stats().tasks == 0
