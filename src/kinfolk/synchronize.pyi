import threading

from . import _kin
from ._kin import (
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    RLock,
    Semaphore,
)

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

RECURSIVE_MUTEX: int
SEMAPHORE: int

class Barrier(_kin.Barrier, threading.Barrier): ...  # type: ignore[misc]
