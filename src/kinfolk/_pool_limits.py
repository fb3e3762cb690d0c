"""What ends work before it is done: a time limit, `cancel()`, fewer workers.

A part of the engine (_pool_engine), whose keeper does it. A task that is ready is dropped. One that
is worked on ends with its worker, and so that no other task is lost with it, the worker's line is
emptied first, and nobody may put into it any more: then what the worker has is that task, or
nothing if it was quicker.
"""

import time

from ._pool_crew import title
from .context import ProcessError, TimeoutError

__all__ = ["CancelledError", "Limits"]

# Seconds until a worker is looked at again whose line somebody else is putting into.
_SOON = 0.005


class CancelledError(ProcessError):
    """The outcome of a task, or a map, that was cancelled."""


CancelledError.__module__ = f"{__package__}.pool"


class Limits:
    """Time limits and cancelled jobs of an Engine."""

    def __init__(self):
        self._limits = {}  # seconds that a task may take, by job
        self._cancelled = set()  # jobs whose workers are to be ended

    def limit(self, job, seconds):
        """Each task of the job fails with TimeoutError, and its worker ends, after `seconds`."""
        is_news = seconds < min(self._limits.values(), default=seconds + 1)
        self._limits[job] = seconds
        if is_news:
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
        if not self._crew.local:
            self._cancelled.add(job)
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
        if not (self._cancelled or self._limits):
            return pause
        for job in list(self._limits):
            if job not in self._jobs:
                self._limits.pop(job, None)
        # What is begun from now on has at least the shortest of all limits.
        waits = list(self._limits.values()) if pause is None else [pause, *self._limits.values()]
        cancelled, self._cancelled = self._cancelled, set()
        for seat in list(self._seats.values()):
            ticket = _first(seat)
            if ticket is None or seat.verdict:
                continue
            if any(ticket.job in cancelled for ticket in list(seat.tickets)):
                verdict = CancelledError("the task was cancelled")
                if not self._stop(seat, cancelled.__contains__, verdict):
                    self._cancelled |= cancelled
                    waits.append(_SOON)
            limit = self._limits.get(ticket.job)
            if limit is not None:
                waits.append(self._end_in_time(seat, ticket, limit))
        return min(waits, default=None)

    def _end_in_time(self, seat, ticket, limit):
        """Seconds until this is to be called again."""
        left = seat.busy_since + limit - time.perf_counter()
        if left > 0:
            return left
        if seat.line.values.qsize():
            return _SOON  # it has ended, and the collector is behind
        verdict = TimeoutError(
            f"{title(ticket)} took longer than {limit:g} s, its worker was ended"
        )
        self._stop(seat, ticket.job.__eq__, verdict)
        return _SOON

    def _stop(self, seat, is_meant, verdict):
        """End the worker if it works on a job that is meant, and drop what it has else of those.

        False: not now.
        """
        with self._lock:
            if seat.giving:
                return False
            seat.giving = True
            self._make_sated(seat)
        count = seat.line.tasks._take_back()
        with self._lock:
            self._return_last(seat, count)
            ticket = _first(seat)
            is_alone = len(seat.tickets) == 1 and not seat.dead
            if is_alone and is_meant(ticket.job) and not seat.line.values.qsize():
                seat.verdict = ticket, verdict
        for ticket in list(self._ready):
            if ticket.job not in self._jobs:
                self._drop(ticket.job)
        if seat.verdict:
            seat.process.kill()
        self._be_done_with(seat)
        self._dispatch()
        return True

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
