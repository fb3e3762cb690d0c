"""A descriptor for a queue, for who must have one: select(), event loops, concurrent.futures.

A queue has no descriptor, and needs none to be waited for alone.  Who wants to wait for it and for
other things asks for `queue._reader.fileno()`, as with the standard library's.  From then on a
thread of this process takes each object out as it comes and keeps it here; the descriptor is that
of a pipe that holds a byte for each of them.  The queue's own methods, in this process, then take
from what is kept.

So this process takes more than it has asked for: it must be the queue's only reader, as who waits
with a descriptor is.  A pipe takes some ten thousands of bytes; then the thread waits.

The standard library's users rely on an order: what a process has put can be read once its sentinel
says that it has ended.  Here the thread may be a little late.  So it declares each object done
(task_done) when it has delivered it, and while not all are, `is_on_its_way()` says so to
connection.wait().  A JoinableQueue's count is its user's, and there it knows less.

This is a makeshift until the engine has its doorbell (docs/design.md), which takes nothing.
"""

import os
import weakref
from _thread import start_new_thread
from collections import deque
from queue import Empty
from time import monotonic

from . import _kin, util
from ._wait import readable
from .queues import JoinableQueue

__all__ = ["Bridge"]

_OVERRIDDEN = ("get", "get_nowait", "empty", "qsize")


class _Stop:
    """What the thread is sent, through the queue, when nobody will want its service any more."""


class Bridge:
    """Stands before a queue in the process that made it, and puts itself in its methods' place."""

    def __init__(self, queue):
        self._pid = os.getpid()
        self._kept = deque()
        self._r, w = os.pipe()
        os.set_blocking(self._r, False)
        # A handle of its own: when the program's is gone, the thread is told, and ends.
        self._handle = handle = _kin._open(_kin.Queue, queue.ref)
        self._counts = not isinstance(queue, JoinableQueue)
        if self._counts:
            _declare_all_done(handle)
        # Not one of threading's: the program has not asked for it, and waits for no such thing.
        start_new_thread(_carry, (handle, self._kept, w, self._counts))
        self._stop = util.Finalize(queue, _stop, (handle, self._r))
        for name in _OVERRIDDEN:
            setattr(queue, name, _Method(self, queue, name))

    def is_of_this_process(self):
        return self._pid == os.getpid()

    def fileno(self):
        return self._r

    def is_on_its_way(self):
        """Whether there is something to get that the descriptor may not show yet."""
        if self._kept or not self._handle.empty():
            return True
        return self._counts and not self._handle.join(0)

    def close(self, queue):
        """Give the queue its methods back, and the thread leave to end."""
        _give_back(queue)
        self._stop()

    def get(self, block=True, timeout=None):
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            left = 0 if not block else None if deadline is None else deadline - monotonic()
            if not readable(self._r, left):
                raise Empty
            try:
                os.read(self._r, 1)
                break
            except BlockingIOError:  # another thread was faster
                continue
        loaded, value = self._kept.popleft()
        if not loaded:
            raise value
        return value

    def get_nowait(self):
        return self.get(False)

    def empty(self):
        return not readable(self._r, 0)

    def qsize(self):
        return len(self._kept)


def _give_back(queue):
    for name in _OVERRIDDEN:
        queue.__dict__.pop(name, None)


class _Method:
    """One of the bridge's methods in place of the queue's; in a forked child the queue's again."""

    def __init__(self, bridge, queue, name):
        self._bridge = bridge
        self._queue = weakref.ref(queue)
        self._name = name

    def __call__(self, *args, **kwargs):
        if not self._bridge.is_of_this_process():
            queue = self._queue()
            _give_back(queue)
            return getattr(queue, self._name)(*args, **kwargs)
        return getattr(self._bridge, self._name)(*args, **kwargs)


def _declare_all_done(handle):
    """Have only what is put from now on count; what is still in the queue is seen there."""
    try:
        while True:
            handle.task_done()
    except ValueError:
        pass


def _carry(handle, kept, w, counts):
    """Run in the thread: carry objects from the queue to `kept`."""
    try:
        while True:
            try:
                item = True, handle.get()
            except Exception as error:
                if handle.is_shutdown and isinstance(error, EOFError):
                    return
                item = False, error  # it could not be loaded: who gets it will be told
            if isinstance(item[1], _Stop):
                return
            # In this order: at each moment it is in the queue, not done, or kept; and once its byte
            # can be read there is no sign of it left but that.
            kept.append(item)
            del item
            if counts:
                _declare_one_done(handle)
            os.write(w, b".")
    except OSError:
        return  # closed meanwhile
    finally:
        os.close(w)


def _declare_one_done(handle):
    try:
        handle.task_done()
    except ValueError:
        pass  # it was put before we began to count


def _stop(handle, r):
    handle.put(_Stop())
    os.close(r)
