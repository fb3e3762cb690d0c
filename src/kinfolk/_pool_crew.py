"""What a Pool's engine is made of: crews that make workers, seats, tickets, and a bell.

A crew knows the one difference between a Pool and a ThreadPool: what a worker is, a process or a
thread, and which queues reach it.  A `Seat` is a worker as its parent sees it, a `Ticket` a task on
its way.  They are plain records; who may change them, and when, is said in _pool_engine.
"""

import os
import queue

from . import util
from ._pool_worker import mapstar, safe_repr, starmapstar, worker
from .connection import wait

__all__ = ["Bell", "ProcessCrew", "Seat", "ThreadCrew", "Ticket"]


class ProcessCrew:
    """Makes workers that are processes of the context `ctx`, by the pool's own `make_process`."""

    local = False

    def __init__(self, ctx, make_process, *worker_args):
        self._ctx = ctx
        self._make_process = make_process
        self._worker_args = worker_args

    def make_task_queue(self):
        # Not a SimpleQueue: an idle worker looks up from it now and then (Line.next_task).
        return self._ctx.Queue()

    def make_queue(self):
        return self._ctx.SimpleQueue()

    def start(self, line):
        process = self._make_process(self._ctx, target=worker, args=(line, *self._worker_args))
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        process.start()
        util.debug("added worker")
        return process

    def wait(self, seats, bell, timeout):
        """Those of `seats` whose workers have ended, once there are some, or the bell has rung."""
        sentinels = {seat.process.sentinel: seat for seat in seats}
        ready = wait([bell, *sentinels], timeout)
        return [sentinels[fd] for fd in ready if fd is not bell]


class ThreadCrew(ProcessCrew):
    """Makes workers that are threads of this process."""

    local = True

    def make_task_queue(self):
        return queue.SimpleQueue()

    make_queue = make_task_queue

    def wait(self, seats, bell, timeout):
        wait([bell], timeout)
        return [seat for seat in seats if seat.leaving]


class Bell:
    """Wakes whoever waits on it beside other descriptors; rings from anywhere and never blocks."""

    def __init__(self):
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self):
        return self._reader

    def ring(self):
        try:
            os.write(self._writer, b"!")
        except BlockingIOError:
            pass  # it rings already

    def hush(self):
        try:
            os.read(self._reader, 65536)
        except BlockingIOError:
            pass

    def __del__(self, close=os.close):
        close(self._reader)
        close(self._writer)


class Ticket:
    """One task on its way: `task` is (func, args, kwds), for number `index` of `job`."""

    __slots__ = ("index", "job", "returns", "task")

    def __init__(self, job, index, task):
        self.job = job
        self.index = index
        self.task = task
        self.returns = 0  # how often it came back, untouched, from a worker that died

    def __str__(self):
        func, args, _ = self.task
        if func is mapstar or func is starmapstar:
            func = args[0][0]
        return getattr(func, "__qualname__", None) or safe_repr(func)


class Seat:
    """One worker, as its parent sees it."""

    __slots__ = (
        "buried",
        "dead",
        "excuse",
        "leaving",
        "left",
        "line",
        "process",
        "putting",
        "ticket",
        "up",
    )

    def __init__(self, line, maxtasks):
        self.line = line
        self.process = None  # until it has been started
        self.ticket = None  # what it works on
        self.putting = None  # the ticket that is on its way into the line
        self.left = maxtasks  # how many tasks it may still be given; None: no end of them
        self.up = False  # it said READY
        self.excuse = None  # what its initializer raised
        self.leaving = False  # a thread that said LEFT
        self.buried = False  # it has ended and was joined,
        self.dead = False  # and the collector has heard so
