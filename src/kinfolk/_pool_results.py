"""What a Pool gives back: the results that callers hold while workers work.

`ApplyResult` stands for one task, `MapResult` for the chunks of one map, `IMapIterator` and
`IMapUnorderedIterator` for a stream of them.  Each has a number, its job, under which it waits in
the pool's table of unfinished jobs (`pool._cache`).  The engine knows results by that number alone,
and tells them

    _set(i, (success, value))   task i of the job has an outcome
    _set_many([(i, outcome)])   several have
    _set_length(n)              the job turned out to have n tasks
    _fail(exc, tell=True)       there will be no further outcome; `tell`: call the error callback

The invariant: whoever takes a job out of the table, and nobody else, finishes its result.  Outcomes
come from the collecting thread, from the feeding thread and, when a pool is terminated, from its
keeper; taking out is one atomic step of a dict, so that a result is finished once, and outcomes
that come too late fall on the floor.

Waiting is done on threading primitives, in the process that owns the pool, and in stretches: ^C that
comes when the main thread has looked for signals, and is about to wait, interrupts nothing; the
interpreter looks again when a stretch is over.
"""

import collections
import itertools
import math
import threading
import time
import types

from ._pool_progress import NO_BAR
from .context import TimeoutError

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "in_stretches",
    "report",
]

# Seconds of the first stretch of a wait, each being twice as long as the one before, and of the last.
_STRETCH = 0.05
_LONGEST_STRETCH = 1.0

job_counter = itertools.count()
_making = threading.Lock()  # of the event of a result


def report(exc):
    """Show an exception that nobody can be handed: one of a callback, in a thread of the pool."""
    thread = threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs((type(exc), exc, exc.__traceback__, thread)))


def in_stretches(wait, timeout):
    """`wait(seconds)` until it says True, or for `timeout` seconds (None: for ever).  Did it?"""
    stretch = _STRETCH
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if wait(min(stretch, left)):
            return True
        if left <= stretch:
            return False
        stretch = min(2 * stretch, _LONGEST_STRETCH)


class Pending:
    """What all of them can: be cancelled, and move a bar."""

    _bar = NO_BAR

    def cancel(self):
        """End it, undone: who waits gets CancelledError.  Was there time for that?

        Workers that are at it are killed and replaced; other tasks are not touched.  A ThreadPool
        can only cancel what was given to no thread.
        """
        pool = self._pool
        return pool is not None and pool._engine.cancel(self._job)

    def _show_on(self, bar, size):
        """Move `bar` by `size` for each outcome."""
        if bar is not NO_BAR:
            self._bar, self._step = bar, size
            if self._job not in self._cache:
                bar.close()  # an empty map


class ApplyResult(Pending):
    """The result of one task, to come.  Made by `Pool.apply_async`."""

    def __init__(self, pool, callback, error_callback):
        self._pool = pool
        self._is_ready = False
        self._awaited = None  # an event, if somebody waits
        self._job = next(job_counter)
        self._cache = pool._cache
        self._callback = callback
        self._error_callback = error_callback
        self._cache[self._job] = self

    def ready(self):
        """Whether the call has ended, well or badly."""
        return self._is_ready

    def successful(self):
        """Whether the call ended without an exception.  ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout=None):
        """Wait until the result is there, or for `timeout` seconds."""
        if not self._is_ready:
            in_stretches(self._event.wait, timeout)

    @property
    def _event(self):
        """Set when the result is there.  Made when it is asked for: most are not waited for."""
        with _making:
            if self._awaited is None:
                self._awaited = threading.Event()
        if self._is_ready:  # looked at after the event was there for `_finish` to see
            self._awaited.set()
        return self._awaited

    def _note_ready(self):
        self._is_ready = True
        if self._awaited is not None:
            self._awaited.set()

    def get(self, timeout=None):
        """The value, once it is there; what the call raised is raised here.

        TimeoutError if it is not there after `timeout` seconds.
        """
        if not self._is_ready:
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

    def _set_many(self, outcomes):
        for _, (success, value) in outcomes:
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
        self._pool = self._callback = self._error_callback = None
        try:
            if callback and tell:
                callback(value)
        except BaseException as exc:
            report(exc)
        finally:
            if self._bar is not NO_BAR:
                self._bar.close()
            self._note_ready()

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
            self._note_ready()

    def _set(self, i, outcome):
        self._set_many([(i, outcome)])

    def _set_many(self, outcomes):
        size = self._chunksize
        with self._lock:
            slots = self._slots
            for i, (success, value) in outcomes:
                if success:
                    slots[i * size : (i + 1) * size] = value
                elif self._failure is None:
                    self._failure = value
            self._number_left -= len(outcomes)
        if self._bar is not NO_BAR:
            self._bar.update(len(outcomes) * self._step)
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


class IMapIterator(Pending):
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
        try:
            outcome = self._items.popleft()  # one step, without the lock
        except IndexError:
            outcome = None
        # Outside of that except: what is raised from here on has nothing to do with it.
        success, value = outcome or self._next_to_come(timeout)
        if success:
            return value
        try:
            raise value
        finally:
            del value

    __next__ = next

    def _next_to_come(self, timeout):
        with self._cond:
            while in_stretches(self._wait_for_news, timeout):
                try:
                    return self._items.popleft()
                except IndexError:  # another thread was quicker, without the lock
                    if self._is_complete():
                        raise StopIteration from None
            raise TimeoutError

    def _wait_for_news(self, seconds):
        return self._cond.wait_for(self._has_news, seconds)

    def _has_news(self):
        return self._items or self._is_complete()

    def _is_complete(self):
        return self._index == self._length

    def _set(self, i, outcome):
        self._set_many([(i, outcome)])

    def _set_many(self, outcomes):
        with self._cond:
            for i, outcome in outcomes:
                if i == self._index:
                    self._append(outcome)
                else:
                    self._unsorted[i] = outcome
                while self._index in self._unsorted:
                    self._append(self._unsorted.pop(self._index))
            self._cond.notify_all()

    def _append(self, outcome):
        if self._is_complete():
            return
        self._items.append(outcome)
        self._index += 1
        if self._bar is not NO_BAR:
            self._bar.update(self._step)
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
                self._cond.notify_all()

    def _retire_if_complete(self):
        if not self._is_complete():
            return
        self._cache.pop(self._job, None)
        self._pool = None
        self._bar.close()
        self._cond.notify_all()


class IMapUnorderedIterator(IMapIterator):
    """The results of `Pool.imap_unordered`, in the order in which they come."""

    def _set_many(self, outcomes):
        with self._cond:
            for _, outcome in outcomes:
                self._append(outcome)
            self._cond.notify_all()
