"""Pool and ThreadPool as their documentation has them, under every start method.

What is pinned by CPython's own tests is not repeated here; what they leave open is: iterables that
lie about their length, callbacks that raise, terminate() from anywhere, results after the end.
"""

import gc
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import weakref

import pytest

import kinfolk
from kinfolk import pool as pools
from kinfolk.pool import MaybeEncodingError, Pool, RemoteTraceback, ThreadPool

PATIENCE = 60  # seconds after which a test that waits in vain is to fail
KINDS = ["fork", "spawn", "forkserver", "threads"]


def make_pool(kind, *args, **kwargs):
    if kind == "threads":
        return ThreadPool(*args, **kwargs)
    return kinfolk.get_context(kind).Pool(*args, **kwargs)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=KINDS[:3])
def method(request):
    return request.param


@pytest.fixture
def pool(kind):
    with make_pool(kind, 2) as pool:
        yield pool
    pool.join()
    pool._pool.clear()  # pytest keeps the pool; let the descriptors of its workers go


def square(x):
    return x * x


def add(x, y=0):
    return x + y


def raise_value_error(x):
    raise ValueError(x)


def odd_ones_raise(x):
    if x % 2:
        raise ValueError(x)
    return x


def pid_of_worker(_):
    return os.getpid()


_mark = None


def set_mark(*mark):
    global _mark
    _mark = mark


def get_mark(_):
    return _mark


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("I stay here")


class ArrivesBroken:
    """Pickles well, does not unpickle."""

    def __reduce__(self):
        return raise_value_error, ("broken on arrival",)


class FussyError(Exception):
    """An exception as people write them: it pickles, and its pickle cannot be loaded."""

    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")


def return_unpicklable():
    return Unpicklable()


def return_broken():
    return ArrivesBroken()


def raise_fussy():
    raise FussyError(42, "fussy")


def raise_unpicklable():
    raise ValueError(Unpicklable())


class Stop(BaseException):
    pass


def raise_stop():
    raise Stop("now")


# Calls and results


def test_every_call(pool):
    tens = list(range(10))
    pairs = [(x, 1) for x in tens]
    squares, sums = [square(x) for x in tens], [x + 1 for x in tens]
    assert pool.apply(add, (1,), {"y": 2}) == 3
    assert pool.apply_async(add, (1, 2)).get(PATIENCE) == 3
    assert pool.map(square, tens) == squares
    assert pool.map(square, iter(tens), chunksize=3) == squares
    assert pool.map_async(square, tens, 4).get(PATIENCE) == squares
    assert pool.starmap(add, pairs) == sums
    assert pool.starmap_async(add, iter(pairs), 3).get(PATIENCE) == sums
    assert list(pool.imap(square, tens)) == squares
    assert list(pool.imap(square, tens, 4)) == squares
    assert sorted(pool.imap_unordered(square, tens)) == squares
    assert sorted(pool.imap_unordered(square, tens, 4)) == squares


def test_nothing_to_do(pool):
    calls = []
    assert pool.map(square, []) == []
    assert pool.map_async(square, [], callback=calls.append).get(PATIENCE) == []
    assert list(pool.imap(square, [])) == list(pool.imap_unordered(square, [], 3)) == []
    assert calls == []


def test_async_result_says_how_it_went(pool):
    good, bad = pool.apply_async(square, (3,)), pool.apply_async(raise_value_error, (3,))
    good.wait(PATIENCE)
    bad.wait(PATIENCE)
    assert good.ready() and good.successful() and good.get() == 9
    assert bad.ready() and not bad.successful()
    with pytest.raises(ValueError, match="3"):
        bad.get()


def test_what_is_not_ready_says_so():
    go = threading.Event()
    with ThreadPool(1) as pool:
        result, items = pool.apply_async(go.wait), pool.imap(lambda _: go.wait(), [1])
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(kinfolk.TimeoutError):
            result.get(timeout=0.01)
        with pytest.raises(kinfolk.TimeoutError):
            items.next(timeout=0.01)
        go.set()
        assert result.get(PATIENCE) is items.next(PATIENCE) is True
    pool.join()


def test_callbacks(pool):
    news = queue.SimpleQueue()
    pool.apply_async(square, (3,), callback=news.put, error_callback=news.put).wait(PATIENCE)
    pool.map_async(square, [1, 2], callback=news.put, error_callback=news.put).wait(PATIENCE)
    pool.starmap_async(add, [(1,)], callback=news.put).wait(PATIENCE)
    assert [news.get(timeout=PATIENCE) for _ in range(3)] == [9, [1, 4], [1]]
    pool.apply_async(raise_value_error, (3,), callback=news.put, error_callback=news.put)
    assert isinstance(news.get(timeout=PATIENCE), ValueError)
    assert news.empty()


def test_a_callback_that_raises_costs_nobody_anything(pool, monkeypatch):
    shown = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.put(args.exc_value))
    assert pool.apply_async(square, (2,), callback=lambda _: 1 / 0).get(PATIENCE) == 4
    assert isinstance(shown.get(timeout=PATIENCE), ZeroDivisionError)
    assert pool.apply(square, (3,)) == 9


def test_map_reports_the_first_exception_when_all_is_done(pool):
    done = []
    result = pool.map_async(odd_ones_raise, range(6), 1, error_callback=done.append)
    with pytest.raises(ValueError):
        result.get(PATIENCE)
    assert len(done) == 1


def test_imap_goes_on_after_an_exception(pool):
    items = pool.imap(odd_ones_raise, range(4))
    assert next(items) == 0
    with pytest.raises(ValueError, match="1"):
        next(items)
    assert items.next(timeout=PATIENCE) == 2
    with pytest.raises(ValueError, match="3"):
        next(items)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(items)


def test_remote_traceback_is_the_cause(method):
    with make_pool(method, 1) as pool:
        with pytest.raises(ValueError) as caught:
            pool.apply(raise_value_error, (1,))
    pool.join()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "raise ValueError(x)" in str(caught.value.__cause__)


def test_threads_hand_over_the_exception_itself():
    error = KeyError("itself")

    def fail():
        raise error

    with ThreadPool(1) as pool, pytest.raises(KeyError) as caught:
        pool.apply(fail)
    pool.join()
    assert caught.value is error and error.__cause__ is None


def test_base_exceptions_are_delivered(pool):
    with pytest.raises(Stop, match="now"):
        pool.apply(raise_stop)
    assert pool.apply(square, (2,)) == 4


# Iterables


def failing_after(count):
    yield from range(count)
    raise KeyError("enough")


class Sized:
    """An iterable that claims a length."""

    def __init__(self, claimed, items):
        self.claimed = claimed
        self.items = items

    def __len__(self):
        return self.claimed

    def __iter__(self):
        return iter(self.items)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_iterables_that_raise(pool, chunksize):
    with pytest.raises(KeyError, match="enough"):
        pool.map(square, failing_after(5), chunksize)
    with pytest.raises(KeyError, match="enough"):
        pool.map(square, Sized(100, failing_after(5)), chunksize)
    with pytest.raises(KeyError, match="enough"):
        list(pool.imap_unordered(square, failing_after(5), chunksize))
    items = pool.imap(square, failing_after(6), chunksize)
    assert [next(items) for _ in range(6)] == [x * x for x in range(6)]
    with pytest.raises(KeyError, match="enough") as caught:
        next(items)
    assert caught.value.__cause__ is None


def test_iterables_that_end_early(pool):
    assert pool.map(square, Sized(100, range(6)), 3) == [x * x for x in range(6)]
    assert pool.map(square, Sized(100, []), 3) == []


def test_imap_takes_no_more_than_it_needs_for_now():
    go, taken = threading.Event(), []

    def numbers():
        for x in range(1000):
            taken.append(x)
            yield x

    with ThreadPool(2) as pool:
        items = pool.imap(lambda x: go.wait() and x, numbers())
        # Two at work, four ready for each, and one on its way.
        assert len(taken) <= 11
        go.set()
        assert list(items) == list(range(1000))
    pool.join()


# What cannot travel


def test_arguments_that_do_not_pickle(method):
    with make_pool(method, 2) as pool:
        failures = []
        result = pool.apply_async(square, (Unpicklable(),), error_callback=failures.append)
        with pytest.raises(RuntimeError, match="I stay here"):
            result.get(PATIENCE)
        assert isinstance(failures[0], RuntimeError)
        with pytest.raises(RuntimeError):
            pool.map(square, [1, Unpicklable(), 2], 1)
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
    pool.join()


def test_the_path_to_what_does_not_pickle(method):
    lock = threading.Lock()
    with make_pool(method, 2) as pool:
        for start, path in (
            (lambda: pool.apply_async(square, ([1, lock],)), r"args\[0\]\[1\]"),
            (lambda: pool.apply_async(square, (1,), {"by": [lock]}), r"kwds\['by'\]\[0\]"),
            (lambda: pool.apply_async(lambda: lock), r"func\.__closure__\['lock'\]"),
            (lambda: pool.map_async(square, [1, [lock]], 2), r"args\[1\]\[0\]"),
        ):
            with pytest.raises(TypeError, match=rf"^{path}: cannot pickle '_thread.lock' object"):
                start().get(PATIENCE)
    pool.join()


def test_arguments_that_do_not_unpickle(method):
    with make_pool(method, 1) as pool:
        with pytest.raises(ValueError, match="broken on arrival"):
            pool.apply(square, (ArrivesBroken(),))
        pid = pool.apply(pid_of_worker, (0,))
        with pytest.raises(ValueError, match="broken on arrival"):
            pool.apply(square, (ArrivesBroken(),))
        assert pool.apply(pid_of_worker, (0,)) == pid
    pool.join()


def test_results_that_do_not_travel(method):
    with make_pool(method, 1) as pool:
        pid = pool.apply(pid_of_worker, (0,))
        with pytest.raises(MaybeEncodingError, match="I stay here") as caught:
            pool.apply(return_unpicklable)
        assert "Unpicklable object" in caught.value.value
        with pytest.raises(MaybeEncodingError, match="broken on arrival"):
            pool.apply(return_broken)
        assert pool.apply(pid_of_worker, (0,)) == pid
    pool.join()


def test_exceptions_that_do_not_travel(method):
    with make_pool(method, 1) as pool:
        pid = pool.apply(pid_of_worker, (0,))
        with pytest.raises(MaybeEncodingError, match=r"fussy \(42\)") as caught:
            pool.apply(raise_fussy)
        assert "raise FussyError" in str(caught.value.__cause__)
        with pytest.raises(MaybeEncodingError, match="I stay here") as caught:
            pool.apply(raise_unpicklable)
        assert "raise ValueError(Unpicklable())" in str(caught.value.__cause__)
        assert pool.apply(pid_of_worker, (0,)) == pid
    pool.join()


def test_functions_travel_by_value(method):
    base = 10

    def above_base(x):
        return (lambda y: y + base)(x)

    with make_pool(method, 2) as pool:
        assert pool.map(above_base, range(3)) == [10, 11, 12]
        assert pool.apply(lambda: lambda x: x + base)(1) == 11
    pool.join()


def make_queue_with(item):
    made = kinfolk.SimpleQueue()
    made.put(item)
    return made


def put_square(target, x):
    target.put(x * x)


def test_queues_travel_in_tasks_and_results(method):
    target = kinfolk.SimpleQueue()
    with make_pool(method, 2) as pool:
        pool.starmap(put_square, [(target, x) for x in range(4)], 1)
        assert sorted(target.get() for _ in range(4)) == [0, 1, 4, 9]
        assert pool.apply(make_queue_with, ("from there",)).get() == "from there"
    pool.join()


def test_large_arguments_and_results(pool):
    large = b"kin" * (1 << 20)
    assert pool.map(bytes.upper, [large, large[1:]], 1) == [large.upper(), large[1:].upper()]


# Workers


def test_initializer(kind):
    with make_pool(kind, 2, initializer=set_mark, initargs=(1, 2)) as pool:
        assert pool.map(get_mark, range(4), 1) == [(1, 2)] * 4
    pool.join()


@pytest.mark.parametrize("bad", [0, -1])
def test_size_is_checked(kind, bad):
    with pytest.raises(ValueError, match="at least 1"):
        make_pool(kind, bad)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="callable"):
        Pool(1, initializer=1)
    for bad in (0, -1, 0.5, "12"):
        with pytest.raises(ValueError, match="maxtasksperchild"):
            Pool(1, maxtasksperchild=bad)
    with ThreadPool(1) as pool:
        for call in (pool.imap, pool.imap_unordered):
            with pytest.raises(ValueError, match="Chunksize must be 1"):
                call(square, [1], 0)
    pool.join()


def test_maxtasksperchild_is_exact(method):
    with make_pool(method, 2, maxtasksperchild=3) as pool:
        pids = pool.map(pid_of_worker, range(12), 1)
        pool.close()
        pool.join()
    # Every worker but the last two has worked three tasks.
    counts = sorted(pids.count(pid) for pid in set(pids))
    assert max(counts) == 3 and sum(count < 3 for count in counts) <= 2


def test_every_worker_is_given_work():
    meet = threading.Barrier(4)
    with ThreadPool(4) as pool:
        results = [pool.apply_async(meet.wait, (PATIENCE,)) for _ in range(4)]
        assert sorted(result.get(PATIENCE) for result in results) == [0, 1, 2, 3]
    pool.join()


def test_repopulate_pool_follows_processes(method):
    with make_pool(method, 1) as pool:
        pool._processes = 3
        pool._repopulate_pool()
        assert len(pool._pool) == 3 and all(worker.is_alive() for worker in pool._pool)
        assert pool.map(square, range(9), 1) == [x * x for x in range(9)]
    pool.join()


class RefusesToStart:
    """A context whose processes cannot be started, from the third on."""

    def __init__(self, context):
        self.context = context
        self.made = []

    def __getattr__(self, name):
        return getattr(self.context, name)

    def Process(self, *args, **kwargs):
        if len(self.made) == 2:
            raise OSError("no more of them")
        self.made.append(self.context.Process(*args, **kwargs))
        return self.made[-1]


def test_a_pool_that_cannot_be_made_leaves_no_worker(method):
    context = RefusesToStart(kinfolk.get_context(method))
    with pytest.raises(OSError, match="no more of them"):
        Pool(3, context=context)
    assert [worker.is_alive() for worker in context.made] == [False, False]


# Ends


def test_close_lets_everything_finish(kind):
    pool = make_pool(kind, 2)
    results = [pool.apply_async(square, (x,)) for x in range(50)]
    items = pool.imap(square, iter(range(50)))
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    pool.join()
    assert [result.get(0) for result in results] == [x * x for x in range(50)]
    assert list(items) == [x * x for x in range(50)]
    for call in (pool.apply, pool.apply_async, pool.__enter__):
        with pytest.raises(ValueError, match="not running"):
            call(*[square][: call != pool.__enter__])
    pool.close()
    pool.terminate()
    pool.join()


def test_terminate_ends_work_that_does_not(method):
    pool = make_pool(method, 2)
    results = [pool.apply_async(time.sleep, (3600,)) for _ in range(100)]
    items = pool.imap(time.sleep, iter(lambda: 3600, None))
    workers = list(pool._pool)
    pool.terminate()
    pool.join()
    assert not any(worker.is_alive() for worker in workers)
    for result in results:
        with pytest.raises(kinfolk.ProcessError, match="terminated"):
            result.get(PATIENCE)
    with pytest.raises(kinfolk.ProcessError, match="terminated"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def ignore_sigterm():
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_terminate_ends_workers_that_ignore_it(method, monkeypatch):
    monkeypatch.setattr("kinfolk._pool_engine._GRACE", 0.05)
    pool = make_pool(method, 1, initializer=ignore_sigterm)
    pool.apply(square, (1,))
    pool.apply_async(time.sleep, (3600,))
    pool.terminate()
    pool.join()
    assert not any(worker.is_alive() for worker in pool._pool)


def test_terminate_from_a_callback(kind):
    pool = make_pool(kind, 2)
    called = threading.Event()

    def enough(_):
        pool.terminate()
        called.set()

    pool.apply_async(square, (1,), callback=enough)
    assert called.wait(PATIENCE)
    pool.join()


def test_terminate_while_the_iterable_blocks(kind, monkeypatch):
    monkeypatch.setattr("kinfolk._pool_engine._GRACE", 0.05)
    go = threading.Event()

    def numbers():
        yield 1
        go.wait()

    pool = make_pool(kind, 2)
    items = pool.imap(square, numbers())
    assert next(items) == 1
    pool.terminate()
    pool.join()
    with pytest.raises(kinfolk.ProcessError):
        next(items)
    go.set()


def test_terminate_at_once_and_twice(kind):
    pool = make_pool(kind, 3)
    pool.terminate()
    pool.terminate()
    pool.join()
    pool.join()


def test_terminate_after_close(kind):
    go = threading.Event()
    pool = make_pool(kind, 1)
    pool.imap(square, iter(go.wait, True))
    pool.close()
    go.set()
    pool.terminate()
    pool.join()


def test_a_forgotten_pool_ends_with_a_warning(kind):
    pool = make_pool(kind, 1)
    pool.apply(square, (1,))
    workers = list(pool._pool)
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    for worker in workers:
        worker.join(PATIENCE)
        assert not worker.is_alive()


def test_a_pool_with_work_is_not_forgotten():
    go = threading.Event()
    pool = ThreadPool(1)
    known = weakref.ref(pool)
    result = pool.apply_async(go.wait)
    pool.close()
    del pool
    gc.collect()
    assert known() is not None
    go.set()
    assert result.get(PATIENCE) is True


def test_a_pool_is_not_pickled(pool):
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pickle.dumps(pool)


def call_in_child(pool):
    try:
        pool.apply(square, (1,))
    except ValueError as exc:
        os._exit(0 if "not running in this process" in str(exc) else 1)
    os._exit(2)


def test_a_forked_child_is_told_that_the_pool_is_not_its_own():
    with make_pool("fork", 1) as pool:
        child = kinfolk.get_context("fork").Process(target=call_in_child, args=(pool,))
        child.start()
        child.join(PATIENCE)
        assert child.exitcode == 0
        child.close()
        assert pool.apply(square, (2,)) == 4
    pool.join()


class Counted:
    pass


def return_none(_):
    return None


def test_tasks_and_results_are_let_go(kind):
    with make_pool(kind, 2) as pool:
        given = [Counted() for _ in range(8)]
        refs = [weakref.ref(item) for item in given]
        results = pool.map(return_none if kind == "threads" else add_nothing, given, 1)
        refs += [weakref.ref(item) for item in results if item is not None]
        del given, results
        assert pool.apply(square, (1,)) == 1
        give_up = time.monotonic() + PATIENCE
        while any(ref() for ref in refs) and time.monotonic() < give_up:
            gc.collect()
        assert not any(ref() for ref in refs)
    pool.join()


def add_nothing(item):
    return item


# Names that programs reach for


def test_istarmap_as_people_write_it(kind):
    """The recipe that adds an istarmap to Pool from its private parts."""

    def istarmap(self, func, iterable, chunksize=1):
        self._check_running()
        task_batches = pools.Pool._get_tasks(func, iterable, chunksize)
        result = pools.IMapIterator(self)
        self._taskqueue.put(
            (
                self._guarded_task_generation(result._job, pools.starmapstar, task_batches),
                result._set_length,
            )
        )
        return (item for chunk in result for item in chunk)

    with make_pool(kind, 2) as pool:
        assert list(istarmap(pool, add, [(x, 1) for x in range(7)], 2)) == list(range(1, 8))
    pool.join()


def test_private_names(pool):
    assert len(pool._pool) == pool._processes == 2
    assert pool._state == pools.RUN and pool._cache == {} and pool._taskqueue.empty()
    assert pool._worker_handler.is_alive()
    assert repr(pool).endswith("state=RUN pool_size=2>")
    assert pools.AsyncResult is pools.ApplyResult
    result = pool.map_async(square, range(10), 2)
    result.wait(PATIENCE)
    assert result._number_left == 0


@pytest.mark.parametrize("kind", ["fork", "threads"])
def test_quick_tasks_behind_a_slow_one_go_to_others(kind):
    gate = kinfolk.get_context("fork").Event()
    with make_pool(kind, 2) as pool:
        pool.map(abs, range(5000), chunksize=1)  # by now a worker is given many at a time
        slow = pool.apply_async(gate.wait)
        quick = [pool.apply_async(abs, (-n,)) for n in range(500)]
        assert [result.get(60) for result in quick] == list(range(500))
        assert not slow.ready()
        gate.set()
        assert slow.get(60) is True


def test_a_stand_in_needs_no_import(tmp_path):
    """The worker of a program that names none has not imported the module they are shown in."""
    (tmp_path / "program.py").write_text(
        "import kinfolk\n"
        "def make(_): return (i for i in ())\n"
        "if __name__ == '__main__':\n"
        "    with kinfolk.get_context('spawn').Pool(1) as pool:\n"
        "        try: pool.apply(make, (1,))\n"
        "        except Exception as exc: print(type(exc).__name__, 'cannot pickle' in str(exc))\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("MaybeEncodingError True\n", "")
