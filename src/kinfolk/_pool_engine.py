"""The engine of a Pool: who works on what, what came of it, and what happens when a worker dies.

The face (pool.py) puts `(tasks, set_length)` into a queue: an iterator of `(job, i, func, args,
kwds)`, and whom to tell how many there were.  Three threads of the parent do the rest:

    feeder     takes tasks off the iterators, a few more than there are workers to take them
    collector  hears the workers: gives a free one its next task, hands outcomes to the results
    keeper     waits for workers to end: buries them, starts others, and in the end ends them all

Each worker has a `Seat`: its process, its line of queues, and the ticket of the one task that it
has.  So the parent knows at all times which worker has which task, and a death costs exactly that
one.  All that happens to a worker reaches the collector through one queue, the outbox: the keeper,
too, announces a death there, behind everything that the worker had said while it lived.

Invariants:
  * a seat is in `seats` from before its worker is started until its death came through the outbox;
  * a seat is in `idle` only while its worker lives and has no task;
  * a ticket is in `ready`, or on one seat, or settled; and settled once, with its outcome or with
    the reason why there will be none;
  * `lock` is held for a few lines, and never while others' code runs (iterators, pickling,
    callbacks).

The garbage collector may end a pool at any moment, in any thread: `hang_up` takes no lock.
"""

import collections
import itertools
import os
import signal
import threading
import time

from . import util
from ._pool_crew import Bell, Seat, Ticket
from ._pool_results import report
from ._pool_worker import Line, MaybeEncodingError, News, RemoteTraceback, WorkerDied
from .context import ProcessError

__all__ = ["Engine"]

# The states of a pool.
INIT = "INIT"
RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"

# Seconds that a worker has to end after SIGTERM; then it is killed.
_GRACE = 5.0
# Seconds before what the system refused (a start, memory for a message) is tried again,
_PAUSE = 0.2
# and how often.
_TRIES = 50
# How many workers may be killed while they start, for one that fails by itself.
_BAD_LUCK = 10
# How many tasks for each worker are made ahead of their time.
_AHEAD = 4
# How often a task goes to another worker because the last one died before touching it.
_MAX_RETURNS = 3


def reraise(exc):
    """Stands for a task that could not be made, because the iterable raised.  Never called."""
    raise exc


def pool_was_terminated():
    return ProcessError("the pool was terminated before this was done")


class Engine:
    """Runs what comes through `taskqueue` on `size` workers of `crew`.

    `jobs` is the pool's table of unfinished results by job, `processes` its list of workers.
    """

    def __init__(self, crew, size, maxtasks, jobs, taskqueue, processes):
        self.size = size
        self.owner = os.getpid()
        self._crew = crew
        self._maxtasks = maxtasks
        self._jobs = jobs
        self._taskqueue = taskqueue
        self._processes = processes
        self._outbox = crew.make_queue()
        self._keys = itertools.count()
        self._seats = {}
        self._idle = collections.deque()
        self._ready = collections.deque()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._hiring = threading.Lock()
        self._bell = Bell()
        self._terminated = False
        self._fed = False  # the pool is closed, and the feeder has fed all there was
        self._stopping = False  # and all of that is done: the workers go home
        self._failed_starts = 0  # in a row, by weight
        self._broken = None  # why there can be no worker any more
        self.feeder = self._make_thread(self._feed)
        self.collector = self._make_thread(self._collect)
        self.keeper = self._make_thread(self._keep)

    def _make_thread(self, part):
        return threading.Thread(target=self._run, args=(part,), daemon=True)

    def _run(self, part):
        try:
            part()
        except BaseException as exc:
            # Without one of its threads the engine is lost; whoever waits for it shall know.
            self._break(exc)
            raise

    def start(self):
        """Start workers and threads.  What starting one raises is raised, and none is left."""
        try:
            self.hire()
        except BaseException:
            self._terminated = True
            self._dismiss()
            raise
        for thread in (self.feeder, self.collector, self.keeper):
            thread.start()

    def close(self):
        """Let the workers go once all that is in `taskqueue` is done."""
        self._taskqueue.put(None)

    def hang_up(self):
        """End the workers soon; what is not done by then fails."""
        if os.getpid() == self.owner:
            self._terminated = True
            self._bell.ring()

    def terminate(self):
        """End the workers, and wait until they have ended, unless a thread of the engine asks."""
        self.hang_up()
        if os.getpid() == self.owner and threading.current_thread() not in self.threads():
            self.keeper.join()

    def join(self):
        """Wait until workers and threads have ended, once the pool is closed or terminated."""
        self.keeper.join()
        # After terminate() others' code may keep a thread for ever, in an iterator or a callback.
        patience = _GRACE if self._terminated else None
        self.feeder.join(patience)
        self.collector.join(patience)

    def threads(self):
        return self.feeder, self.collector, self.keeper

    def _is_over(self):
        return self._terminated or self._stopping

    # The feeder.

    def _feed(self):
        for tasks, set_length in iter(self._taskqueue.get, None):
            try:
                self._feed_job(tasks, set_length)
            except Exception as exc:
                report(exc)
            del tasks, set_length
            if self._terminated:
                return
        with self._lock:
            self._fed = True
        self._stop_if_done()

    def _feed_job(self, tasks, set_length):
        count = 0
        packing = self._crew.make_packing()
        for job, index, func, args, kwds in tasks:
            if self._terminated or job not in self._jobs:
                return
            count = index + 1
            if func is reraise:
                self._settle(job, index, (False, args[0]))
            else:
                self._admit(Ticket(job, index, func, args, kwds, packing))
            del func, args, kwds
        if set_length:
            set_length(count)

    def _admit(self, ticket):
        """Make the ticket ready, when not too many others are."""
        with self._room:
            if len(self._ready) >= _AHEAD * self.size:
                self._room.wait_for(self._wants_tickets)
            if not self._broken:
                self._ready.append(ticket)
            if self._failed_starts > self._patience() and not self._seats:
                # Bad luck with what was there before; what comes now gets a try of its own.
                self._failed_starts = 0
                self._bell.ring()
        if self._broken:
            self._fail_jobs(self._broken)
        self._dispatch()

    def _wants_tickets(self):
        # Not one by one: each time costs a change of threads.
        return len(self._ready) <= self.size or self._broken or self._terminated

    def _dispatch(self):
        """Give tasks to workers, as long as there are both."""
        while True:
            with self._lock:
                if not self._ready or not self._idle or self._is_over():
                    return
                seat = self._idle.popleft()
                seat.ticket = seat.putting = ticket = self._ready.popleft()
                if self._wants_tickets():
                    self._room.notify()
            self._give(seat, ticket)
            seat = ticket = None

    def _give(self, seat, ticket):
        refusal = None
        try:
            seat.line.tasks.put(ticket.task())
        except BaseException as exc:
            refusal = _explained(exc, ticket)
        with self._lock:
            if seat.putting is not ticket:
                return  # the worker was quicker: its outcome has been heard
            seat.putting = None
            if refusal is not None:
                seat.ticket = None
                if not seat.dead:
                    self._idle.appendleft(seat)
        if refusal is not None:
            self._settle(ticket.job, ticket.index, (False, refusal))
        if seat.dead:
            self._bereave(seat)

    # The collector.

    def _collect(self):
        while True:
            key, news, detail = self._outbox.get()
            if news == News.STOP:
                break
            if not self._terminated:
                self._hear(self._seats[key], news, detail)
        # The pool may be kept for long; the lines to its workers need not.
        for collection in (self._seats, self._idle, self._ready):
            collection.clear()

    def _hear(self, seat, news, detail):
        if news in (News.DONE, News.FAILED):
            self._conclude(seat, self._open(seat, news, detail))
        elif news == News.READY:
            self._welcome(seat)
        elif news == News.UNFIT:
            seat.excuse = self._open(seat, news, detail)[1]
        elif news == News.LEFT:
            seat.leaving = True
            self._bell.ring()
        elif news == News.DIED:
            self._mourn(seat)

    def _open(self, seat, news, text):
        """The outcome that `news` announced; one that does not unpickle has a stand-in."""
        try:
            return news == News.DONE, seat.line.values.get()
        except BaseException as exc:
            return False, _stand_in(exc, text)

    def _welcome(self, seat):
        with self._lock:
            seat.up = True
            had_failures, self._failed_starts = self._failed_starts, 0
            self._idle.append(seat)
        if had_failures:
            self._bell.ring()  # the keeper may have given up
        self._dispatch()

    def _conclude(self, seat, outcome):
        """The worker is through with its task: give it another, then hand out what came of this."""
        with self._lock:
            ticket, seat.ticket, seat.putting = seat.ticket, None, None
            if ticket is not None:
                self._count_task(seat)
        if ticket is None:
            # It answers what it was not asked: its end of the line is torn, so it cannot stay.
            seat.process.terminate()
            return
        self._dispatch()
        self._settle(ticket.job, ticket.index, outcome)
        self._stop_if_done()

    def _count_task(self, seat):
        if seat.left is not None:
            seat.left -= 1
        if seat.left != 0:
            self._idle.append(seat)

    def _settle(self, job, index, outcome):
        result = self._jobs.get(job)
        if result is None:
            return
        try:
            result._set(index, outcome)
        except BaseException as exc:
            report(exc)

    def _mourn(self, seat):
        """The worker has ended, and all that it said has been heard."""
        with self._lock:
            seat.dead = True
            del self._seats[seat.line.key]
            if seat in self._idle:
                self._idle.remove(seat)
            if seat.up:
                self._failed_starts = 0
            to_come = seat.putting is not None
        if not seat.up:
            died = _obituary(seat, "while it was being started")
            self._count_failed_start(seat.excuse or died, by_itself=not died.signal)
        if not to_come:
            self._bereave(seat)
        self._bell.ring()

    def _bereave(self, seat):
        """See to the task of a dead worker: it goes to another if this one never touched it."""
        with self._lock:
            ticket, seat.ticket = seat.ticket, None
        if ticket is None:
            return
        if ticket.returns < _MAX_RETURNS and not seat.line.tasks.empty():
            ticket.returns += 1
            with self._lock:
                self._ready.appendleft(ticket)
            self._dispatch()
            return
        died = _obituary(seat, f"while it worked on {ticket}")
        self._settle(ticket.job, ticket.index, (False, died))
        self._stop_if_done()

    def _stop_if_done(self):
        with self._lock:
            if not self._fed or self._jobs or self._is_over():
                return
            self._stopping = True
            seats = list(self._seats.values())
        for seat in seats:
            self._send_home(seat)
        self._bell.ring()

    def _send_home(self, seat):
        try:
            seat.line.tasks.put(None)
        except Exception:
            seat.process.terminate()

    # The keeper.

    def _keep(self):
        try:
            self._watch()
        finally:
            self._dismiss()
            self._bell.close()
            self._post(None, News.STOP)

    def _watch(self):
        while not self._terminated and (self._seats or not self._stopping):
            pause = self._replace()
            seats = list(self._seats.values())
            alive = [seat for seat in seats if seat.process and not seat.buried]
            ended = self._crew.wait(alive, self._bell, pause)
            for seat in ended:
                self._bury(seat)
            seats = alive = ended = seat = None

    def _replace(self):
        """Start what workers are missing.  Seconds until it should be tried again, or None."""
        try:
            self.hire()
        except Exception as exc:
            util.info("pool could not start a worker: %r", exc)
            self._count_failed_start(exc, by_itself=not isinstance(exc, OSError))
            return _PAUSE
        return None

    def hire(self):
        """Start workers until there are `size`; what starting one raises is raised.

        Too many in a row that ended while they started end the hiring (see _count_failed_start).
        """
        with self._hiring:
            while self._is_short_handed():
                self._hire_one()

    def _is_short_handed(self):
        if self._is_over() or self._broken or self._failed_starts > self._patience():
            return False
        return len(self._seats) < self.size

    def _hire_one(self):
        crew = self._crew
        key, tasks, values = next(self._keys), crew.make_queue(), crew.make_queue()
        line = Line(key, tasks, values, self._outbox, crew.local)
        seat = Seat(line, self._maxtasks)
        with self._lock:
            if self._is_over():
                return
            self._seats[key] = seat
        try:
            seat.process = crew.start(line)
        except BaseException:
            del self._seats[key]
            raise
        self._processes.append(seat.process)

    def _count_failed_start(self, exc, by_itself):
        """No worker came of a start, because of `exc`.  Too many such in a row, and there are tears.

        A worker that fails by itself will do so again: when a generation and one more have, the pool
        is broken.  One that was killed, or that the system refused, may have had bad luck: a few
        generations are tried, then only what waits for them fails.
        """
        with self._lock:
            self._failed_starts += _BAD_LUCK if by_itself else 1
            if self._failed_starts <= self._patience() or self._seats or self._is_over():
                return
        if by_itself:
            self._break(exc)
        else:
            self._give_up(exc)

    def _patience(self):
        return _BAD_LUCK * self.size

    def _break(self, exc):
        """There will be no worker: fail everything with `exc`, now and from now on."""
        self._broken = exc
        self._give_up(exc)

    def _give_up(self, exc):
        """Fail everything that waits for a worker with `exc`."""
        with self._room:
            self._ready.clear()
            self._room.notify_all()
        self._fail_jobs(exc)
        self._stop_if_done()

    def _fail_jobs(self, exc, tell=True):
        for result in list(self._jobs.values()):
            result._fail(exc, tell)

    def _bury(self, seat):
        seat.process.join(1)
        if seat.process.exitcode is None:
            return  # not quite: it will be found here again
        util.debug("cleaning up worker %s", seat.process.ident)
        seat.buried = True
        if not self._stopping and seat.process in self._processes:
            self._processes.remove(seat.process)
        self._post(seat.line.key, News.DIED)

    def _post(self, key, news):
        """Put into the outbox; when memory is short, wait a while for others to make room."""
        for _ in range(_TRIES):
            try:
                self._outbox.put((key, news, None))
            except MemoryError:
                time.sleep(_PAUSE)
            else:
                return
        raise MemoryError("no memory to announce the end of a worker")

    def _dismiss(self):
        """End all workers that there still are, and fail what is not done."""
        with self._hiring:
            seats = [seat for seat in self._seats.values() if seat.process]
        if self._crew.local:
            for seat in seats:
                self._send_home(seat)
        else:
            _end([seat.process for seat in seats])
        self._fail_jobs(pool_was_terminated(), tell=False)
        with self._room:
            self._room.notify_all()
        self._taskqueue.put(None)


def _end(processes):
    util.debug("terminating workers")
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


def _explained(exc, ticket):
    """`exc`, which kept a task from being sent, with a path that begins at what the user gave."""
    from ._culprit import rename

    return rename(exc, {"func": ticket.func, "args": ticket.args, "kwds": ticket.kwds})


def _stand_in(exc, text):
    """What stands for an outcome that `exc` kept from being rebuilt here; `text`: its traceback."""
    stand_in = MaybeEncodingError(exc, None)
    stand_in.value = "a result that cannot be unpickled here"
    stand_in.__cause__ = exc
    if text:
        stand_in.value = text.strip('"\n').rpartition("\n")[2]
        stand_in.__cause__ = RemoteTraceback(text)
    return stand_in


def _obituary(seat, when):
    """The WorkerDied for the worker that had this seat."""
    pid, exitcode = seat.process.ident, seat.process.exitcode
    name = None
    cause = f"exited with code {exitcode}"
    if exitcode < 0:
        name = _signal_name(-exitcode)
        cause = f"was killed by {name}"
    return WorkerDied(f"worker {pid} {cause} {when}", pid=pid, exitcode=exitcode, signal=name)


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
