"""aget(), aput() and `async for` on queues, in any event loop of asyncio's kind.

Each loop has one doorbell (docs/doorbell.md), a descriptor that it watches as it watches its
sockets: no thread, and nothing to do while nothing happens.  Who waits for a queue stands in a line
of its loop.  When the doorbell rings, as many are woken as there are objects (or room), and try
again: an object is taken by the task that gets it, in one step, and so is never on its way when
the task is cancelled.  One that was woken in vain goes back to the front.
"""

import os
from collections import deque
from weakref import WeakKeyDictionary

from . import _kin

__all__ = ["AsyncMethods"]


class AsyncMethods:
    """What queues have for asyncio."""

    __slots__ = ()

    async def aget(self):
        """Take the oldest object; wait, as coroutines do, while there is none."""
        from queue import Empty

        return await _when_possible(self, _kin.READY_TAKE, Empty, self.get_nowait)

    async def aput(self, obj):
        """Add an object; wait, as coroutines do, while there is no room."""
        from queue import Full

        await _when_possible(self, _kin.READY_GIVE, Full, self.put_nowait, obj)

    def __aiter__(self):
        return self

    async def __anext__(self):
        from ._shutdown import ShutDown

        try:
            return await self.aget()
        except ShutDown:
            raise StopAsyncIteration from None


async def _when_possible(queue, what, not_now, attempt, *args):
    import asyncio

    loop = asyncio.get_running_loop()
    bell = _bells.get(loop)
    must_wait = bell is not None and bell.has_line(queue, what)  # others were here first
    again = False
    while True:
        if not must_wait:
            try:
                return attempt(*args)
            except not_now:
                pass
        await _bell_of(loop).wait(loop, queue, what, again)
        must_wait, again = False, True


# -- One doorbell a loop

_bells = WeakKeyDictionary()


def _bell_of(loop):
    bell = _bells.get(loop)
    if bell is None or bell.pid != os.getpid():
        for old in [old for old in _bells if old.is_closed()]:
            _bells.pop(old).close()
        bell = _bells[loop] = _Bell()
        loop.add_reader(bell.fileno, bell.rung)
    return bell


class _Line:
    """Those who wait for one queue."""

    __slots__ = ("futures", "queue", "what")

    def __init__(self, queue, what):
        self.queue = queue
        self.what = what
        self.futures = deque()


class _Bell:
    """A loop's doorbell, and the lines of those who wait for it.  It does not know its loop."""

    def __init__(self):
        self.pid = os.getpid()
        self._doorbell = _kin.Doorbell()
        self.fileno = self._doorbell.fileno()
        self._lines = {}

    def close(self):
        self._lines.clear()
        self._doorbell.close()

    def has_line(self, queue, what):
        return (id(queue), what) in self._lines

    async def wait(self, loop, queue, what, again):
        """Return when it may be worth a try; `again`: whose turn it was already comes first."""
        future = loop.create_future()
        line = self._line(queue, what)
        if again:
            line.futures.appendleft(future)
        else:
            line.futures.append(future)
        try:
            await future
        finally:
            self._leave(line, future)

    def rung(self):
        """Wake those who can go on.  While there are others, and more to have, it rings again."""
        for line in list(self._lines.values()):
            if _kin.is_ready(line.queue, line.what):
                for _ in range(_room(line)):
                    if not _wake_one(line.futures):
                        break
            self._end_if_empty(line)
        self._doorbell.settle()

    def _line(self, queue, what):
        key = id(queue), what
        line = self._lines.get(key)
        if line is None:
            self._doorbell.watch(queue, what)  # it rings at once if there is something
            line = self._lines[key] = _Line(queue, what)
        return line

    def _leave(self, line, future):
        # Woken or not.  If it was, and is cancelled: the doorbell rings for the next.
        if future in line.futures:
            line.futures.remove(future)
            self._end_if_empty(line)

    def _end_if_empty(self, line):
        key = id(line.queue), line.what
        if not line.futures and self._lines.get(key) is line:
            del self._lines[key]
            self._doorbell.unwatch(line.queue, line.what)


def _wake_one(futures):
    """False if there is none."""
    while futures:
        future = futures.popleft()
        if not future.done():
            future.set_result(None)
            return True
    return False


def _room(line):
    """How many of those in line may go on now: one at least."""
    queue = line.queue
    if queue.is_shutdown:
        return len(line.futures)
    if line.what == _kin.READY_TAKE:
        return max(1, queue.qsize())
    return max(1, queue.maxsize - queue.qsize()) if queue.maxsize else 1
