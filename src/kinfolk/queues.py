"""Queues: kinfolk's own (ext/queue.c, docs on the queue) with the standard library's names.

A queue lives in the family's arena.  put() pickles in the caller and puts the bytes there itself:
there is no thread that feeds a pipe, so nothing is pending when a process ends, and what cannot be
pickled is an error of the put() that it was given to.  Names that only make sense with such a thread
are kept and have nothing to do.

One thing programs do rely on: a subclass that overrides `_on_queue_feeder_error(error, obj)` hears of
what cannot be pickled by that, and not by an exception.  Such a subclass gets another put().

Closing is this process's business alone: others, and the queue, do not notice.
"""

from . import _kin
from ._queue_async import AsyncMethods
from ._queue_ends import Reader, Writer

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# What tells a feeder to end: others' subclasses that have one look for it here.
_sentinel = object()


def __getattr__(name):
    if name in ("Empty", "Full"):  # the standard library's; many look for them here
        import queue

        return getattr(queue, name)
    if name == "ShutDown":
        from ._shutdown import ShutDown

        return ShutDown
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Queue(AsyncMethods, _kin.Queue):
    """A queue for at most `maxsize` objects, without bound if that is not above 0.

    `max_bytes` is a second bound: of what is in the queue, pickled.
    """

    #: Set by concurrent.futures; there is no pipe that could break.
    _ignore_epipe = False

    def __init__(self, maxsize=0, *, max_bytes=None, ctx=None):
        super().__init__(maxsize, max_bytes=max_bytes)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # The methods of the engine do not call each other by name: where one is overridden, those
        # that are defined by it must.
        if (
            cls._on_queue_feeder_error is not Queue._on_queue_feeder_error
            and cls.put is _kin.Queue.put
        ):
            cls.put = _put_or_tell
        if cls.put is not _kin.Queue.put:
            _define(cls, put_nowait=_put_nowait, put_many=_put_many)
        if cls.get is not _kin.Queue.get:
            _define(cls, get_nowait=_get_nowait, get_many=_get_many, __next__=_next)

    def __getstate__(self):
        """What travels besides the queue: nothing, not even what a subclass has added.

        As in the standard library: a subclass may extend this, and __setstate__.
        """
        return ()

    def __setstate__(self, state):
        pass

    def empty(self):
        """Return whether there is nothing to get just now.  OSError if closed, and ever used."""
        # "Used": of what was put, not all was declared to be done.
        if self._closed and not _kin.Queue.join(self, 0):
            raise OSError("handle is closed")
        return super().empty()

    def close(self):
        """Give the queue up in this process: put() and get() raise ValueError from now on."""
        _kin.queue_close_fileno(self)
        super().close()

    def join_thread(self):
        """Do nothing: what was put is in the queue.  To be called after close()."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self):
        """Do nothing: the end of a process waits for no queue."""

    @staticmethod
    def _on_queue_feeder_error(e, obj):
        """For subclasses: `obj` was put, and could not be pickled because of `e`."""
        import traceback

        traceback.print_exception(type(e), e, e.__traceback__)

    def _terminate_broken(self):
        self.close()
        self.join_thread()

    @property
    def _maxsize(self):
        return self.maxsize or _kin.SEM_VALUE_MAX

    _reader = property(Reader)
    _writer = property(Writer)


def _define(cls, **methods):
    """Give the class these methods, unless it has its own."""
    for name, method in methods.items():
        if getattr(cls, name) is getattr(_kin.Queue, name):
            setattr(cls, name, method)


def _put_or_tell(self, obj, block=True, timeout=None):
    """Put as Queue.put does, but report what cannot be pickled to _on_queue_feeder_error."""
    from queue import Full

    try:
        _kin.Queue.put(self, obj, block, timeout)
    except (Full, MemoryError):
        raise
    except Exception as error:
        if self._closed or self.is_shutdown:
            raise
        self._on_queue_feeder_error(error, obj)


def _put_nowait(self, obj):
    """put(obj, False)"""
    return self.put(obj, False)


def _get_nowait(self):
    """get(False)"""
    return self.get(False)


def _put_many(self, objs, block=True, timeout=None):
    """put() for each of the objects; return how many."""
    from time import monotonic

    deadline = None if timeout is None else monotonic() + timeout
    put = 0
    try:
        for obj in objs:
            self.put(obj, block, None if deadline is None else max(0, deadline - monotonic()))
            put += 1
    except BaseException as error:
        error.put = put
        raise
    return put


def _get_many(self, max_items=None, block=True, timeout=None):
    """[get()]: of several, those before one that raises would be lost."""
    return [self.get(block, timeout)]


def _next(self):
    from ._shutdown import ShutDown

    try:
        return self.get()
    except ShutDown:
        raise StopIteration from None


class JoinableQueue(Queue):
    """A queue that can be waited for: join() ends when task_done() was called for every object."""


class SimpleQueue(AsyncMethods, _kin.Queue):
    """A queue without a bound: put(), get(), empty()."""

    def __init__(self, *, ctx=None):
        super().__init__()

    def __getstate__(self):
        return ()

    def __setstate__(self, state):
        pass

    def empty(self):
        """Return whether there is nothing to get just now.  OSError if closed."""
        if self._closed:
            _refuse()
        return super().empty()

    def close(self):
        """Give the queue up in this process: from now on its methods raise OSError."""
        _kin.queue_close_fileno(self)
        super().close()
        # Methods of the instance go before the engine's, which would raise ValueError.
        self.put = self.get = _refuse

    def _poll(self):
        return not self.empty()

    _reader = property(Reader)
    _writer = property(Writer)


def _refuse(*args, **kwargs):
    raise OSError("handle is closed")
