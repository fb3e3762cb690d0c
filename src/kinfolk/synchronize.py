"""Locks, semaphores, events, conditions: kinfolk's own with the standard library's names.

Lock, RLock, Semaphore, BoundedSemaphore and Event live in the family's arena (ext/lock.c and its
neighbours); what is here gives them the constructors and the words of multiprocessing.  They can be
pickled at any time, and need no descriptor each.

A Condition is built from them.  Whoever waits puts a semaphore of its own, its turn, into a queue
that is the condition's, and waits for it; to notify is to take the oldest turn and release it.  All
but the waiting happens under the condition's lock.

    turn      0: somebody waits for it    1: not any more: called, or given up

So a notification goes to one that waited when it was given, and whoever gives it waits for nobody.
One that died while it waited is passed over.

Barrier is in _barrier.py.
"""

import sys
from time import monotonic

from . import _kin, process

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

RECURSIVE_MUTEX, SEMAPHORE = range(2)
SEM_VALUE_MAX = _kin.SEM_VALUE_MAX


def __getattr__(name):
    if name == "Barrier":  # it needs threading, which the rest does without
        from ._barrier import Barrier

        return Barrier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SemLock:
    """What locks and semaphores have in common."""

    @property
    def _semlock(self):
        """Where the standard library has what does the work, and those who know it look for it."""
        return self

    def __getstate__(self):
        """What travels besides the lock: what a subclass, or its user, has added."""
        return self.__dict__

    def __setstate__(self, state):
        self.__dict__.update(state)

    def _holder(self):
        """Who holds it, as repr() says."""
        if self._is_mine():
            threading = sys.modules.get("threading")
            name = process.current_process().name
            if threading is None or threading.current_thread() is threading.main_thread():
                return name
            return f"{name}|{threading.current_thread().name}"
        if self.get_value() == 1:
            return "None"
        return "SomeOtherThread" if self._count() else "SomeOtherProcess"


class Lock(SemLock, _kin.Lock):
    """A lock.  Any process and thread may release it."""

    def __init__(self, *, ctx=None):
        super().__init__()

    def __repr__(self):
        return f"<{type(self).__name__}(owner={self._holder()})>"


class RLock(SemLock, _kin.RLock):
    """A lock that the thread that holds it may acquire again, and must release as often."""

    def __init__(self, *, ctx=None):
        super().__init__()

    def __repr__(self):
        holder = self._holder()
        count = 0 if holder == "None" else self._count() if self._is_mine() else "nonzero"
        return f"<{type(self).__name__}({holder}, {count})>"


class Semaphore(SemLock, _kin.Semaphore):
    """A count that acquire() lowers, waiting at 0, and release() raises."""

    def __init__(self, value=1, *, ctx=None):
        super().__init__(value, SEM_VALUE_MAX)

    def __repr__(self):
        return f"<{type(self).__name__}(value={self.get_value()})>"


class BoundedSemaphore(Semaphore):
    """A semaphore that does not rise above where it began: release() raises ValueError."""

    def __init__(self, value=1, *, ctx=None):
        _kin.Semaphore.__init__(self, value, value)

    def __repr__(self):
        return f"<{type(self).__name__}(value={self.get_value()}, maxvalue={self.maxvalue})>"


class Event(_kin.Event):
    """A flag that can be waited for."""

    def __init__(self, *, ctx=None):
        super().__init__()

    def __repr__(self):
        state = "set" if self.is_set() else "unset"
        return f"<{type(self).__qualname__} at {id(self):#x} {state}>"


class Condition:
    """A place to wait, under a lock, until another says that something has changed."""

    def __init__(self, lock=None, *, ctx=None):
        self.__setstate__((lock or RLock(), _kin.Queue()))

    def __getstate__(self):
        return self._lock, self._turns

    def __setstate__(self, state):
        self._lock, self._turns = state
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *args):
        return self._lock.__exit__(*args)

    def __repr__(self):
        return f"<{type(self).__name__}({self._lock!r}, {self._turns.qsize()})>"

    def wait(self, timeout=None):
        """Give up the lock until notified, `timeout` seconds at most; return whether notified."""
        assert self._is_owned(), "must acquire() condition before using wait()"
        turn = _kin.Semaphore(0, 1)
        self._turns.put((turn, _kin.member()))
        depth = self._lock._semlock._count()
        for _ in range(depth):
            self._lock.release()
        called = False
        try:
            called = turn.acquire(True, timeout)
        finally:
            for _ in range(depth):
                self._lock.acquire()
            if not called and not turn.acquire(False):
                turn.release()
                self._clear_up()
            else:
                called = True
        return called

    def wait_for(self, predicate, timeout=None):
        """Wait until predicate() holds, `timeout` seconds at most; return its last value."""
        deadline = None if timeout is None else monotonic() + timeout
        while not (result := predicate()):
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n=1):
        """Wake up to `n` of those who wait."""
        assert self._is_owned(), "lock is not owned"
        while n > 0 and (waiting := self._next()) is not None:
            turn, member = waiting
            if turn.get_value() == 0 and _kin.is_member_alive(member):
                turn.release()
                n -= 1

    def notify_all(self):
        """Wake all who wait."""
        self.notify(n=sys.maxsize)

    def _is_owned(self):
        return self._lock._semlock._is_mine()

    def _next(self):
        return None if self._turns.empty() else self._turns.get()

    def _clear_up(self):
        """Look at two of the turns, and drop those that were given up.

        Each that is given up brings this about, so that there are never many of them: a loop that
        waits with a timeout fills no memory.  Those that are waited for go to the end of the row.
        """
        for _ in range(2):
            waiting = self._next()
            if waiting is not None and waiting[0].get_value() == 0:
                self._turns.put(waiting)

    def _not_kept(self):
        raise NotImplementedError("kinfolk's conditions do not count this")

    _sleeping_count = _woken_count = _wait_semaphore = property(_not_kept)
