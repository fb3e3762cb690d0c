"""The engine of a Pool: who works on what, what came of it, and what happens when a worker dies.

The face (pool.py) puts `(job, set_length)` into a queue: a Job, which makes tickets of an iterable
(or an iterator of `(job, i, func, args, kwds)`), and whom to tell how many there were.  Three
threads of the parent do the rest:

    feeder     takes tasks off the iterators, a few more than there are workers to take them
    collector  hears the workers: gives a free one its next task, hands outcomes to the results
    keeper     waits for workers to end: buries them, starts others, and in the end ends them all

Each worker has a `Seat`: its process, its line of queues, and the tickets of the tasks that it was
given, in order. It works on the first; the others lie in its line, a few milliseconds of work, so
that it need not wait for the parent. Those that it has not begun can be taken out of the line
again: when it dies, and when another worker has nothing to do. So the parent knows at all times
which worker has which task, and a death costs exactly the one that was worked on. All that happens
to a worker reaches the collector through one queue, the outbox: the keeper, too, announces a death
there, behind everything that the worker had said while it lived.

Invariants:
  * a seat is in `seats` from before its worker is started until its death came through the outbox;
  * a seat is in `hungry` only while its worker lives and could do with more tickets; those that have
    none come first;
  * `seat.giving` is set by the one that puts into its line or takes out of it, and by nobody else
    meanwhile; so the last tickets of the seat are those in the line;
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
from ._kin import Job, Ticket, by_job, make_ticket, oom_kills
from ._pool_crew import Bell, Seat, ticket_of, title
from ._pool_last_words import LastWords
from ._pool_limits import Limits
from ._pool_results import in_stretches, report
from ._pool_stats import Clock
from ._pool_worker import How, Line, MaybeEncodingError, News, RemoteTraceback, WorkerDied
from .context import ProcessError

__all__ = ["Engine", "obituary"]

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
# How many seconds' worth of tasks a worker is given ahead, and how many at the most: no more than a
# line can be emptied of in one step (Queue._take_back).  Much longer than it takes to give it others;
# much shorter than anybody would notice.
_WORK_AHEAD = 0.006
_DEEPEST = 120
# By what part of that it is worth to give something at all.
_FEW = 4
# How many times that for each worker is made ahead of its time.
_AHEAD = 4
# How often a task goes to another worker because the last one died before touching it.
_MAX_RETURNS = 3


_task_of = Ticket.task

_forks = itertools.count(1)
_process = 0  # which one of a line of forks this is: cheaper to ask for than its number


def _note_fork():
    global _process
    _process = next(_forks)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def reraise(exc):
    """Stands for a task that could not be made, because the iterable raised.  Never called."""
    raise exc


def pool_was_terminated():
    return ProcessError("the pool was terminated before this was done")


class Engine(Limits):
    """Runs what comes through `taskqueue` on `size` workers of `crew`.

    `jobs` is the pool's table of unfinished results by job, `processes` its list of workers.
    A task whose worker died goes to another one, up to `retries` times.
    """

    def __init__(self, crew, size, maxtasks, jobs, taskqueue, processes, retries=0, logs=None):
        super().__init__()
        self.size = size
        self.retries = retries
        self.owner = os.getpid()
        self._process = _process
        self._crew = crew
        self._logs = logs
        self._oom_kills = 0 if crew.local else oom_kills()
        self._maxtasks = maxtasks
        self._jobs = jobs
        self._taskqueue = taskqueue
        self._processes = processes
        self._outbox = crew.make_queue()
        self._keys = itertools.count()
        self._seats = {}
        self._hungry = collections.deque()
        self._ready = collections.deque()
        self._unfed = 0  # jobs that the feeder is not through with
        self._pace = _WORK_AHEAD  # seconds that a task takes of late
        self._depth = 1  # how many tickets a worker may have
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._hiring = threading.Lock()
        self._bell = Bell()
        self._clock = Clock()
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
            if self._logs:
                self._logs.start()
            for thread in self.threads():
                thread.start()
        except BaseException:
            self._terminated = True
            self._dismiss()
            self._post(None, News.STOP)
            raise

    def close(self):
        """Let the workers go once all that is in `taskqueue` is done."""
        self._taskqueue.put(None)

    def hang_up(self):
        """End the workers soon; what is not done by then fails."""
        if self.is_ours():
            self._terminated = True
            self._bell.ring()

    def terminate(self):
        """End the workers, and wait until they have ended, unless a thread of the engine asks."""
        self.hang_up()
        if self.is_ours() and threading.current_thread() not in self.threads():
            in_stretches(self._has_ended, None)

    def kill(self):
        """End the workers at once, whatever they do about being told to."""
        self.hang_up()
        if self.is_ours() and not self._crew.local:
            for seat in list(self._seats.values()):
                if seat.process:
                    seat.process.kill()

    def join(self):
        """Wait until workers and threads have ended, once the pool is closed or terminated."""
        in_stretches(self._has_ended, None)
        # After terminate() others' code may keep a thread for ever, in an iterator or a callback.
        patience = _GRACE if self._terminated else None
        self.feeder.join(patience)
        self.collector.join(patience)

    def _has_ended(self, seconds):
        self.keeper.join(seconds)
        return not self.keeper.is_alive()

    def is_ours(self):
        """Is this the process that has the pool?"""
        return self._process == _process

    def stats(self):
        """A PoolStats."""
        with self._lock:
            return self._clock.stats(list(self._seats.values()), time.perf_counter())

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
            with self._lock:
                self._unfed -= 1
            if self._terminated:
                return
        with self._lock:
            self._fed = True
        self._stop_if_done()

    def _feed_job(self, tasks, set_length):
        if isinstance(tasks, Job):
            count = self._feed_tickets(tasks)
        else:
            count = self._feed_foreign(tasks)
        if set_length and count is not None:
            set_length(count)

    def _feed_tickets(self, job):
        """Make a job's tickets ready.  How many that were; None if nobody wants them any more."""
        append = self._ready.append
        while not self._terminated and job.number in self._jobs:
            try:
                if not job.take(append, self.size * self._depth):
                    return job.count
            except BaseException as exc:
                self._settle(job.number, [(job.count, (False, exc))])
                return job.count + 1
            finally:
                self._go_on_in_time()
        self._drop(job.number)
        return None

    def _feed_foreign(self, tasks):
        """The same for tasks that are written down as the standard library's pool does."""
        count = 0
        for task in tasks:
            job, index, func, args, _ = task
            if self._terminated or job not in self._jobs:
                return None
            count = index + 1
            if func is reraise:
                self._settle(job, [(index, (False, args[0]))])
            else:
                self._ready.append(ticket_of(task))
                self._go_on_in_time()
            del task, func, args
        return count

    def submit(self, tasks, set_length):
        """Take a Job, or an iterator of tasks, and whom to tell how many there were."""
        with self._lock:
            self._unfed += 1
        self._taskqueue.put((tasks, set_length))

    def submit_one(self, job, func, args, kwds):
        """Take a job of one task.  go_on() is to be called next, without any lock.

        If no other job is in the way, that will not change threads.
        """
        # Without the lock, which the collector may have while others have the interpreter: append() is
        # one step, and who breaks the engine fails all jobs after that, this one, too.
        is_next = not (self._unfed or self._broken or self._is_over())
        if is_next:
            self._ready.append(make_ticket(job, 0, How.CALL, func, args, kwds))
        else:
            self.submit([(job, 0, func, args, kwds)], None)

    def go_on(self):
        """Something is ready."""
        if self._is_worth_it():
            self._dispatch()
        self._try_again()

    def _is_worth_it(self):
        """Is there a worker that will soon be idle, or much for one that could take more?

        If not, what is ready has time until a worker is heard: each that is hungry has some left.
        """
        try:
            poorest = self._hungry[0]
        except IndexError:
            return False
        return _FEW * len(poorest.tickets) < self._depth or _FEW * len(self._ready) > self._depth

    def _go_on_in_time(self):
        """The same, by the feeder: wait if too much is ready."""
        self.go_on()
        if len(self._ready) > _AHEAD * self.size * self._depth:
            with self._room:
                self._room.wait_for(self._wants_tickets)
            self._try_again()

    def _try_again(self):
        """Bad luck with what was there before: what comes now gets a try of its own."""
        if self._broken:
            self._fail_jobs(self._broken)
        elif self._failed_starts > self._patience() and not self._seats:
            self._failed_starts = 0
            self._bell.ring()

    def _wants_tickets(self):
        # Not one by one: each time costs a change of threads.
        few = len(self._ready) <= self.size * self._depth
        return few or self._broken or self._terminated

    def _dispatch(self):
        """Give tasks to workers, as long as there are both."""
        while True:
            with self._lock:
                if self._is_over() or not self._hungry:
                    return
                victim = None if self._ready else self._rich_seat_for_an_idle_one()
                if victim is None and not self._ready:
                    return
                if victim is None:
                    seat = self._hungry.popleft()
                    seat.hungry = False
                    tickets = self._portion_for(seat)
                if self._wants_tickets():
                    self._room.notify()
            if victim is None:
                if tickets:  # else it has enough, as things are now
                    self._give(seat, tickets)
            elif not self._take_back(victim):
                return  # it was quicker
            seat = tickets = victim = None

    def _portion_for(self, seat):
        """The tickets that the seat is given now: no more than its share of what there is."""
        ready = self._ready
        share = -(-len(ready) // (len(self._hungry) + 1))
        count = min(share, self._depth - len(seat.tickets))
        if seat.left is not None:
            count = min(count, seat.left)
            seat.left -= max(count, 0)
        tickets = [ready.popleft() for _ in range(count)]
        if tickets:
            if not seat.tickets:
                seat.busy_since = time.perf_counter()
            seat.tickets.extend(tickets)
            seat.giving = True
        return tickets

    def _give(self, seat, tickets):
        """Put the tickets into the line.  One that cannot be put fails alone, and ^C is raised."""
        rest, interrupt = tickets, None
        if len(tickets) > 1:
            try:
                self._put(seat, tickets)
                rest = ()
            except BaseException as exc:
                rest = tickets[getattr(exc, "put", 0) :]
        for ticket in rest:
            try:
                self._put(seat, [ticket])
            except BaseException as exc:
                self._refuse(seat, ticket, exc)
                interrupt = exc if isinstance(exc, KeyboardInterrupt) else interrupt
        self._be_done_with(seat)
        if interrupt is not None and threading.current_thread() not in self.threads():
            raise interrupt

    def _put(self, seat, tickets):
        began = time.perf_counter()
        try:
            self._put_at_once(seat, tickets)
        finally:
            self._clock.encoding += time.perf_counter() - began

    def _put_at_once(self, seat, tickets):
        if len(tickets) == 1:
            seat.line.tasks.put(tickets[0].task())
        else:
            seat.line.tasks.put_many(map(_task_of, tickets))

    def _refuse(self, seat, ticket, exc):
        """This ticket cannot be put, because of `exc`; those before it have been."""
        with self._lock:
            seat.tickets.remove(ticket)
            if seat.left is not None:
                seat.left += 1
        self._clock.failed += 1
        self._settle(ticket.job, [(ticket.index, (False, _explained(exc, ticket)))])

    def _take_back(self, seat):
        """A worker has nothing to do, this one more than one: what it has not begun is for all.

        Returns how much that was.
        """
        count = seat.line.tasks._take_back()
        with self._lock:
            self._return_last(seat, count)
        self._be_done_with(seat)
        return count

    def _return_last(self, seat, count):
        count = min(count, len(seat.tickets))
        for _ in range(count):
            self._ready.appendleft(seat.tickets.pop())
        if seat.left is not None:
            seat.left += count

    def _rich_seat_for_an_idle_one(self):
        """If a worker has nothing to do: the seat with most tasks that it has not begun, or None."""
        if all(seat.tickets for seat in self._hungry):
            return None
        rich = [seat for seat in self._seats.values() if len(seat.tickets) > 1 and not seat.giving]
        seat = max(rich, key=lambda seat: len(seat.tickets), default=None)
        if seat is not None:
            seat.giving = True
            self._make_sated(seat)
        return seat

    def _be_done_with(self, seat):
        """Its line has been put to."""
        with self._lock:
            seat.giving = False
            self._make_hungry(seat)
            is_bereft = seat.dead
        if seat.retiring:
            self._retire(seat)
        if is_bereft:
            self._bereave(seat)

    def _make_hungry(self, seat):
        has_enough = 2 * len(seat.tickets) > self._depth
        is_going = seat.dead or seat.retiring or seat.verdict or seat.left == 0
        if not (has_enough or seat.hungry or seat.giving or is_going):
            seat.hungry = True
            if seat.tickets:
                self._hungry.append(seat)
            else:
                self._hungry.appendleft(seat)

    def _make_sated(self, seat):
        if seat.hungry:
            seat.hungry = False
            self._hungry.remove(seat)

    # The collector.

    def _collect(self):
        while self._hear_all(self._outbox.get_many()):
            pass
        # The pool may be kept for long; the lines to its workers need not.
        for collection in (self._seats, self._hungry, self._ready):
            collection.clear()

    def _hear_all(self, messages):
        """False: there will be no more."""
        done = collections.Counter()
        for said in messages:
            if type(said) is int:
                done[said] += 1
                continue
            self._hear_done(done)  # what a worker said before this
            if said[1] == News.STOP:
                return False
            self._hear(*said)
        self._hear_done(done)
        return True

    def _hear_done(self, done):
        """So many tasks of each worker are done."""
        if not self._terminated:
            for key, count in done.items():
                seat = self._seats[key]
                began = time.perf_counter()
                outcomes = self._open_many(seat, count)
                self._clock.decoding += time.perf_counter() - began
                self._conclude(seat, outcomes)
        done.clear()

    def _open_many(self, seat, count):
        outcomes = []
        while len(outcomes) < count:
            try:
                values = seat.line.values.get_many(count - len(outcomes), False)
            except BaseException as exc:
                outcomes.append((False, _stand_in(exc, None)))
                self._clock.failed += 1
            else:
                outcomes += [(True, value) for value in values]
        return outcomes

    def _hear(self, key, news, text):
        if self._terminated:
            return
        seat = self._seats[key]
        if news == News.FAILED:
            self._clock.failed += 1
            self._conclude(seat, [(False, self._open(seat, text))])
        elif news == News.READY:
            self._welcome(seat)
        elif news == News.UNFIT:
            seat.excuse = self._open(seat, text)
        elif news == News.LEFT:
            seat.leaving = True
            self._bell.ring()
        elif news == News.DIED:
            self._mourn(seat)

    def _open(self, seat, text):
        """The exception that was announced; one that does not unpickle has a stand-in."""
        try:
            return seat.line.values.get()
        except BaseException as exc:
            return _stand_in(exc, text)

    def _welcome(self, seat):
        with self._lock:
            seat.up = True
            seat.up_since = time.perf_counter()
            had_failures, self._failed_starts = self._failed_starts, 0
            self._make_hungry(seat)
        if had_failures:
            self._bell.ring()  # the keeper may have given up
        self._dispatch()

    def _conclude(self, seat, outcomes):
        """The worker is through with tasks: give it others, then hand out what came of these."""
        with self._lock:
            tickets = [seat.tickets.popleft() for _ in range(min(len(outcomes), len(seat.tickets)))]
            self._note_pace(seat, len(tickets))
            if seat.hungry and not seat.tickets:
                self._hungry.remove(seat)
                self._hungry.appendleft(seat)
            self._make_hungry(seat)
        if seat.retiring:
            self._retire(seat)
        self._dispatch()
        for job, batch in by_job(tickets, outcomes):
            self._settle(job, batch)
        if len(tickets) < len(outcomes):
            # It answers what it was not asked: its end of the line is torn, so it cannot stay.
            seat.process.terminate()
        self._stop_if_done()

    def _note_pace(self, seat, count):
        """Of quick tasks a worker is given several ahead, some milliseconds of work."""
        if not count:
            return
        now = time.perf_counter()
        taken = max(0.0, now - seat.busy_since)
        seat.done += count
        seat.working += taken
        self._pace += (taken / count - self._pace) / 4
        seat.busy_since = now
        self._depth = max(1, min(_DEEPEST, int(_WORK_AHEAD / (self._pace + 1e-9))))

    def _settle(self, job, outcomes):
        result = self._jobs.get(job)
        if result is None:
            return
        try:
            result._set_many(outcomes)
        except BaseException as exc:
            report(exc)

    def _mourn(self, seat):
        """The worker has ended, and all that it said has been heard."""
        with self._lock:
            seat.dead = True
            del self._seats[seat.line.key]
            self._make_sated(seat)
            if seat.up:
                self._failed_starts = 0
                self._clock.let_go(seat, time.perf_counter())
            to_come = seat.giving
        if not seat.up:
            died = obituary(seat, "while it was being started")
            self._count_failed_start(seat.excuse or died, by_itself=not died.signal)
        if not to_come:
            self._bereave(seat)
        self._bell.ring()

    def _bereave(self, seat):
        """See to the tasks of a dead worker: those that it never touched go to others."""
        untouched = seat.line.tasks._take_back()
        with self._lock:
            tickets, seat.tickets = seat.tickets, collections.deque()
            back = [tickets.pop() for _ in range(min(untouched, len(tickets)))]
            if back and not tickets:
                # Nobody's fault, or that of the first: it may not go on so for ever.
                back[-1].returns += 1
                if back[-1].returns > _MAX_RETURNS:
                    tickets.append(back.pop())
            self._ready.extendleft(back)
            condemned, verdict = seat.verdict or (None, None)
            lost = [
                ticket
                for ticket in tickets
                if ticket is condemned or ticket.retries >= self.retries
            ]
            for ticket in reversed(tickets):
                if ticket not in lost:
                    ticket.retries += 1
                    self._ready.appendleft(ticket)
        self._dispatch()
        self._clock.failed += len(lost)
        self._clock.died += bool(tickets)
        for ticket in lost:
            died = verdict
            if ticket is not condemned:
                short = self._is_short_of_memory(seat)
                died = obituary(seat, f"while it worked on {title(ticket)}", short)
            self._settle(ticket.job, [(ticket.index, (False, died))])
        self._stop_if_done()

    def _is_short_of_memory(self, seat):
        """Has the system killed a process, perhaps this one, for want of memory since the last time?"""
        if seat.process.exitcode != -signal.SIGKILL:
            return False
        before, self._oom_kills = self._oom_kills, oom_kills()
        return self._oom_kills > before

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
            if self._logs:
                self._logs.stop()
            self._bell.close()
            self._post(None, News.STOP)

    def _watch(self):
        while not self._terminated and (self._seats or not self._stopping):
            pause = self._enforce(self._replace())
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
                self._bell.ring()  # the keeper, if it is not this thread, waits for the others only

    def _is_short_handed(self):
        if self._is_over() or self._broken or self._failed_starts > self._patience():
            return False
        return sum(not seat.retiring for seat in list(self._seats.values())) < self.size

    def _hire_one(self):
        crew = self._crew
        key, tasks, values = next(self._keys), crew.make_queue(), crew.make_queue()
        line = Line(key, tasks, values, self._outbox, None if crew.local else LastWords())
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
        if seat.line.last_words is not None:
            seat.last_words = seat.line.last_words.take()
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


def obituary(seat, when, is_short_of_memory=False):
    """The WorkerDied for the worker that had this seat; its cause is the stack where it crashed."""
    pid, exitcode = seat.process.ident, seat.process.exitcode
    name = None
    cause = f"exited with code {exitcode}"
    if exitcode < 0:
        name = _signal_name(-exitcode)
        cause = f"was killed by {name}"
    if is_short_of_memory:
        when += " (the system was short of memory: its OOM killer has been at work)"
    died = WorkerDied(f"worker {pid} {cause} {when}", pid=pid, exitcode=exitcode, signal=name)
    died.stack = seat.last_words or None
    died.out_of_memory = is_short_of_memory
    if seat.last_words:
        died.__cause__ = RemoteTraceback(f'\n"""\n{seat.last_words}"""')
    return died


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
