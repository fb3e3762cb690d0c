"""The face of the queues: what multiprocessing promises beside put() and get()."""

import pickle
import queue as stdlib
import threading

import pytest

import kinfolk
from kinfolk import queues

KINDS = ("Queue", "JoinableQueue", "SimpleQueue")


@pytest.fixture(params=KINDS)
def queue(request):
    return getattr(kinfolk, request.param)()


class Unsendable:
    def __reduce__(self):
        raise ZeroDivisionError("not me")


# Errors of put()


def test_what_cannot_be_pickled_raises_where_it_is_put(queue):
    with pytest.raises(ZeroDivisionError):
        queue.put(Unsendable())
    queue.put("next")
    assert queue.get() == "next"


class Telling(queues.Queue):
    """As concurrent.futures does: it wants to be told, not to see an exception."""

    def __init__(self, *args, lock, **kwargs):
        super().__init__(*args, **kwargs)
        self.told = []
        self.lock = lock

    def _on_queue_feeder_error(self, e, obj):
        self.told.append((type(e), type(obj)))


def test_a_subclass_that_wants_to_be_told():
    queue = Telling(1, ctx=kinfolk.get_context(), lock=threading.Lock())
    queue.put(Unsendable())
    queue.put_nowait(Unsendable())
    assert queue.told == [(ZeroDivisionError, Unsendable)] * 2
    queue.put("takes the only place")
    with pytest.raises(stdlib.Full):
        queue.put_nowait("one too many")
    assert queue.qsize() == 1
    queue.close()
    with pytest.raises(ValueError, match="is closed"):
        queue.put(1)


def test_what_a_subclass_adds_stays_behind():
    """A lock of threads among the attributes does not keep the queue from being sent."""
    queue = Telling(lock=threading.Lock())
    queue.put("here")
    child = kinfolk.get_context("spawn").Process(target=get_and_check, args=(queue,))
    child.start()
    child.join()
    assert child.exitcode == 0


def get_and_check(queue):
    assert type(queue) is Telling and not hasattr(queue, "lock")
    assert queue.get() == "here"


class WithState(queues.JoinableQueue):
    """The way in which subclasses have attributes travel."""

    def __getstate__(self):
        return {"parent": super().__getstate__(), "name": self.name}

    def __setstate__(self, state):
        super().__setstate__(state["parent"])
        self.name = state["name"]


def test_a_subclass_says_what_travels():
    queue = WithState()
    queue.name = "Ida"
    copy = pickle.loads(pickle.dumps(queue))
    copy.put(1)
    assert (queue.get(), copy.name) == (1, "Ida")


class Doubling(queues.Queue):
    def put(self, obj, block=True, timeout=None):
        super().put(2 * obj, block, timeout)

    def get(self, block=True, timeout=None):
        return -super().get(block, timeout)


def test_overridden_methods_are_used_by_their_short_forms():
    queue = Doubling()
    queue.put_nowait(3)
    queue.put(4)
    assert (queue.get_nowait(), queue.get()) == (-6, -8)


# Closing


def test_closed(queue):
    twin = pickle.loads(pickle.dumps(queue))
    queue.put("left behind")
    queue.close()
    queue.close()
    expected = OSError if type(queue) is queues.SimpleQueue else ValueError
    with pytest.raises(expected, match="is closed"):
        queue.put(1)
    with pytest.raises(expected, match="is closed"):
        queue.get()
    with pytest.raises(OSError, match="is closed"):
        queue.empty()
    assert queue._reader.closed and queue._writer.closed
    assert not twin._reader.closed
    assert twin.get() == "left behind", "closing is one handle's business"


def test_closing_one_end_closes_nothing_else(queue):
    queue._reader.close()
    assert queue._reader.closed and not queue._writer.closed
    queue.put(1)
    queue._writer.close()
    with pytest.raises((OSError, ValueError), match="is closed"):
        queue.put(2)


def test_closing_what_was_never_used():
    for queue in (kinfolk.Queue(), kinfolk.JoinableQueue()):
        with pytest.raises(AssertionError, match="not closed"):
            queue.join_thread()
        queue.cancel_join_thread()
        queue.close()
        queue.join_thread()
        assert queue.empty()


def test_exceptions_are_the_standard_librarys():
    assert (queues.Empty, queues.Full) == (stdlib.Empty, stdlib.Full)
    with pytest.raises(stdlib.Empty):
        kinfolk.Queue().get_nowait()


def test_subscripts(queue):
    assert type(queue)[int].__origin__ is type(queue)
