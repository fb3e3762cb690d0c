"""What ends work before it is done: a time limit, `cancel()`, fewer workers.

A part of the engine (_pool_engine), whose keeper does it. A task that is ready is dropped. One that
is worked on ends with its worker, and so that no other task is lost with it, the worker's line is
emptied first, and nobody may put into it any more: then what the worker has is that task, or
nothing if it was quicker.
"""

import math
import time

from ._pool_crew import title
from .context import ProcessError, TimeoutError

__all__ = ["CancelledError", "Limits"]

# Seconds until a worker is looked at again that could not be ended just now.
_SOON = 0.005


class CancelledError(ProcessError):
    """The outcome of a task, or a map, that was cancelled."""


CancelledError.__module__ = f"{__package__}.pool"


class Limits:
    """Time limits and cancelled jobs of an Engine.

    A job is unwanted when it is not in `_jobs`, be it cancelled or failed: nothing else says so.
    """

    def __init__(self):
        self._limits = {}  # seconds that a task may take, by job
        self._shortest = math.inf  # none is shorter

    def limit(self, job, seconds):
        """Each task of the job fails with TimeoutError, and its worker ends, after `seconds`."""
        self._limits[job] = seconds
        if seconds < self._shortest:
            self._shortest = seconds
            self._bell.ring()

    def cancel(self, job):
        """Fail the job with CancelledError; its tasks that are worked on end with their workers.

        False if it is done already, or if it may be worked on by threads, which cannot be ended.
        """
        result = self._jobs.get(job)
        if result is None or (self._crew.local and self._has_begun(job)):
            return False
        result._fail(CancelledError("the task was cancelled"))
        self._drop(job)
        self._bell.ring()
        self._stop_if_done()
        return True

    def resize(self, size):
        """Have `size` workers: start some, or let some go once they have done what they have."""
        with self._lock:
            self.size = size
            staying = [seat for seat in self._seats.values() if not seat.retiring]
            staying.sort(key=lambda seat: len(seat.tickets))
            surplus = staying[: max(0, len(staying) - size)]
            for seat in surplus:
                seat.retiring = True
                self._make_sated(seat)
        for seat in surplus:
            self._retire(seat)
        self.hire()

    def _retire(self, seat):
        """It is to go: now, if it has nothing to do; else the collector comes back to it."""
        if not seat.tickets:
            self._send_home(seat)

    # The keeper's part.

    def _enforce(self, pause):
        """End what is to end.  Seconds until that should be looked at again, `pause` at the most."""
        if self._crew.local:
            return pause  # a thread cannot be ended
        for job in list(self._limits):
            if job not in self._jobs:
                self._limits.pop(job, None)
        # What is begun from now on has at least that; if a shorter one came meanwhile, the bell rings.
        self._shortest = min(list(self._limits.values()), default=math.inf)
        waits = [self._shortest, *map(self._look_at, list(self._seats.values()))]
        if pause is not None:
            waits.append(pause)
        soonest = min(waits)
        return None if soonest == math.inf else soonest

    def _look_at(self, seat):
        """End the worker if that is due.  Seconds until it should be looked at again."""
        ticket = _first(seat)
        if ticket is None or seat.verdict:
            return math.inf
        if any(each.job not in self._jobs for each in list(seat.tickets)):
            is_first = ticket.job not in self._jobs
            self._stop(seat, ticket, CancelledError("the task was cancelled") if is_first else None)
            return _SOON  # it may have gone on to another of them meanwhile
        limit = self._limits.get(ticket.job)
        if limit is None:
            return math.inf
        left = seat.busy_since + limit - time.perf_counter()
        if left > 0:
            return left
        words = f"{title(ticket)} took longer than {limit:g} s, its worker was ended"
        self._stop(seat, ticket, TimeoutError(words))
        return _SOON

    def _stop(self, seat, ticket, verdict):
        """Take back what the worker has not begun; if the ticket alone is left, end it with `verdict`.

        Not if it is done, and the collector is behind; nor while somebody else is at the line.
        """
        with self._lock:
            if seat.giving:
                return
            seat.giving = True
            self._make_sated(seat)
        count = seat.line.tasks._take_back()
        with self._lock:
            self._return_last(seat, count)
            is_left = len(seat.tickets) == 1 and seat.tickets[0] is ticket and not seat.dead
            if verdict and is_left and not seat.line.values.qsize():
                seat.verdict = ticket, verdict
        for job in {each.job for each in list(self._ready)}:
            if job not in self._jobs:
                self._drop(job)
        if seat.verdict:
            seat.process.kill()
        self._be_done_with(seat)
        self._dispatch()

    def _drop(self, job):
        """Nobody wants the job any more."""
        with self._room:
            for ticket in list(self._ready):
                if ticket.job == job:
                    self._ready.remove(ticket)
            self._room.notify_all()

    def _has_begun(self, job):
        seats = list(self._seats.values())
        return any(ticket.job == job for seat in seats for ticket in list(seat.tickets))


def _first(seat):
    try:
        return seat.tickets[0]
    except IndexError:
        return None
