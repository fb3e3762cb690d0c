"""put_many() and get_many(), and the bound in bytes."""

import os
import queue as stdlib
import signal
import threading

import pytest
from kin_children import forked

import kinfolk
from kinfolk import _kin, queues
from kinfolk.queues import ShutDown


@pytest.fixture
def queue():
    return _kin.Queue()


MIXED = [None, 1, "two", b"3" * 5000, {"four": 4}, bytes(100_000), (6, [7])]


def test_all_at_once(queue):
    assert queue.put_many(MIXED) == len(MIXED)
    assert queue.qsize() == len(MIXED)
    assert queue.get_many() == MIXED
    assert queue.empty()


def test_many_batches(queue):
    items = [*range(1000), *("x" * (i % 9000) for i in range(300)), *MIXED * 50]
    assert queue.put_many(iter(items)) == len(items)
    assert [queue.get() for _ in range(10)] == items[:10]
    assert queue.get_many(7) == items[10:17]
    assert queue.get_many() == items[17:]


def test_none_at_all(queue):
    assert queue.put_many([]) == 0
    assert queue.empty()
    for call in (
        lambda: queue.get_many(block=False),
        lambda: queue.get_many(timeout=0.01),
        lambda: queue.get_many(5, True, -1),
    ):
        with pytest.raises(stdlib.Empty):
            call()
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            queue.get_many(wrong)


def test_get_many_waits_for_the_first_only(queue):
    started = _kin.Event()

    def child():
        started.wait()
        queue.put(1)

    process = forked(child)
    started.set()
    assert queue.get_many(10) == [1]
    assert process.exitcode() == 0


def test_what_does_not_fit_is_counted():
    queue = _kin.Queue(5)
    for call in (
        lambda: queue.put_many(range(9), block=False),
        lambda: queue.put_many(range(9), timeout=0.01),
        lambda: queue.put_many([bytes(50_000)] * 9, timeout=0.01),
    ):
        with pytest.raises(stdlib.Full) as caught:
            call()
        assert caught.value.put == 5
        assert len(queue.get_many()) == 5
    with pytest.raises(stdlib.Full) as caught:
        queue.put_many(range(5)) and queue.put_many([1], False)
    assert caught.value.put == 0


def test_a_full_queue_takes_the_rest_when_there_is_room():
    queue = _kin.Queue(3)
    process = forked(lambda: queue.put_many(range(500)) == 500 or os._exit(7))
    got = []
    while len(got) < 500:
        got += queue.get_many()
    assert got == list(range(500))
    assert process.exitcode() == 0


class Unsendable:
    def __reduce__(self):
        raise ZeroDivisionError("not me")


def test_what_cannot_be_pickled_raises_after_those_before_it(queue):
    with pytest.raises(ZeroDivisionError) as caught:
        queue.put_many([1, bytes(50_000), 3, Unsendable(), 5])
    assert caught.value.put == 3
    if hasattr(caught.value, "__notes__"):
        assert "3 put before this" in caught.value.__notes__[-1]
    assert [type(item) for item in queue.get_many()] == [int, bytes, int]


def test_an_iterable_that_raises(queue):
    def items():
        yield 1
        yield 2
        raise KeyError("no more")

    with pytest.raises(KeyError) as caught:
        queue.put_many(items())
    assert caught.value.put == 2
    assert queue.get_many() == [1, 2]


def test_the_earlier_error_comes_first():
    """What is before the one that can't be pickled does not fit either."""
    queue = _kin.Queue(1)
    with pytest.raises(stdlib.Full) as caught:
        queue.put_many([1, 2, Unsendable()], timeout=0.01)
    assert caught.value.put == 1
    assert isinstance(caught.value.__context__, ZeroDivisionError)


class Unloadable:
    def __reduce__(self):
        return divmod, (1, 0)


def test_what_cannot_be_loaded_raises_in_its_turn(queue):
    queue.put_many([1, 2, Unloadable(), 4, Unloadable(), Unloadable(), 7])
    assert queue.get_many() == [1, 2]
    assert not queue.empty() and queue.qsize() == 5
    with pytest.raises(ZeroDivisionError):
        queue.get()
    assert queue.get_many() == [4]
    with pytest.raises(ZeroDivisionError):
        queue.get_many()
    with pytest.raises(ZeroDivisionError):
        queue.get_nowait()
    assert queue.get_many() == [7]
    assert queue.empty()


def test_a_forked_child_owes_nothing(queue):
    queue.put_many([1, Unloadable(), 3])
    assert queue.get_many() == [1]

    def child():
        assert queue.get_many() == [3]

    assert forked(child).exitcode() == 0
    with pytest.raises(ZeroDivisionError):
        queue.get()
    assert queue.empty()


class Interrupted:
    """Ctrl-C, while it is loaded."""

    def __reduce__(self):
        return interrupt, ()


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupt_while_loading_loses_nothing_else(queue):
    queue.put_many([1, [2], Interrupted(), 4])
    with pytest.raises(KeyboardInterrupt):
        queue.get_many()
    assert queue.get() == 1
    assert queue.get_many() == [[2]]
    assert queue.get_many() == [4]


class Rang(BaseException):
    pass


def ring(signum, frame):
    raise Rang


def test_an_interrupt_of_put_many_is_counted():
    queue = _kin.Queue(10)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Rang) as caught:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            queue.put_many(iter(range(1000)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught.value.put == 10
    assert queue.get_many() == list(range(10))


def test_signals_lose_nothing():
    queue, count = _kin.Queue(16), 3000
    rung = []
    before = signal.signal(signal.SIGALRM, lambda signum, frame: rung.append(signum))
    process = forked(
        lambda: [queue.put_many([(i, i + 1), b"x" * (i % 9000)]) for i in range(count)]
    )
    got = []
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while len(got) < 2 * count:
            got += queue.get_many(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert got == [item for i in range(count) for item in ((i, i + 1), b"x" * (i % 9000))]
    assert process.exitcode() == 0 and rung


def test_many_producers_and_consumers():
    queue, results, each = _kin.Queue(50), _kin.Queue(), 3000

    def consume():
        got = []
        try:
            while True:
                got += queue.get_many(20)
        except ShutDown:
            results.put(got)

    consumers = [forked(consume) for _ in range(3)]
    producers = [forked(lambda k: queue.put_many((k, i) for i in range(each)), k) for k in range(3)]
    assert [process.exitcode() for process in producers] == [0, 0, 0]
    queue.shutdown()
    assert [process.exitcode() for process in consumers] == [0, 0, 0]
    lists = [results.get() for _ in range(3)]
    for got in lists:
        for k in range(3):
            mine = [i for owner, i in got if owner == k]
            assert mine == sorted(mine), "one producer's objects stay in order"
    assert sorted(sum(lists, [])) == [(k, i) for k in range(3) for i in range(each)]


def test_a_reference_travels_in_a_batch(queue):
    inner = _kin.Queue()
    inner.put("inside")
    queue.put_many([1, inner, 3])
    del inner
    first, other, third = queue.get_many()
    assert (first, other.get(), third) == (1, "inside", 3)


# Subclasses that override put() and get()


class Doubling(queues.Queue):
    def put(self, obj, block=True, timeout=None):
        super().put(2 * obj, block, timeout)

    def get(self, block=True, timeout=None):
        return -super().get(block, timeout)


def test_overridden_methods_are_used():
    queue = Doubling(2)
    with pytest.raises(stdlib.Full) as caught:
        queue.put_many([3, 4, 5], timeout=0.01)
    assert caught.value.put == 2
    assert queue.get_many() == [-6]
    queue.shutdown()
    assert list(queue) == [-8]


class Telling(queues.Queue):
    told = 0

    def _on_queue_feeder_error(self, e, obj):
        self.told += 1


def test_a_subclass_that_wants_to_be_told():
    queue = Telling()
    assert queue.put_many([1, Unsendable(), 3]) == 3
    assert (queue.told, queue.get_many()) == (1, [1, 3])


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_closed(kind):
    queue = getattr(kinfolk, kind)()
    queue.close()
    for call in (lambda: queue.put_many([1]), queue.get_many, lambda: next(queue)):
        with pytest.raises((ValueError, OSError), match="is closed"):
            call()


# The bound in bytes


@pytest.fixture
def bounded():
    return kinfolk.Queue(max_bytes=10_000)


def test_bytes_are_counted(bounded):
    assert (bounded.max_bytes, bounded.maxsize, bounded.qsize_bytes()) == (10_000, 0, 0)
    bounded.put(b"x" * 3000)
    one = bounded.qsize_bytes()
    assert 3000 < one < 3100
    bounded.put(b"x" * 3000)
    bounded.put(b"x" * 3000)
    assert bounded.qsize_bytes() == 3 * one
    assert not bounded.full()
    with pytest.raises(stdlib.Full):
        bounded.put(b"x" * 3000, timeout=0.01)
    bounded.put(b"small")
    with pytest.raises(stdlib.Full):
        bounded.put_nowait(bytes(100_000))
    assert bounded.get() == b"x" * 3000
    bounded.put(b"x" * 3000, timeout=1)
    bounded.get_many()
    assert bounded.qsize_bytes() == 0


def test_a_larger_one_is_let_into_the_empty_queue(bounded):
    bounded.put(1)
    with pytest.raises(stdlib.Full):
        bounded.put(bytes(1_000_000), timeout=0.01)
    assert bounded.get() == 1
    bounded.put(bytes(1_000_000))
    assert bounded.full() and bounded.qsize_bytes() > 1_000_000
    with pytest.raises(stdlib.Full):
        bounded.put_nowait(1)
    assert len(bounded.get()) == 1_000_000
    bounded.put_nowait(1)


def test_both_bounds():
    queue = kinfolk.JoinableQueue(2, max_bytes=10_000)
    queue.put(1)
    queue.put(2)
    with pytest.raises(stdlib.Full):
        queue.put_nowait(3)


@pytest.mark.parametrize("none", [None, 0, -1])
def test_no_bound(none):
    queue = kinfolk.Queue(max_bytes=none)
    queue.put_many([bytes(1_000_000)] * 3, block=False)
    assert queue.max_bytes == 0 and not queue.full()


def test_large_and_small_ones_wait_together():
    """Each pop lets those go on for whom there is room now, whatever the others want."""
    queue, each = _kin.Queue(max_bytes=20_000), 200
    sizes = [10, 3000, 15_000, 50_000]
    threads = [
        threading.Thread(target=lambda n=n: [queue.put(b"x" * n) for _ in range(each)])
        for n in sizes
    ]
    process = forked(lambda: [queue.put(b"y" * 7000) for _ in range(each)])
    for thread in threads:
        thread.start()
    got = [queue.get() for _ in range(each * 5)]
    for thread in threads:
        thread.join()
    assert process.exitcode() == 0
    assert sorted(map(len, got)) == sorted([*sizes, 7000] * each)


def test_what_is_taken_back_is_not_loaded():
    """For pools: all that nobody has got yet, large messages and messages that do not load too."""
    queue = kinfolk.Queue()
    queue.put_many([1, "two", b"3" * 100_000, Grenade(), (5,)])
    assert queue.get() == 1
    assert queue._take_back() == 4
    assert queue.empty()
    assert queue._take_back() == 0
    queue.put("later")
    assert queue.get() == "later"


class Grenade:
    def __reduce__(self):
        return int, ("not a number",)
