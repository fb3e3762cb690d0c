"""The worker's side of a Pool: its line to the parent, its loop, and the exceptions that cross it.

A worker has a `Line` of three queues.  The parent puts tasks, a few ahead of what is worked on, into
`tasks`, which this worker alone reads, one at a time.  What came of a task goes into `values`, which
this worker alone writes, and is then announced in `outbox`, which all workers of the pool share:

    key                         the worker's next task is done, and has a value
    (key, news, text)           anything else; news: one of News; text: a traceback, or None

The announcement is the envelope: numbers and text, nothing in it can fail to unpickle.  The value,
which can, is taken out of `values` only when its envelope has said whose it is, so that a bad one
costs one task.  A worker works one task after the other, so an announcement needs no task number:
it is about the first of the tasks that the worker has.

A worker that cannot keep this order (value, then envelope) does not go on: it dies, and the kernel
tells the parent so.

A task is

    (how, func, args, kwds)     how: one of How; func: itself, or its pickle in bytes; no kwds: {}

so that the function of a map, which is dear to pickle by value, is pickled once and not with each
chunk.
"""

import itertools
import sys

from . import pickle, util
from .context import ProcessError
from .process import current_process, parent_process

__all__ = [
    "ExceptionWithTraceback",
    "Line",
    "MaybeEncodingError",
    "RemoteTraceback",
    "WorkerDied",
    "worker",
]


class How:
    """How a task is to be worked."""

    CALL = 0  # func(*args, **kwds)
    MAP = 1  # func(x) for each x of args
    STARMAP = 2  # func(*x) for each x of args


class News:
    """What an announcement says."""

    READY = 0  # the worker can take a task
    FAILED = 2  # its task has raised an exception
    UNFIT = 3  # its initializer has raised an exception
    LEFT = 4  # it ends (said by threads only)
    DIED = 5  # it has ended (said by the keeper)
    STOP = 6  # no more announcements (said by the keeper)


class Rules:
    """Whose rules a worker works by."""

    POOL = 0  # what cannot be carried has a stand-in; SystemExit ends a process
    EXECUTOR = 1  # as the standard library's executor: both are what the task has raised
    FRAGILE_EXECUTOR = 2  # and a task that does not unpickle ends the worker


# Seconds between an idle worker's looks at its parent, if it is no daemon (those are tied to it).
_LOOK_EVERY = 1.0


class WorkerDied(ProcessError):
    """A worker of a pool ended before it had finished what it was given.

    pid: the worker's process; exitcode: as `Process.exitcode`; signal: the name of the signal that
    ended it, or None; stack: where it crashed, as faulthandler writes it, or None; out_of_memory:
    whether it was killed while the system killed for want of memory.
    """

    stack = None
    out_of_memory = False

    def __init__(self, *args, pid=None, exitcode=None, signal=None):
        super().__init__(*args)
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal


class MaybeEncodingError(Exception):
    """Stands in for a result or exception that could not be carried from the worker to the caller.

    exc: repr of what went wrong in carrying it; value: repr of what was to be carried.
    """

    def __init__(self, exc, value):
        self.exc = safe_repr(exc)
        self.value = safe_repr(value)
        super().__init__(self.exc, self.value)

    def __str__(self):
        return f"Error sending result: '{self.value}'. Reason: '{self.exc}'"

    def __repr__(self):
        return f"<{type(self).__name__}: {self}>"

    def __reduce__(self):
        # Not by its name: the worker need not have imported the module that it is shown in.
        return _rebuild_encoding_error, self.args


def _rebuild_encoding_error(exc, value):
    return MaybeEncodingError(exc, value)


def safe_repr(value):
    try:
        return repr(value)
    except Exception:
        return object.__repr__(value)


class RemoteTraceback(Exception):
    """The cause of an exception that a worker raised: its traceback there, as text, in `tb`."""

    def __init__(self, tb):
        self.tb = tb

    def __str__(self):
        return self.tb


class ExceptionWithTraceback:
    """An exception on its way out of a worker.  Unpickles as `exc`, caused by a RemoteTraceback."""

    def __init__(self, exc, tb):
        import traceback  # it is no business of a worker whose tasks raise nothing

        self.exc = exc
        text = "".join(traceback.format_exception(type(exc), exc, tb))
        self.tb = f'\n"""\n{text}"""'

    def __reduce__(self):
        return rebuild_exc, (self.exc, self.tb)


def rebuild_exc(exc, tb):
    exc.__cause__ = RemoteTraceback(tb)
    return exc


for _cls in (WorkerDied, MaybeEncodingError, RemoteTraceback, ExceptionWithTraceback):
    _cls.__module__ = f"{__package__}.pool"


def mapstar(args):
    return list(map(*args))


def starmapstar(args):
    return list(itertools.starmap(args[0], args[1]))


class Line:
    """What connects a worker to its pool.  last_words: None for a thread of the pool's process."""

    rules = Rules.POOL

    def __init__(self, key, tasks, values, outbox, last_words):
        self.key = key
        self.tasks = tasks
        self.values = values
        self.outbox = outbox
        self.last_words = last_words
        self.local = last_words is None

    def announce(self, news, text=None):
        self.outbox.put((self.key, news, text))

    def send_value(self, value):
        """Announce that the task is done, with `value`."""
        try:
            self.values.put(value)
        except (Exception, SystemExit) as exc:
            util.debug("result of a task could not be sent: %r", exc)
            if self.rules != Rules.POOL:
                self.send_exception(News.FAILED, exc, wrap=True)
            elif isinstance(exc, SystemExit):
                raise
            else:
                self.send_exception(News.FAILED, MaybeEncodingError(exc, value))
        else:
            self.outbox.put(self.key)

    def send_exception(self, news, exc, wrap=False):
        """Announce `exc` under `news`; with `wrap` it arrives caused by its traceback here."""
        parcel = ExceptionWithTraceback(exc, exc.__traceback__) if wrap else None
        try:
            self.values.put(parcel or exc)
        except Exception as why:
            util.debug("exception of a task could not be sent: %r", why)
            stand_in = MaybeEncodingError(why, exc)
            if parcel:
                parcel.exc = stand_in
            self.values.put(parcel or stand_in)
        self.announce(news, parcel and parcel.tb)

    def next_task(self):
        """What the parent gives next, None for the end.  Raises what unpickling raises."""
        if self.local or current_process().daemon:
            return self.tasks.get()
        import queue

        while True:
            try:
                return self.tasks.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                if not parent_process().is_alive():
                    util.debug("worker lost its parent -- exiting")
                    return None


def worker(
    line,
    initializer=None,
    initargs=(),
    maxtasks=None,
    wrap_exception=False,
    seed=None,
    logs=None,
    rules=Rules.POOL,
):
    """A worker's life: `initializer`, then tasks until there are no more or `maxtasks` are done.

    seed: an int, or None; logs: the queue that log records go to, or None; rules: one of Rules.
    """
    line.rules = rules
    if line.last_words is not None:
        line.last_words.listen()
    if logs is not None:
        from ._pool_logs import send_to

        send_to(logs)
    if seed is not None:
        _seed(seed, line.key)
    try:
        _initialize(line, initializer, initargs, wrap_exception)
        line.announce(News.READY)
        completed = 0
        while maxtasks is None or completed < maxtasks:
            if not _serve(line, wrap_exception):
                break
            completed += 1
        util.debug("worker exiting after %d tasks", completed)
    finally:
        if line.local:
            line.announce(News.LEFT)


def _seed(seed, number):
    """Random numbers that are this worker's own, and the same in each run."""
    import random

    random.seed((seed << 32) + number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        size = seed.bit_length() // 8 + 1
        numpy.random.seed([number, *seed.to_bytes(size, "little", signed=True)])


def _initialize(line, initializer, initargs, wrap_exception):
    if initializer is None:
        return
    try:
        initializer(*initargs)
    except Exception as exc:
        line.send_exception(News.UNFIT, exc, wrap_exception)
        if line.rules == Rules.POOL:
            raise
        import logging

        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        raise SystemExit(1)


_last_function = b"", None  # the last one that came as a pickle


def _function(data):
    global _last_function
    known, function = _last_function
    if data != known:
        function = pickle.loads(data)
        _last_function = data, function
    return function


def _work(how, func, args, kwds={}):  # noqa: B006
    if type(func) is bytes:
        func = _function(func)
    if how == How.CALL:
        return func(*args, **kwds)
    return list(map(func, args) if how == How.MAP else itertools.starmap(func, args))


def _serve(line, wrap_exception):
    """Work one task and tell what came of it.  False if there was none: the worker is to end.

    A function of its own, so that nothing of the task outlives it.
    """
    try:
        task = line.next_task()
    except KeyboardInterrupt:
        return False
    except Exception as exc:
        if line.rules == Rules.FRAGILE_EXECUTOR:
            raise
        line.send_exception(News.FAILED, exc, wrap_exception)
        return True
    if task is None:
        return False
    try:
        value = _work(*task)
    except SystemExit as exc:
        if not line.local and line.rules == Rules.POOL:
            raise
        line.send_exception(News.FAILED, exc, wrap_exception)
    except BaseException as exc:
        line.send_exception(News.FAILED, exc, wrap_exception)
    else:
        line.send_value(value)
    return True
