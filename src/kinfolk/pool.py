"""Pools: a number of workers, processes or threads, and functions applied by them.

This is the face: what is called, how arguments are checked, and which result is given back.  A call
becomes a `Job`, an iterator of tasks, that goes into `_taskqueue` together with the one to be told
how many there were; the engine (_pool_engine) takes it from there, and
brings outcomes to the result that waits under `job` in `_cache` (_pool_results).  Iterators are
consumed by the engine, a little ahead of the workers: a long `imap` never lies in memory as tasks.

A worker that dies fails the one task that it had, with `WorkerDied`, and another takes its place.
A task or result that cannot be pickled or unpickled fails that task alone.  If no worker can be
started, because the initializer raises each time, that exception is what every task fails with.

A pool is referred to by nobody but the program: its threads know the engine only, so that a pool
that was forgotten is collected, with a ResourceWarning, and its workers end.
"""

import itertools
import os
import queue
import threading
import warnings
import weakref

from . import TimeoutError, get_context, util  # noqa: F401 (the name TimeoutError is looked for here)
from ._kin import Job, processors
from ._pool_crew import ProcessCrew, ThreadCrew
from ._pool_engine import CLOSE, INIT, RUN, TERMINATE, Engine, pool_was_terminated
from ._pool_engine import reraise as _helper_reraises_exception
from ._pool_limits import CancelledError
from ._pool_progress import bar_for
from ._pool_results import (
    ApplyResult,
    AsyncResult,  # noqa: F401
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    job_counter,  # noqa: F401
)
from ._pool_stats import PoolStats, WorkerStats
from ._pool_worker import (  # noqa: F401
    ExceptionWithTraceback,
    How,
    MaybeEncodingError,
    RemoteTraceback,
    WorkerDied,
    mapstar,
    rebuild_exc,
    starmapstar,
    worker,
)

__all__ = ["CancelledError", "Pool", "PoolStats", "ThreadPool", "WorkerDied", "WorkerStats"]


class Pool:
    """A pool of `processes` worker processes (None: as many as this one may use processors).

    Each worker first calls `initializer(*initargs)`; after `maxtasksperchild` tasks it is replaced.
    Workers are started by `context`.  A task whose worker dies fails with WorkerDied, but is first
    tried again on others, up to `retries` times: it may then have been done in part, or wholly, more
    than once.  seed: an int by which the worker that was started as number i seeds `random`, and
    numpy's if that is imported, with (seed, i).  logs: what workers log goes to this process's loggers.
    ValueError or TypeError for arguments that cannot be.
    """

    _wrap_exception = True
    _crew = ProcessCrew

    @staticmethod
    def Process(ctx, *args, **kwds):
        return ctx.Process(*args, **kwds)

    def __init__(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        maxtasksperchild=None,
        context=None,
        *,
        retries=0,
        seed=None,
        logs=False,
    ):
        self._state = INIT
        self._pool = []
        self._cache = {}
        self._taskqueue = queue.SimpleQueue()
        # A signal handler may call the pool while its thread is in here: so it is recursive.
        self._gate = threading.RLock()
        self._ctx = context or get_context()
        self._processes = _checked_size(processes)
        self._maxtasksperchild = _checked_maxtasks(maxtasksperchild)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not isinstance(retries, int) or retries < 0:
            raise ValueError("retries must be a non-negative int")
        if seed is not None and not isinstance(seed, int):
            raise TypeError(f"seed must be an int or None, not {type(seed).__name__}")
        self._retries = retries
        self._seed = seed
        self._logs = self._make_logs() if logs else None
        self._initializer = initializer
        self._initargs = initargs
        self._engine = self._make_engine()
        self._engine.start()
        self._task_handler = self._engine.feeder
        self._result_handler = self._engine.collector
        self._worker_handler = self._engine.keeper
        args = (self._engine, weakref.ref(self))
        self._terminate = util.Finalize(self, _end_engine, args, exitpriority=15)
        self._state = RUN

    def _make_engine(self):
        worker_args = (
            self._initializer,
            self._initargs,
            self._maxtasksperchild,
            self._wrap_exception,
            self._seed,
            self._logs and self._logs.queue,
        )
        crew = self._crew(self._ctx, self.Process, *worker_args)
        return Engine(
            crew,
            self._processes,
            self._maxtasksperchild,
            self._cache,
            self._taskqueue,
            self._pool,
            self._retries,
            self._logs,
        )

    def _make_logs(self):
        from ._pool_logs import Listener

        return Listener(self._ctx.Queue())

    def __del__(self, _warn=warnings.warn, RUN=RUN):
        if self._state == RUN and self._is_ours():
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def __repr__(self):
        cls = type(self)
        return (
            f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(self._pool)}>"
        )

    def __reduce__(self):
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self):
        self._check_running()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        try:
            self.terminate()
        except KeyboardInterrupt:
            if not isinstance(exc_val, KeyboardInterrupt):
                raise
            self._engine.kill()  # a second ^C: it is on its way out, but now at once

    def apply(self, func, args=(), kwds={}, *, timeout=None):  # noqa: B006
        """`func(*args, **kwds)`, worked out by a worker.  timeout: as for `apply_async`."""
        return self.apply_async(func, args, kwds, timeout=timeout).get()

    def apply_async(
        self,
        func,
        args=(),
        kwds={},  # noqa: B006
        callback=None,
        error_callback=None,
        *,
        timeout=None,
    ):
        """An AsyncResult of `func(*args, **kwds)`.

        When it is there, `callback` is called with the value, or `error_callback` with the
        exception, in a thread of the pool: other results wait until they have returned.  After it
        was worked on for `timeout` seconds it fails with TimeoutError, and its worker is replaced.
        """
        _check_limit(timeout, self._crew)
        with self._gate:
            self._check_running()
            result = ApplyResult(self, callback, error_callback)
            if timeout is not None:
                self._engine.limit(result._job, timeout)
            self._engine.submit_one(result._job, func, args, kwds)
        self._engine.go_on()
        self._fail_if_terminated(result)
        return result

    def map(self, func, iterable, chunksize=None, *, timeout=None, progress=False):
        """The list of `func(x)` for each x of `iterable`; the first exception, if any, is raised.

        Tasks travel in chunks of `chunksize` (None: four chunks for each worker).  A chunk fails
        with TimeoutError, and its worker is replaced, when it was worked on for `timeout` seconds
        for each of its things.  progress: show a bar (of tqdm, which is to be installed); True, or
        a dict of arguments for it.
        """
        options = timeout, progress
        return self._map_async(func, iterable, How.MAP, chunksize, options=options).get()

    def map_async(
        self,
        func,
        iterable,
        chunksize=None,
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        progress=False,
    ):
        """An AsyncResult of what `map` returns; callbacks as for `apply_async`."""
        calls, options = (callback, error_callback), (timeout, progress)
        return self._map_async(func, iterable, How.MAP, chunksize, *calls, options=options)

    def starmap(self, func, iterable, chunksize=None, *, timeout=None, progress=False):
        """As `map`, with `func(*x)` for each x of `iterable`."""
        options = timeout, progress
        return self._map_async(func, iterable, How.STARMAP, chunksize, options=options).get()

    def starmap_async(
        self,
        func,
        iterable,
        chunksize=None,
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        progress=False,
    ):
        """An AsyncResult of what `starmap` returns; callbacks as for `apply_async`."""
        calls, options = (callback, error_callback), (timeout, progress)
        return self._map_async(func, iterable, How.STARMAP, chunksize, *calls, options=options)

    def imap(self, func, iterable, chunksize=1, *, timeout=None, progress=False):
        """An iterator over `func(x)` for each x of `iterable`, in order.

        `iterable` is taken from as workers get free.  With `chunksize` 1 the iterator has a method
        `next(timeout=None)` and goes on after an exception.  timeout, progress: as for `map`.
        """
        return self._imap(IMapIterator, func, iterable, chunksize, (timeout, progress))

    def imap_unordered(self, func, iterable, chunksize=1, *, timeout=None, progress=False):
        """As `imap`, each result as soon as it is there, whichever it is."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize, (timeout, progress))

    def resize(self, processes):
        """Have so many workers.  Those that are too many end when they have done what they have."""
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        with self._gate:
            self._check_running()
            self._processes = processes
        self._engine.resize(processes)

    def stats(self):
        """What has been done so far, and how long it took: a PoolStats."""
        return self._engine.stats()

    def close(self):
        """Take no more calls; the workers end when all that was called for is done."""
        util.debug("closing pool")
        with self._gate:
            if self._state == RUN:
                self._state = CLOSE
                self._engine.close()

    def terminate(self):
        """End the workers at once.  Results that are not there yet raise ProcessError."""
        util.debug("terminating pool")
        self._state = TERMINATE
        self._terminate()

    def join(self):
        """Wait until the workers have ended.  ValueError before `close()` or `terminate()`."""
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._engine.join()
        for process in self._pool:
            process.join()

    def _repopulate_pool(self):
        """Start workers until there are `_processes` of them, which a program may have changed."""
        self._engine.size = self._processes
        self._engine.hire()

    def _is_ours(self):
        return self._engine.is_ours()

    def _check_running(self):
        if self._state != RUN:
            raise ValueError("Pool not running")
        if not self._is_ours():
            raise ValueError(
                f"Pool not running in this process, but in process {self._engine.owner}"
            )

    def _submit(self, make_result, func, iterable, how, size, options):
        timeout, progress = options
        _check_limit(timeout, self._crew)
        with self._gate:
            self._check_running()
            bar = bar_for(progress, iterable)
            result = make_result()
            result._show_on(bar, size)
            if timeout is not None:
                self._engine.limit(result._job, timeout * size)
            job = Job(result._job, func, iterable, how, size, not self._crew.local)
            self._engine.submit(job, result._set_length)
        self._fail_if_terminated(result)
        return result

    def _fail_if_terminated(self, result):
        if self._state == TERMINATE:
            # Too late, perhaps, for terminate() to have seen it.
            result._fail(pool_was_terminated(), tell=False)

    def _map_async(
        self,
        func,
        iterable,
        how,
        chunksize=None,
        callback=None,
        error_callback=None,
        options=(None, False),
    ):
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        length = len(iterable)
        if chunksize is None:
            chunksize = -(-length // (4 * (len(self._pool) or self._processes)))
        if not length:
            chunksize = 0

        def make_result():
            return MapResult(self, chunksize, length, callback, error_callback)

        return self._submit(make_result, func, iterable, how, chunksize, options)

    def _imap(self, kind, func, iterable, chunksize, options):
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")

        def make_result():
            return kind(self)

        if chunksize == 1:
            return self._submit(make_result, func, iterable, How.CALL, 1, options)
        chunks = self._submit(make_result, func, iterable, How.MAP, chunksize, options)
        return (item for chunk in chunks for item in chunk)

    @staticmethod
    def _guarded_task_generation(result_job, func, iterable):
        """Tasks as the standard library writes them down, for programs that add methods to Pool.

        If the iterable raises, the last one stands for that.
        """
        i = -1
        try:
            for i, x in enumerate(iterable):
                yield result_job, i, func, (x,), {}
                del x  # the next one may be long in coming
        except GeneratorExit:
            raise
        except BaseException as exc:
            yield result_job, i + 1, _helper_reraises_exception, (exc,), {}

    @staticmethod
    def _get_tasks(func, it, size):
        it = iter(it)
        while chunk := tuple(itertools.islice(it, size)):
            yield func, chunk


class ThreadPool(Pool):
    """A pool whose workers are threads of this process: nothing is pickled, none can be killed."""

    _wrap_exception = False
    _crew = ThreadCrew

    @staticmethod
    def Process(ctx, *args, **kwds):
        from .dummy import Process

        return Process(*args, **kwds)

    def __init__(self, processes=None, initializer=None, initargs=()):
        super().__init__(processes, initializer, initargs)


def _checked_size(processes):
    if processes is None:
        return _usable_processors()
    if processes < 1:
        raise ValueError("Number of processes must be at least 1")
    return processes


def _usable_processors():
    count = (
        getattr(os, "process_cpu_count", os.cpu_count)() or 1
    )  # a program may have been told less
    return min(count, processors())


def _checked_maxtasks(maxtasks):
    if maxtasks is not None and (not isinstance(maxtasks, int) or maxtasks <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    return maxtasks


def _check_limit(timeout, crew):
    if timeout is None:
        return
    if crew.local:
        raise ValueError("a thread cannot be ended: timeout is for pools of processes")
    if not timeout > 0:
        raise ValueError(f"timeout must be positive, not {timeout!r}")


def _end_engine(engine, pool):
    if pool() is None:
        # It is being collected, who knows in the midst of what: nothing may be waited for here.
        engine.hang_up()
    else:
        engine.terminate()
