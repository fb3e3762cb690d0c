"""A worker that dies costs the one task that it had, whatever it died of, and nothing ever hangs.

The kills are the worker's own doing, in the middle of a task or of what happens around one: they
come at the same place each time.
"""

import faulthandler
import os
import signal
import sys
import threading
import time

import pytest

import kinfolk
from kinfolk.pool import Pool, ThreadPool, WorkerDied

PATIENCE = 60  # seconds after which a test that waits in vain is to fail


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return kinfolk.get_context(request.param)


@pytest.fixture
def pool(context):
    with context.Pool(2) as pool:
        yield pool
    pool.join()
    pool._pool.clear()  # pytest keeps the pool; let the descriptors of its workers go


def square(x):
    return x * x


def my_pid():
    return os.getpid()


def kill_me(signum=signal.SIGKILL):
    faulthandler.disable()  # pytest's, which a forked worker has inherited
    os.kill(os.getpid(), signum)


def killed_by_multiples_of_five(x):
    if x % 5 == 0:
        kill_me()
    return x


class KillsItsReader:
    """Unpickling it is deadly."""

    def __reduce__(self):
        return kill_me, ()


class KillsItsWriter:
    """Pickling it is deadly, but for the process that made it."""

    def __init__(self):
        self.maker = os.getpid()

    def __reduce__(self):
        if os.getpid() != self.maker:
            kill_me()
        return KillsItsWriter.remake, (self.maker,)

    @staticmethod
    def remake(maker):
        made = object.__new__(KillsItsWriter)
        made.maker = maker
        return made


def give_back(x):
    return x


def assert_whole(pool, size=2):
    """The pool works, and comes to its full size."""
    assert pool.map(square, range(6), 1) == [0, 1, 4, 9, 16, 25]
    give_up = time.monotonic() + PATIENCE
    while not is_whole(pool, size) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert is_whole(pool, size)


def is_whole(pool, size):
    workers = list(pool._pool)
    return len(workers) == size and all(worker.is_alive() for worker in workers)


def test_a_killed_worker_fails_its_task_alone(pool):
    before = pool.apply_async(square, (3,))
    killed = pool.apply_async(kill_me)
    after = [pool.apply_async(square, (x,)) for x in range(10)]
    with pytest.raises(WorkerDied, match="killed by SIGKILL.*kill_me") as caught:
        killed.get(PATIENCE)
    assert (caught.value.exitcode, caught.value.signal) == (-signal.SIGKILL, "SIGKILL")
    assert isinstance(caught.value, kinfolk.ProcessError) and caught.value.pid
    assert before.get(PATIENCE) == 9
    assert [result.get(PATIENCE) for result in after] == [x * x for x in range(10)]
    assert_whole(pool)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_other_signals(pool, signum):
    with pytest.raises(WorkerDied) as caught:
        pool.apply(kill_me, (signum,))
    assert caught.value.signal == signum.name
    assert_whole(pool)


def crash_in_here(how):
    if how == "abort":
        os.abort()
    faulthandler._sigsegv() if how == "segv" else faulthandler._read_null()


@pytest.mark.parametrize("how, name", [("segv", "SIGSEGV"), ("abort", "SIGABRT")])
def test_a_crash_says_where(pool, how, name):
    with pytest.raises(
        WorkerDied, match=f"was killed by {name} while it worked on crash_in_here"
    ) as info:
        pool.apply(crash_in_here, (how,))
    assert "in crash_in_here" in info.value.stack
    assert "in crash_in_here" in str(info.value.__cause__)
    assert info.value.signal == name and not info.value.out_of_memory
    assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]


def test_who_is_killed_has_no_stack(pool):
    with pytest.raises(WorkerDied) as info:
        pool.apply(kill_myself)
    assert info.value.stack is None and info.value.__cause__ is None


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_for_want_of_memory_is_told(monkeypatch):
    """What the control group counts goes up meanwhile."""
    from kinfolk import _pool_engine

    counts = iter([3, 4, 4])
    monkeypatch.setattr(_pool_engine, "oom_kills", lambda: next(counts))
    with kinfolk.get_context("fork").Pool(1) as pool:
        with pytest.raises(WorkerDied, match="short of memory") as info:
            pool.apply(kill_myself)
        assert info.value.out_of_memory
        with pytest.raises(WorkerDied) as info:
            pool.apply(kill_myself)
        assert not info.value.out_of_memory
    pool.join()
    pool._pool.clear()


@pytest.mark.parametrize("leave", [os._exit, sys.exit])
def test_a_worker_that_exits(pool, leave):
    with pytest.raises(WorkerDied, match="exited with code 7") as caught:
        pool.apply(leave, (7,))
    assert (caught.value.exitcode, caught.value.signal) == (7, None)
    assert_whole(pool)


def test_a_thread_that_exits_delivers_that():
    with ThreadPool(1) as pool:
        with pytest.raises(SystemExit):
            pool.apply(sys.exit, (7,))
        assert pool.apply(square, (2,)) == 4
    pool.join()


def test_map_over_the_dead(pool):
    failures = []
    result = pool.map_async(
        killed_by_multiples_of_five, range(12), 1, error_callback=failures.append
    )
    with pytest.raises(WorkerDied, match="killed_by_multiples_of_five"):
        result.get(PATIENCE)
    assert len(failures) == 1
    assert_whole(pool)


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_imap_over_the_dead(pool, name):
    items = getattr(pool, name)(killed_by_multiples_of_five, range(12))
    alive, died = [], 0
    while True:
        try:
            alive.append(items.next(PATIENCE))
        except WorkerDied:
            died += 1
        except StopIteration:
            break
    assert sorted(alive) == [x for x in range(12) if x % 5]
    assert died == 3
    assert_whole(pool)


def test_death_while_the_task_is_unpickled(pool):
    with pytest.raises(WorkerDied):
        pool.apply(give_back, (KillsItsReader(),))
    assert_whole(pool)


def test_death_while_the_result_is_pickled(pool):
    with pytest.raises(WorkerDied):
        pool.apply(give_back, (KillsItsWriter(),))
    assert_whole(pool)


def test_every_worker_dies_at_once(context):
    with context.Pool(3) as pool:
        results = [pool.apply_async(kill_me) for _ in range(6)]
        for result in results:
            with pytest.raises(WorkerDied):
                result.get(PATIENCE)
        assert_whole(pool, 3)
    pool.join()


def test_idle_workers_die(pool):
    pids = {pool.apply(my_pid) for _ in range(10)}
    for worker in list(pool._pool):
        worker.kill()
        worker.join()
    # A task that a dead worker never touched goes to its successor.
    assert pool.apply_async(square, (5,)).get(PATIENCE) == 25
    assert_whole(pool)
    assert not pids & {worker.pid for worker in pool._pool}


def test_deaths_while_the_pool_is_closing(context):
    pool = context.Pool(2)
    results = [pool.apply_async(killed_by_multiples_of_five, (x,)) for x in range(12)]
    pool.close()
    pool.join()
    for x, result in enumerate(results):
        if x % 5:
            assert result.get(0) == x
        else:
            with pytest.raises(WorkerDied):
                result.get(0)


def test_deaths_count_as_tasks_of_nobody(context):
    """A death among workers that are replaced anyway disturbs neither count."""
    with context.Pool(2, maxtasksperchild=2) as pool:
        results = [pool.apply_async(killed_by_multiples_of_five, (x,)) for x in range(8)]
        alive = [x for x, result in enumerate(results) if wait_for(result)]
        assert alive == [1, 2, 3, 4, 6, 7]
        assert_whole(pool)
    pool.join()


def wait_for(result):
    result.wait(PATIENCE)
    return result.successful()


# Workers that cannot start


def raise_in_initializer(name):
    raise LookupError(name)


def test_an_initializer_that_raises_fails_the_tasks(context, capfd):
    with context.Pool(2, initializer=raise_in_initializer, initargs=("no such thing",)) as pool:
        failures = []
        result = pool.map_async(square, range(10), error_callback=failures.append)
        items = pool.imap(square, iter(int, 1))
        with pytest.raises(LookupError, match="no such thing"):
            result.get(PATIENCE)
        with pytest.raises(LookupError, match="no such thing"):
            next(items)
        with pytest.raises(LookupError, match="no such thing"):
            pool.apply(square, (1,))
        assert len(failures) == 1
        pool.close()
        pool.join()
    assert capfd.readouterr().err.count("LookupError: no such thing") <= 4


def test_an_initializer_that_raises_in_threads(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    with ThreadPool(2, raise_in_initializer, ("no such thing",)) as pool:
        with pytest.raises(LookupError, match="no such thing"):
            pool.map(square, range(10))
        pool.close()
        pool.join()


def kill_me_while_there_is(path):
    if path.exists():
        kill_me()


def test_workers_that_are_killed_while_they_start_may_have_had_bad_luck(tmp_path):
    danger = tmp_path / "danger"
    danger.touch()
    context = kinfolk.get_context("fork")  # it takes many starts
    with context.Pool(1, kill_me_while_there_is, (danger,)) as pool:
        for _ in range(2):
            with pytest.raises(WorkerDied, match="killed by SIGKILL while it was being started"):
                pool.apply(square, (1,))
        danger.unlink()
        assert_whole(pool, 1)
    pool.join()


def raise_the_first_times(turns):
    if turns.get():
        raise LookupError("not yet")


def test_an_initializer_that_raises_now_and_then_is_given_another_chance(context, capfd):
    turns = context.SimpleQueue()
    for fails in (True, True, False, True, False, False, False):
        turns.put(fails)
    with Pool(2, raise_the_first_times, (turns,), context=context) as pool:
        assert_whole(pool)
    pool.join()


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_task_is_tried_again_as_often_as_was_asked(retries, context):
    tries = context.Value("i", 0)
    with context.Pool(2, retries=retries) as pool:
        with pytest.raises(WorkerDied):
            pool.apply(count_and_die, (tries,))
        assert tries.value == 1 + retries
        assert pool.map(abs, range(-3, 0)) == [3, 2, 1]
    with pytest.raises(ValueError, match="retries"):
        context.Pool(1, retries=-1)


def count_and_die(tries):
    with tries.get_lock():
        tries.value += 1
    os.kill(os.getpid(), signal.SIGKILL)
