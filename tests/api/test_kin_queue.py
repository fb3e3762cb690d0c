"""Queue of kinfolk._kin: order, bounds, waiting, closing, what becomes of errors."""

import os
import pickle
import queue as queue_module
import signal
import threading

import pytest
from kin_children import forked, run_forked

import kinfolk
from kinfolk import _kin
from kinfolk.queues import ShutDown


@pytest.fixture
def queue():
    return _kin.Queue()


def test_first_in_first_out(queue):
    for i in range(10_000):
        queue.put(i)
    assert queue.qsize() == 10_000
    assert [queue.get() for _ in range(10_000)] == list(range(10_000))
    assert queue.empty()


def test_parameters(queue):
    queue.put(1)
    queue.put(2, False)
    queue.put(3, True, None)
    queue.put(4, block=False)
    queue.put(5, timeout=1)
    queue.put(obj=6, block=True, timeout=1)
    queue.put_nowait(obj=7)
    assert queue.get() == 1
    assert queue.get(False) == 2
    assert queue.get(True, None) == 3
    assert queue.get(block=False) == 4
    assert queue.get(timeout=1) == 5
    assert queue.get(True, timeout=1) == 6
    assert queue.get_nowait() == 7


@pytest.mark.parametrize(
    "call",
    [
        lambda q: q.put(),
        lambda q: q.put(1, True, 1, 2),
        lambda q: q.put(1, obj=1),
        lambda q: q.put(1, wait=True),
        lambda q: q.put(1, True, "1"),
        lambda q: q.get(True, 1, 2),
        lambda q: q.get(blocking=True),
        lambda q: q.put_nowait(),
        lambda q: q.get_nowait(1),
        lambda q: _kin.Queue("2"),
        lambda q: _kin.Queue(1, 2),
        lambda q: _kin.Queue(max_bytes="2"),
        lambda q: q.put_many(),
        lambda q: q.put_many(1),
        lambda q: q.put_many([1], True, "1"),
        lambda q: q.get_many("1"),
        lambda q: q.get_many(1, True, "1"),
        lambda q: q.shutdown(True, True),
    ],
)
def test_wrong_arguments(queue, call):
    with pytest.raises(TypeError):
        call(queue)
    assert queue.empty()


def test_empty(queue):
    assert queue.empty()
    for call in (
        queue.get_nowait,
        lambda: queue.get(False),
        lambda: queue.get(True, 0.01),
        lambda: queue.get(True, -1),
        lambda: queue.get(timeout=0),
    ):
        with pytest.raises(queue_module.Empty):
            call()


def test_a_bounded_queue():
    queue = _kin.Queue(2)
    assert queue.maxsize == 2
    queue.put(1)
    assert not queue.full()
    queue.put(2)
    assert queue.full()
    for call in (
        lambda: queue.put_nowait(3),
        lambda: queue.put(3, False),
        lambda: queue.put(3, True, 0.01),
        lambda: queue.put(3, timeout=-1),
        lambda: queue.put(bytes(100_000), timeout=0.01),
    ):
        with pytest.raises(queue_module.Full):
            call()
    assert queue.get() == 1
    queue.put_nowait(3)
    assert [queue.get(), queue.get()] == [2, 3]


@pytest.mark.parametrize("maxsize", [0, -1])
def test_no_bound(maxsize):
    queue = _kin.Queue(maxsize)
    assert queue.maxsize == 0
    for _ in range(100):
        queue.put_nowait(None)
    assert not queue.full()


def test_a_full_queue_does_not_pickle_first():
    queue = _kin.Queue(1)
    queue.put(1)
    with pytest.raises(queue_module.Full):
        queue.put_nowait(lambda: None)


def test_waiting_threads_let_each_other_run():
    """Whoever waits does so without the GIL, or this would never end."""
    there, back = _kin.Queue(1), _kin.Queue(1)

    def echo():
        while (item := there.get()) is not None:
            back.put(item)

    thread = threading.Thread(target=echo)
    thread.start()
    for i in range(500):
        there.put(i)
        assert back.get() == i
    there.put(None)
    thread.join()


def test_producers_and_consumers_in_several_processes(queue):
    results, per_producer = _kin.Queue(), 500

    def produce(first):
        for i in range(per_producer):
            queue.put((first, i))

    def consume():
        while (item := queue.get()) is not None:
            results.put(item)

    producers = [forked(produce, first) for first in range(3)]
    consumers = [forked(consume) for _ in range(2)]
    assert [process.exitcode() for process in producers] == [0, 0, 0]
    for _ in consumers:
        queue.put(None)
    assert [process.exitcode() for process in consumers] == [0, 0]
    received = sorted(results.get_nowait() for _ in range(3 * per_producer))
    assert received == [(first, i) for first in range(3) for i in range(per_producer)]
    assert results.empty()


def test_what_a_child_put_survives_it(queue):
    run_forked(lambda: [queue.put(bytes(i * 1000)) for i in range(100)])
    assert [len(queue.get_nowait()) for _ in range(100)] == [i * 1000 for i in range(100)]


def test_signals_lose_nothing():
    """A handler that returns, at any moment of a get(), costs no message and no order."""
    queue, count = _kin.Queue(8), 2000
    rung = []
    before = signal.signal(signal.SIGALRM, lambda signum, frame: rung.append(signum))
    process = forked(lambda: [queue.put((i, bytes(i % 9000))) for i in range(count)])
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        received = [queue.get()[0] for _ in range(count)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert received == list(range(count))
    assert process.exitcode() == 0
    assert rung


@pytest.mark.parametrize("full", [False, True], ids=["get", "put"])
def test_a_handler_that_raises_ends_the_wait(full):
    class Rang(Exception):
        pass

    def ring(signum, frame):
        raise Rang

    queue = _kin.Queue(1)
    if full:
        queue.put("first")
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Rang):
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            queue.put(bytes(100_000)) if full else queue.get()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert queue.qsize() == full
    assert not full or queue.get() == "first"


class Unloadable:
    def __reduce__(self):
        return int, ("no number",)


def test_a_message_that_cannot_be_loaded_is_gone(queue):
    queue.put(Unloadable())
    queue.put("next")
    with pytest.raises(ValueError, match="no number"):
        queue.get()
    assert queue.get() == "next"


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("not me")


def test_an_object_that_cannot_be_pickled_raises_at_the_caller(queue):
    with pytest.raises(RuntimeError, match="not me"):
        queue.put([1, {"two": Unpicklable()}])
    assert queue.empty()
    queue.put("next")
    assert queue.get() == "next"


def test_close_is_for_this_process_only(queue):
    queue.put(1)
    queue.close()
    assert queue._closed
    with pytest.raises(ValueError, match="Queue <.*> is closed"):
        queue.put(2)
    with pytest.raises(ValueError, match="is closed"):
        queue.get()

    def child():
        assert not queue._closed
        assert queue.get() == 1

    run_forked(child)


def test_shutdown_is_for_all(queue):
    queue.put(1)
    run_forked(queue.shutdown)
    assert queue.is_shutdown
    for call in (
        lambda: queue.put(2),
        lambda: queue.put_nowait(2),
        lambda: queue.put(bytes(100_000)),
        lambda: queue.put_many([2]),
    ):
        with pytest.raises(ShutDown, match="is shut down"):
            call()
    assert queue.get() == 1
    for call in (queue.get, queue.get_nowait, queue.get_many):
        with pytest.raises(ShutDown, match="is shut down"):
            call()
    queue.shutdown()


def test_shutdown_is_the_standard_librarys_exception_where_it_has_one():
    assert issubclass(ShutDown, EOFError)
    assert issubclass(ShutDown, getattr(queue_module, "ShutDown", Exception))
    assert kinfolk.ShutDown is ShutDown
    assert type(pickle.loads(pickle.dumps(ShutDown("x")))) is ShutDown


@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("full", [False, True], ids=["get", "put"])
def test_shutdown_lets_those_go_who_wait(full, immediate):
    queue, ready = _kin.Queue(1), _kin.Event()
    if full:
        queue.put(1)

    def child():
        ready.set()
        with pytest.raises(ShutDown):
            queue.put(2) if full else queue.get()

    processes = [forked(child) for _ in range(3)]
    ready.wait()
    queue.shutdown(immediate)
    assert [process.exitcode() for process in processes] == [0, 0, 0]


def test_an_immediate_shutdown_drops_what_is_there():
    queue = _kin.Queue()
    before = _kin.stats()["blocks"]
    inner = _kin.Queue()
    queue.put_many([1, bytes(100_000), inner, *range(10_000)])
    del inner
    assert (queue.get(), len(queue.get())) == (1, 100_000)
    queue.shutdown(immediate=True)
    assert queue.empty() and queue.qsize() == queue.qsize_bytes() == 0
    with pytest.raises(ShutDown):
        queue.get(timeout=1)
    assert queue.join(0) is False, "two were taken"
    queue.task_done()
    queue.task_done()
    assert queue.join() is True
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    assert _kin.stats()["blocks"] <= before + 1


def test_iteration_ends_with_the_queue(queue):
    results = _kin.Queue()
    children = [forked(lambda: results.put(sum(queue))) for _ in range(3)]
    queue.put_many(range(1000))
    queue.shutdown()
    assert [child.exitcode() for child in children] == [0, 0, 0]
    assert sum(results.get() for _ in range(3)) == sum(range(1000))
    assert list(queue) == []


def test_join_waits_for_all_that_was_put(queue):
    assert queue.join() is True
    for i in range(3):
        queue.put(i)
    assert queue.join(0) is False
    assert queue.join(timeout=0.01) is False

    def child():
        for _ in range(3):
            queue.get()
            queue.task_done()

    process = forked(child)
    assert queue.join() is True
    assert process.exitcode() == 0
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()


def test_a_killed_consumer_leaves_the_queue_whole(queue):
    """It waits in get() when it is killed; the others go on."""
    started = _kin.Queue()

    def child():
        started.put(os.getpid())
        queue.get()

    process = forked(child)
    started.get()
    os.kill(process.pid, signal.SIGKILL)
    assert process.exitcode() == -signal.SIGKILL
    queue.put("still there")
    assert queue.get(timeout=60) == "still there"


def test_generic_alias():
    assert _kin.Queue[int].__origin__ is _kin.Queue
