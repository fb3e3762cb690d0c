"""Barrier: the one of threading, with its lock and its two numbers where all processes see them."""

import threading

from . import _kin
from .synchronize import Condition

__all__ = ["Barrier"]


def _shared(index):
    """An attribute that is one of the numbers in shared memory."""

    def get(self):
        return self._numbers[index]

    def set(self, value):
        self._numbers[index] = value

    return property(get, set)


class Barrier(threading.Barrier):
    """A place where `parties` processes or threads wait for each other, again and again."""

    _state = _shared(0)
    _count = _shared(1)

    def __init__(self, parties, action=None, timeout=None, *, ctx=None):
        condition, memory = Condition(), _kin.Memory(8)
        self.__setstate__((parties, action, timeout, condition, memory))

    def __getstate__(self):
        return self._parties, self._action, self._timeout, self._cond, self._memory

    def __setstate__(self, state):
        self._parties, self._action, self._timeout, self._cond, self._memory = state
        self._numbers = memoryview(self._memory).cast("i")
