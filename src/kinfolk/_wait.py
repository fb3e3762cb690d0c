"""Wait until one of many things is ready.

A thing is a descriptor, or has one (a connection, a socket, a process's sentinel), or lives in the
family's arena: a queue, an event, a lock, a semaphore.  All of them are waited for at once, in the
engine (docs/doorbell.md); nothing is asked in turns.

Two things are kept there and relied on by the callers of this module:

* A time limit is turned into a deadline once.  An interrupted call goes on
  (after Python's signal handlers have run) with what is left of it.
* An error or hang-up on a descriptor counts as ready: the read that follows
  is what tells which one it was.
"""

from . import _kin

__all__ = ["wait", "readable"]


def wait(object_list, timeout=None):
    """Return those objects of `object_list` that are ready, in its order.

    An object is an integer descriptor (a process's `sentinel`, say), has a
    `fileno()` method, or is a queue (ready when there is something to get), an
    event (when it is set), a lock (when it is free) or a semaphore (when it is
    above zero).  `timeout` is in seconds; None waits for ever, zero and
    less only look.  The list is empty when the time is over.  ValueError for
    what cannot be waited for, KeyError when one comes twice.
    """
    objects = list(object_list)
    things = [_thing(obj) for obj in objects]
    _check_unique(things, objects)
    return [objects[n] for n in _kin.wait(things, timeout)]


def readable(fd, timeout):
    """Whether descriptor `fd` is ready within `timeout` seconds, as in wait()."""
    return bool(_kin.wait((fd,), timeout))


#: Those without a descriptor that have something to be ready for.
_WAITED_FOR = (_kin.Queue, _kin.SemLock, _kin.Event)


def _thing(obj):
    """What the engine is asked for: a descriptor, or an object and what it is to be ready for."""
    if isinstance(obj, int):
        fd = obj
    else:
        awaited = getattr(obj, "_awaited", None)  # an end of a queue: it has a descriptor, too
        if awaited is not None:
            return awaited()
        fileno = getattr(obj, "fileno", None)
        if fileno is None and isinstance(obj, _WAITED_FOR):
            return obj, _kin.READY_TAKE
        try:
            fd = int(fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {obj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def _check_unique(things, objects):
    seen = set()
    for thing, obj in zip(things, objects):
        key = thing if isinstance(thing, int) else (id(thing[0]), thing[1])
        if key in seen:
            which = f" (FD {thing})" if isinstance(thing, int) else ""
            raise KeyError(f"{obj!r}{which} is already registered")
        seen.add(key)
