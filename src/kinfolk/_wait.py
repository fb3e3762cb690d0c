"""Wait until one of many descriptors can be read.

Everything that can be waited for has a descriptor that becomes readable when
the thing is ready: a connection or a socket when bytes (or the end) have
come, a process's sentinel when the process has ended.  So waiting is one call
of poll(2), which needs no descriptor of its own and no limit on theirs.

Two things are kept by this module and relied on by its callers:

* A time limit is turned into a deadline once.  An interrupted call goes on
  (after Python's signal handlers have run) with what is left of it.
* An error or hang-up on a descriptor counts as ready: the read that follows
  is what tells which one it was.
"""

import math
import select
import time

__all__ = ["wait", "readable"]

# Seconds.  poll() counts milliseconds in a C int: a longer wait is made of several.
_LONGEST = 1_000_000.0


def wait(object_list, timeout=None):
    """Return those objects of `object_list` that are ready, in its order.

    An object is an integer descriptor (a process's `sentinel`, say) or has a
    `fileno()` method.  `timeout` is in seconds; None waits for ever, zero and
    less only look.  The list is empty when the time is over.  ValueError for
    what is not a descriptor, KeyError when one comes twice.
    """
    watched = {}
    poller = select.poll()
    for obj in object_list:
        fd = _descriptor(obj)
        if fd in watched:
            raise KeyError(f"{obj!r} (FD {fd}) is already registered")
        watched[fd] = obj
        poller.register(fd, select.POLLIN)
    ready = {fd for fd, _ in _poll_until(poller, timeout)}
    return [obj for fd, obj in watched.items() if fd in ready or (ready and _is_on_its_way(obj))]


def readable(fd, timeout):
    """Whether descriptor `fd` is ready within `timeout` seconds, as in wait()."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(_poll_until(poller, timeout))


def _is_on_its_way(obj):
    # A queue's reader is ready before the end of the process that put something into it, though
    # its descriptor may show it a little later (see _bridge).
    check = getattr(obj, "_is_on_its_way", None)
    return check is not None and check()


def _descriptor(obj):
    fd = obj
    if not isinstance(obj, int):
        try:
            fd = int(obj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {obj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def _poll_until(poller, timeout):
    if timeout is not None and timeout <= 0:
        return poller.poll(0)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        ready = poller.poll(_milliseconds_to(deadline))
        if ready or (deadline is not None and time.monotonic() >= deadline):
            return ready


def _milliseconds_to(deadline):
    if deadline is None:
        return None
    left = min(deadline - time.monotonic(), _LONGEST)
    return max(0, math.ceil(left * 1000))
