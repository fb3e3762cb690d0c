"""Whom the cases are run with: modules, or what looks like one, with Queue, Pipe, Process and the like.

multiprocessing and kinfolk run every case.  The others have only queues, and lend the rest from
multiprocessing: faster-fifo (a ring of bytes in shared memory), and multiprocessing's own Pipe used
as a queue, which can serve one producer and one consumer.
"""

import importlib
import importlib.util
import multiprocessing

__all__ = ["PACKAGES", "is_installed", "load"]

PACKAGES = ["multiprocessing", "kinfolk"]


class PipeQueue:
    def __init__(self):
        self.reader, self.writer = multiprocessing.Pipe(duplex=False)
        self.put = self.writer.send
        self.get = self.reader.recv


class Lent:
    """A context of multiprocessing's with queues of another kind."""

    def __init__(self, context, make_queue):
        self.context = context
        self.make_queue = make_queue

    def __getattr__(self, name):
        return getattr(self.context, name)


class FasterFifo:
    def get_context(self, method):
        return Lent(multiprocessing.get_context(method), self.make_queue)

    @staticmethod
    def make_queue(maxsize, largest):
        import faster_fifo
        import faster_fifo_reduction  # noqa: F401

        # Its own default is a ring of a million bytes.
        room = max(1_000_000, 4 * largest)
        return faster_fifo.Queue(max_size_bytes=room, maxsize=maxsize or 1_000_000_000)


class PipesAsQueues:
    def get_context(self, method):
        return Lent(multiprocessing.get_context(method), lambda maxsize, largest: PipeQueue())


OTHERS = {"faster-fifo": FasterFifo, "Pipe": PipesAsQueues}
MODULES = {"faster-fifo": "faster_fifo"}


def is_installed(name):
    return name not in MODULES or importlib.util.find_spec(MODULES[name]) is not None


def load(name):
    return OTHERS[name]() if name in OTHERS else importlib.import_module(name)
