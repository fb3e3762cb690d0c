"""Locks, semaphores, events, conditions and barriers, under the standard library's names.

All of them live in the family's arena and are written in C (ext/lock.c and its neighbours over
libkin/src/sync): they can be pickled at any time, and need no descriptor each.  What happens when
a process that holds one is killed is in docs/locks.md.

What is here is what they say of themselves.
"""

import sys

from . import _kin, process
from ._kin import SEM_VALUE_MAX as SEM_VALUE_MAX
from ._kin import BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

RECURSIVE_MUTEX, SEMAPHORE = range(2)


class _SemLockMeta(type):
    def __instancecheck__(cls, obj):
        return isinstance(obj, _kin.SemLock)

    def __subclasscheck__(cls, sub):
        return issubclass(sub, _kin.SemLock)


class SemLock(metaclass=_SemLockMeta):
    """What locks and semaphores are, for isinstance().

    Not the engine's class, for programs put things into this one (loky does when it is imported).
    """


def __getattr__(name):
    if name == "Barrier":  # it needs threading, which the rest does without
        from ._barrier import Barrier

        return Barrier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _describe(lock):
    """What repr() says of a lock or semaphore."""
    name = type(lock).__name__
    if isinstance(lock, BoundedSemaphore):
        return f"<{name}(value={lock.get_value()}, maxvalue={lock.maxvalue})>"
    if isinstance(lock, Semaphore):
        return f"<{name}(value={lock.get_value()})>"
    holder = _holder(lock)
    if isinstance(lock, Lock):
        return f"<{name}(owner={holder})>"
    count = 0 if holder == "None" else lock._count() if lock._is_mine() else "nonzero"
    return f"<{name}({holder}, {count})>"


def _holder(lock):
    if lock._is_mine():
        threading = sys.modules.get("threading")
        name = process.current_process().name
        if threading is None or threading.current_thread() is threading.main_thread():
            return name
        return f"{name}|{threading.current_thread().name}"
    if lock.get_value() == 1:
        return "None"
    return "SomeOtherThread" if lock._count() else "SomeOtherProcess"
