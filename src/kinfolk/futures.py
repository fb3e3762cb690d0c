"""`ProcessPoolExecutor`: concurrent.futures' API over the engine of the pool.

A call is a job of one task (_pool_engine), and its Future the result that waits for it under the job's
number.  The rules are those of the standard library: a worker that ends otherwise than by being sent
home breaks the pool, and all that is not done fails with BrokenProcessPool.  With `isolate` or
`retries` a death costs its one task, or not even that.

Nothing refers to an executor but the program: if it is forgotten, what was submitted is done, and the
workers go.
"""

import collections
import concurrent.futures
import itertools
import queue
import sys
import threading
import time
import weakref

from . import get_context
from ._pool_crew import ProcessCrew
from ._pool_engine import Engine, obituary
from ._pool_results import in_stretches, job_counter
from ._pool_worker import RemoteTraceback, Rules, WorkerDied, starmapstar
from .pool import Pool, _usable_processors

__all__ = ["ProcessPoolExecutor", "WorkerDied"]


def __getattr__(name):
    if name == "BrokenProcessPool":
        return _broken_process_pool()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _broken_process_pool():
    """The standard library's class, which programs catch.

    With its module comes the standard library's multiprocessing: so not before it is needed.
    """
    from concurrent.futures.process import BrokenProcessPool

    return BrokenProcessPool


def _with_their_traceback(exc):
    """`exc` with a cause of the standard library's type, if the program can know that."""
    theirs = getattr(sys.modules.get("concurrent.futures.process"), "_RemoteTraceback", None)
    if theirs is not None and type(exc.__cause__) is RemoteTraceback:
        exc.__cause__ = theirs(exc.__cause__.tb)
    return exc


class Future(concurrent.futures.Future):
    """A concurrent.futures.Future whose call can be cancelled as long as no worker has begun it."""

    def __init__(self, engine):
        super().__init__()
        self._job = next(job_counter)
        self._engine = engine
        engine._jobs[self._job] = self

    def cancel(self):
        """Take the call back.  False if a worker has begun it, or it is done."""
        engine = self._engine
        if engine is None or not engine.withdraw(self._job):
            return self.cancelled()
        if engine._jobs.pop(self._job, None) is None:
            return self.cancelled()
        self._engine = None
        super().cancel()
        self.set_running_or_notify_cancel()
        engine._stop_if_done()
        return True

    def running(self):
        """Whether a worker has begun the call, as far as is known, and it is not done."""
        engine = self._engine
        return engine is not None and engine.is_worked_on(self._job)

    def result(self, timeout=None):
        """What the call returned, once it is there; what it raised is raised here.

        concurrent.futures.TimeoutError if it is not there after `timeout` seconds.
        """
        if timeout is None:
            in_stretches(self._wait, None)
        return super().result(timeout)

    def exception(self, timeout=None):
        """What the call raised, once it has ended, or None.  timeout: as for `result`."""
        if timeout is None:
            in_stretches(self._wait, None)
        return super().exception(timeout)

    def _wait(self, seconds):
        with self._condition:
            return self._condition.wait_for(self.done, seconds)

    # What the engine says, see _pool_results.

    def _set_many(self, outcomes):
        for _, (success, value) in outcomes:
            self._finish(success, value)

    def _fail(self, exc, tell=True):
        cls = _broken_process_pool()
        broken = cls(*exc.args)
        broken.__cause__ = exc.__cause__ if isinstance(exc, cls) else exc
        self._finish(False, broken)

    def _finish(self, success, value):
        engine = self._engine
        if engine is None or engine._jobs.pop(self._job, None) is None:
            return
        self._engine = None
        if success:
            self.set_result(value)
        else:
            self.set_exception(_with_their_traceback(value))


class CallEngine(Engine):
    """An engine of single calls, which a worker's death breaks unless it is `isolated`."""

    def __init__(self, *args, isolated, **options):
        super().__init__(*args, **options)
        self._isolated = isolated

    def withdraw(self, job):
        """Take back the task of this job, if no worker has begun it.  Was that so?"""
        while True:
            with self._lock:
                if self._take_out(job):
                    return True
                seat = self._seat_of(job)
                if seat is None or seat.tickets[0].job == job:
                    return False
                is_free = not seat.giving
                if is_free:
                    seat.giving = True
                    self._make_sated(seat)
            if not is_free:
                time.sleep(0)  # somebody is at its line, for some microseconds
                continue
            count = seat.line.tasks._take_back()
            with self._lock:
                self._return_last(seat, count)
                found = self._take_out(job)
            self._be_done_with(seat)
            self._dispatch()
            return found

    def is_worked_on(self, job):
        with self._lock:
            seat = self._seat_of(job)
            return seat is not None and seat.tickets[0].job == job

    def _take_out(self, job):
        for ticket in list(self._ready):
            if ticket.job == job:
                self._ready.remove(ticket)
                return True
        return False

    def _seat_of(self, job):
        for seat in self._seats.values():
            if any(ticket.job == job for ticket in seat.tickets):
                return seat
        return None

    def _collect(self):
        super()._collect()
        self._outbox.close()

    def _open_many(self, seat, count):
        outcomes = super()._open_many(seat, count)
        bad = next((value for success, value in outcomes if not success), None)
        if bad is not None and not self._isolated:
            self._break(bad)  # a result that does not unpickle here
        return outcomes

    def _mourn(self, seat):
        went_home = seat.up and seat.process.exitcode == 0 and not seat.tickets
        if not (went_home or self._isolated or self._is_over()):
            short = self._is_short_of_memory(seat)
            self._break(seat.excuse or obituary(seat, "in an executor that is not isolated", short))
        super()._mourn(seat)

    def _break(self, exc):
        broken = _broken_process_pool()(
            "A process in the process pool was terminated abruptly "
            f"while the future was running or pending: {exc}"
        )
        broken.__cause__ = exc
        super()._break(broken)
        self.hang_up()


_executors = weakref.WeakSet()  # those that have been used
_engines = weakref.WeakSet()  # theirs, and those of executors that were forgotten


def _finish_all():
    """At the end of the program: what was submitted is done first, as the standard library has it."""
    for executor in list(_executors):
        executor.shutdown(wait=False)
    for engine in list(_engines):
        if engine.is_ours():
            engine.join()


if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_finish_all)
else:
    import atexit

    atexit.register(_finish_all)


class ProcessPoolExecutor(concurrent.futures.Executor):
    """Calls functions in up to `max_workers` processes (None: as many as there are processors to use).

    They are started by `mp_context` as they are needed, by fork all at the first call, and each first
    calls `initializer(*initargs)`; after `max_tasks_per_child` calls it is replaced.

    isolate: a worker's death fails the one call that it had, with WorkerDied, and the pool goes on;
    else all that is not done fails with BrokenProcessPool.  retries: how often the call of a worker
    that died is tried again on others; implies `isolate`.  ValueError or TypeError for arguments that
    cannot be.
    """

    def __init__(
        self,
        max_workers=None,
        mp_context=None,
        initializer=None,
        initargs=(),
        *,
        max_tasks_per_child=None,
        isolate=False,
        retries=0,
    ):
        if max_workers is None:
            max_workers = _usable_processors()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        if not isinstance(retries, int) or retries < 0:
            raise ValueError("retries must be a non-negative int")
        if mp_context is None:
            mp_context = get_context(None if max_tasks_per_child is None else "spawn")
        self._is_fork = mp_context.get_start_method(allow_none=False) == "fork"
        if max_tasks_per_child is not None and self._is_fork:
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
                "supply a different mp_context."
            )
        self._mp_context = mp_context
        self._max_workers = max_workers
        self._initializer = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._isolated = bool(isolate or retries)
        self._retries = retries
        self._workers = []
        self._engine = None
        self._is_shut = False
        self._gate = threading.RLock()

    # Names of the standard library's, for programs and tests that look at them.

    @property
    def _processes(self):
        if self._engine is None:
            return {}
        with self._engine._hiring:  # one that is being started may have answered already
            return {process.pid: process for process in list(self._workers)}

    @property
    def _broken(self):
        return self._engine is not None and self._engine._broken or False

    @property
    def _executor_manager_thread(self):
        return self._engine and self._engine.collector  # it ends last

    @property
    def _call_queue(self):
        return self._engine and self._engine._outbox

    def submit(self, fn, /, *args, **kwargs):
        """A Future of `fn(*args, **kwargs)`.

        RuntimeError after `shutdown()`, BrokenProcessPool when a worker's death has broken the pool.
        """
        with self._gate:
            engine = self._engine_for_one_more()
            future = Future(engine)
            try:
                engine.submit_one(future._job, fn, args, kwargs)
            except BaseException:
                engine._jobs.pop(future._job, None)
                raise
        engine.go_on()
        if engine._terminated:
            future._fail(engine._broken or RuntimeError("the executor was terminated"))
        return future

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """An iterator over `fn(*each)` for each of `zip(*iterables)`, in order.

        All is submitted at once, `chunksize` of them as one call; with `buffersize` no more than
        that many calls ahead of what is taken.  What one raised is raised in its place, and ends
        the iterator; TimeoutError if a result is not there `timeout` seconds after this call.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        if chunksize == 1:
            calls = ((fn, *each) for each in zip(*iterables))
        else:
            tasks = Pool._get_tasks(fn, zip(*iterables), chunksize)
            calls = ((starmapstar, task) for task in tasks)
        ahead = itertools.islice(calls, buffersize)
        futures = collections.deque(self.submit(*call) for call in ahead)
        results = _results(weakref.ref(self), calls, futures, deadline)
        return results if chunksize == 1 else itertools.chain.from_iterable(results)

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Take no more calls; the workers go when what was submitted is done.

        cancel_futures: what no worker has begun is cancelled.  wait: return when the workers have gone.
        """
        with self._gate:
            was_shut, self._is_shut = self._is_shut, True
            engine = self._engine
        if engine is None or not engine.is_ours():
            return
        if cancel_futures:
            # The first, one for each worker, are begun or about to be.
            for future in list(engine._jobs.values())[engine.size :]:
                future.cancel()
        if not was_shut:
            engine.close()
        if wait and threading.current_thread() not in engine.threads():
            engine.join()

    def terminate_workers(self):
        """End the workers by SIGTERM.

        What they had fails with BrokenProcessPool, the rest is cancelled.
        """
        self._end_workers("terminate")

    def kill_workers(self):
        """End the workers by SIGKILL.  Otherwise as `terminate_workers`."""
        self._end_workers("kill")

    def _end_workers(self, how):
        self.shutdown(wait=False, cancel_futures=True)
        if self._engine is not None and self._engine.is_ours():
            for process in list(self._workers):
                getattr(process, how)()
            self._engine.hang_up()

    def _engine_for_one_more(self):
        """The engine, with workers for one call more than there are, if it may have so many."""
        engine = self._engine
        if engine is not None and engine._broken:
            raise type(engine._broken)(*engine._broken.args) from engine._broken.__cause__
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if engine is None:
            engine = self._make_engine()
            try:
                engine.start()
            except RuntimeError as exc:  # no thread, at the end of the program perhaps
                words = f"the process pool could not be started: {exc}"
                raise _broken_process_pool()(words) from exc
            self._engine = engine
            _executors.add(self)
            _engines.add(engine)
            weakref.finalize(self, engine.close).atexit = False
        elif not engine.is_ours():
            raise RuntimeError(
                f"cannot schedule new futures: the executor is process {engine.owner}'s"
            )
        elif engine.size < self._max_workers and engine.size <= len(engine._jobs):
            engine.size += 1
            engine.hire()
        return engine

    def _make_engine(self):
        rules = Rules.EXECUTOR if self._isolated else Rules.FRAGILE_EXECUTOR
        tasks = self._max_tasks_per_child
        args = self._initializer, self._initargs, tasks, True, None, None, rules
        return CallEngine(
            ProcessCrew(self._mp_context, Pool.Process, *args),
            self._max_workers if self._is_fork else 1,
            tasks,
            {},
            queue.SimpleQueue(),
            self._workers,
            self._retries,
            isolated=self._isolated,
        )


def _results(executor, calls, futures, deadline):
    try:
        while futures:
            left = None if deadline is None else deadline - time.monotonic()
            futures[0].exception(left)  # waits
            self = executor()
            call = None if self is None else next(calls, None)
            if call is not None:
                futures.append(self.submit(*call))
            del self, call
            yield futures.popleft().result()  # and nobody here has it then
    finally:
        for future in futures:
            future.cancel()
