"""The API of kinfolk over threads, for programs that wait more than they compute.

A `Process` here is a thread, the locks and queues are the standard library's
for threads, and a value that is shared is simply the object itself.  So most
names are those of `threading`, `queue` and builtins; what is added is what a
process has and a thread has not: an exit code and children.
"""

import array
import sys
import threading
import weakref
from builtins import dict, list  # noqa: F401, UP029 (a Manager's factories)
from queue import Queue
from threading import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from threading import current_thread as current_process

from .._manager_values import Namespace  # noqa: F401 (a Manager's, too)
from .connection import Pipe

__all__ = [
    "Process",
    "current_process",
    "active_children",
    "freeze_support",
    "Lock",
    "RLock",
    "Semaphore",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Barrier",
    "Queue",
    "Manager",
    "Pipe",
    "Pool",
    "JoinableQueue",
]

JoinableQueue = Queue


class DummyProcess(threading.Thread):
    """A thread with the methods of a Process.  Takes the arguments of Process."""

    def __init__(self, group=None, target=None, name=None, args=(), kwargs=None):
        super().__init__(group, target, name, args, kwargs)
        self._pid = None
        self._start_called = False
        self._parent = current_process()

    def start(self):
        """Start it.  RuntimeError in any thread but the one that made it."""
        here = current_process()
        if self._parent is not here:
            raise RuntimeError(f"Parent is {self._parent!r} but current_process is {here!r}")
        self._start_called = True
        _children_of(here)[self] = None
        super().start()

    @property
    def exitcode(self):
        """0 once it has ended, None before."""
        return 0 if self._start_called and not self.is_alive() else None


Process = DummyProcess


def active_children():
    """Return the threads that the current one started and that still run."""
    children = _children_of(current_process())
    for child in list(children):
        if not child.is_alive():
            children.pop(child, None)
    return list(children)


def _children_of(thread):
    # Any thread may start others, also one that was not made here.  Programs
    # written for the standard library give theirs this very attribute.
    return thread.__dict__.setdefault("_children", weakref.WeakKeyDictionary())


def freeze_support():
    """Do nothing: a thread needs no program of its own."""


class Value:
    """An object with the attribute `value`; the type code and `lock` are not looked at."""

    def __init__(self, typecode, value, lock=True):
        self._typecode = typecode
        self.value = value

    def __repr__(self):
        return f"<{type(self).__name__}({self._typecode!r}, {self.value!r})>"


def Array(typecode, sequence, lock=True):
    """Return an array.array; `lock` is not looked at."""
    return array.array(typecode, sequence)


def Manager():
    """Return this module, which has the factories of a manager."""
    return sys.modules[__name__]


def shutdown():
    """Do nothing, as the manager that this module stands for."""


def Pool(processes=None, initializer=None, initargs=()):
    """Return a ThreadPool."""
    from ..pool import ThreadPool

    return ThreadPool(processes, initializer, initargs)
