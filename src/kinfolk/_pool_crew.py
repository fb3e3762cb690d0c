"""What a Pool's engine is made of: crews that make workers, seats, and a bell.

A crew knows the one difference between a Pool and a ThreadPool: what a worker is, a process or a
thread, and which queues reach it.  A `Seat` is a worker as its parent sees it, a plain record; who may
change it, and when, is said in _pool_engine.  Tickets, the tasks on their way, are C's (_kin.Job).
"""

import collections
import os
import queue
import threading

from . import util
from ._kin import make_ticket
from ._pool_worker import How, mapstar, safe_repr, starmapstar, worker
from .connection import wait

__all__ = ["Bell", "ProcessCrew", "Seat", "ThreadCrew", "ticket_of", "title"]


class ProcessCrew:
    """Makes workers that are processes of the context `ctx`, by the pool's own `make_process`."""

    local = False

    def __init__(self, ctx, make_process, *worker_args):
        self._ctx = ctx
        self._make_process = make_process
        self._worker_args = worker_args

    def make_queue(self):
        return self._ctx.Queue()

    def start(self, line):
        process = self._make_process(self._ctx, target=worker, args=(line, *self._worker_args))
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        process.start()
        util.debug("added worker")
        return process

    def wait(self, seats, bell, timeout):
        """Those of `seats` whose workers have ended, once there are some, or the bell has rung.

        The bell is hushed before anything is looked at that it may ring for.
        """
        sentinels = {seat.process.sentinel: seat for seat in seats}
        ready = wait([bell, *sentinels], timeout)
        bell.hush()
        return [sentinels[fd] for fd in ready if fd is not bell]


class ThreadCrew(ProcessCrew):
    """Makes workers that are threads of this process."""

    local = True

    def make_queue(self):
        return LocalQueue()

    def wait(self, seats, bell, timeout):
        wait([bell], timeout)
        bell.hush()
        return [seat for seat in seats if seat.leaving]


class LocalQueue(queue.SimpleQueue):
    """A queue between threads, with what the engine needs of queues between processes."""

    def put_many(self, items):
        for item in items:
            self.put(item)

    def get_many(self, max_items=None, block=True):
        got = []
        try:
            got.append(self.get(block))
            while len(got) != max_items:
                got.append(self.get_nowait())
        except queue.Empty:
            if not got:
                raise
        return got

    def _take_back(self):
        count = 0
        try:
            while True:
                self.get_nowait()
                count += 1
        except queue.Empty:
            return count


class Bell:
    """Wakes whoever waits on it beside other descriptors; rings from anywhere and never blocks.

    Also from a signal handler, and while garbage is collected: so the lock is a recursive one.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self):
        return self._reader

    def ring(self):
        with self._lock:
            try:
                if self._writer is not None:
                    os.write(self._writer, b"!")
            except BlockingIOError:
                pass  # it rings already

    def hush(self):
        try:
            os.read(self._reader, 65536)
        except BlockingIOError:
            pass

    def close(self, close=os.close):
        """Ring no more.  By the one who waits."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            close(writer)
            close(self._reader)

    __del__ = close


def ticket_of(task):
    """The ticket of a task as the standard library's pool writes them down."""
    job, index, func, args, kwds = task
    how = How.CALL
    if func is mapstar or func is starmapstar:
        how = How.MAP if func is mapstar else How.STARMAP
        ((func, args),) = args
    return make_ticket(job, index, how, func, args, kwds)


def title(ticket):
    """What a task is called in a message: by its function."""
    return getattr(ticket.func, "__qualname__", None) or safe_repr(ticket.func)


class Seat:
    """One worker, as its parent sees it."""

    __slots__ = (
        "buried",
        "busy_since",
        "dead",
        "done",
        "excuse",
        "giving",
        "hungry",
        "last_words",
        "leaving",
        "left",
        "line",
        "process",
        "retiring",
        "tickets",
        "up",
        "up_since",
        "verdict",
        "working",
    )

    def __init__(self, line, maxtasks):
        self.line = line
        self.process = None  # until it has been started
        self.tickets = collections.deque()  # what it was given and has not answered, in order
        self.giving = False  # somebody is putting tickets into its line, or taking them back
        self.hungry = False  # it is in the engine's list of those that could do with more
        self.busy_since = 0.0  # when it began with the first of its tickets, as far as is known
        self.up_since = 0.0  # when it said READY
        self.done = 0  # how many tasks it has answered
        self.working = 0.0  # seconds that this took
        self.left = maxtasks  # how many more tasks it may be given; None: no end of them
        self.up = False  # it said READY
        self.excuse = None  # what its initializer raised
        self.last_words = ""  # where it crashed
        self.retiring = False  # it is to go home when it has nothing: there are to be fewer
        self.verdict = None  # ended for a ticket's sake: that, and what the ticket fails with
        self.leaving = False  # a thread that said LEFT
        self.buried = False  # it has ended and was joined,
        self.dead = False  # and the collector has heard so
