"""What a Pool gives back: the results that callers hold while workers work.

`ApplyResult` stands for one task, `MapResult` for the chunks of one map, `IMapIterator` and
`IMapUnorderedIterator` for a stream of them.  Each has a number, its job, under which it waits in
the pool's table of unfinished jobs (`pool._cache`).  The engine knows results by that number alone,
and tells them

    _set(i, (success, value))   task i of the job has an outcome
    _set_length(n)              the job turned out to have n tasks
    _fail(exc, tell=True)       there will be no further outcome; `tell`: call the error callback

The invariant: whoever takes a job out of the table, and nobody else, finishes its result.  Outcomes
come from the collecting thread, from the feeding thread and, when a pool is terminated, from its
keeper; taking out is one atomic step of a dict, so that a result is finished once, and outcomes
that come too late fall on the floor.

Waiting is done on threading primitives, in the process that owns the pool.
"""

import collections
import itertools
import threading
import types

from .context import TimeoutError

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "report",
]

job_counter = itertools.count()


def report(exc):
    """Show an exception that nobody can be handed: one of a callback, in a thread of the pool."""
    thread = threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs((type(exc), exc, exc.__traceback__, thread)))


class ApplyResult:
    """The result of one task, to come.  Made by `Pool.apply_async`."""

    def __init__(self, pool, callback, error_callback):
        self._pool = pool
        self._event = threading.Event()
        self._job = next(job_counter)
        self._cache = pool._cache
        self._callback = callback
        self._error_callback = error_callback
        self._cache[self._job] = self

    def ready(self):
        """Whether the call has ended, well or badly."""
        return self._event.is_set()

    def successful(self):
        """Whether the call ended without an exception.  ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout=None):
        """Wait until the result is there, or for `timeout` seconds."""
        self._event.wait(timeout)

    def get(self, timeout=None):
        """The value, once it is there; what the call raised is raised here.

        TimeoutError if it is not there after `timeout` seconds.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError
        if self._success:
            return self._value
        try:
            raise self._value
        finally:
            del self  # the exception's traceback holds this frame: no cycle

    def _set(self, i, outcome):
        success, value = outcome
        self._finish(success, value)

    def _set_length(self, length):
        """One task it is: nothing to learn."""

    def _fail(self, exc, tell=True):
        self._finish(False, exc, tell)

    def _finish(self, success, value, tell=True):
        if self._cache.pop(self._job, None) is None:
            return
        self._success = success
        self._value = value
        callback = self._callback if success else self._error_callback
        try:
            if tell and callback:
                callback(value)
        except BaseException as exc:
            report(exc)
        finally:
            self._event.set()
            self._pool = self._callback = self._error_callback = None

    __class_getitem__ = classmethod(types.GenericAlias)


AsyncResult = ApplyResult


class MapResult(ApplyResult):
    """The list of a map's results, to come.

    It is ready when every chunk is done; the first exception, if there is one, is its outcome.
    """

    def __init__(self, pool, chunksize, length, callback, error_callback):
        super().__init__(pool, callback, error_callback)
        self._success = True
        self._failure = None
        self._lock = threading.Lock()
        self._value = self._slots = [None] * length
        self._chunksize = chunksize
        self._chunks = self._number_left = -(-length // chunksize) if chunksize > 0 else 0
        if not self._number_left:
            # An empty map is done before it begins, and calls nobody back.
            del self._cache[self._job]
            self._event.set()

    def _set(self, i, outcome):
        success, value = outcome
        with self._lock:
            if success:
                self._slots[i * self._chunksize : (i + 1) * self._chunksize] = value
            elif self._failure is None:
                self._failure = value
            self._number_left -= 1
        self._finish_if_complete()

    def _set_length(self, length):
        """Correct what `len()` of the iterable promised: it may have raised or ended early."""
        with self._lock:
            missing = self._chunks - length
            if not missing:
                return
            self._chunks = length
            self._number_left -= missing
            del self._slots[length * self._chunksize :]
        self._finish_if_complete()

    def _finish_if_complete(self):
        if self._number_left > 0:
            return
        if self._failure is None:
            self._finish(True, self._slots)
        else:
            self._finish(False, self._failure)


class IMapIterator:
    """The results of `Pool.imap`, in the order of the tasks, each as soon as its turn has come."""

    def __init__(self, pool):
        self._pool = pool
        self._cond = threading.Condition(threading.Lock())
        self._job = next(job_counter)
        self._cache = pool._cache
        self._items = collections.deque()
        self._index = 0
        self._length = None
        self._unsorted = {}
        self._cache[self._job] = self

    def __iter__(self):
        return self

    def next(self, timeout=None):
        """The next result; what its task raised is raised here, and one may go on asking.

        TimeoutError if it is not there after `timeout` seconds, StopIteration after the last one.
        """
        with self._cond:
            if not self._cond.wait_for(self._has_news, timeout):
                raise TimeoutError
            if not self._items:
                raise StopIteration
            success, value = self._items.popleft()
        if success:
            return value
        try:
            raise value
        finally:
            del value

    __next__ = next

    def _has_news(self):
        return self._items or self._is_complete()

    def _is_complete(self):
        return self._index == self._length

    def _set(self, i, outcome):
        with self._cond:
            self._unsorted[i] = outcome
            while self._index in self._unsorted:
                self._append(self._unsorted.pop(self._index))

    def _append(self, outcome):
        if self._is_complete():
            return
        self._items.append(outcome)
        self._index += 1
        self._cond.notify()
        self._retire_if_complete()

    def _set_length(self, length):
        with self._cond:
            if not self._is_complete():
                self._length = length
                self._retire_if_complete()

    def _fail(self, exc, tell=True):
        """End the stream with `exc` as its last outcome."""
        with self._cond:
            if not self._is_complete():
                self._length = self._index + 1
                self._append((False, exc))

    def _retire_if_complete(self):
        if not self._is_complete():
            return
        self._cache.pop(self._job, None)
        self._pool = None
        self._cond.notify_all()


class IMapUnorderedIterator(IMapIterator):
    """The results of `Pool.imap_unordered`, in the order in which they come."""

    def _set(self, i, outcome):
        with self._cond:
            self._append(outcome)
