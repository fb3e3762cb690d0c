"""What a pool has done so far, as its parent sees it: `Pool.stats()`.

Nothing is measured for each task: times are taken where batches are given and heard.
"""

import collections

__all__ = ["Clock", "PoolStats", "WorkerStats"]

WorkerStats = collections.namedtuple("WorkerStats", "pid tasks working waiting")
WorkerStats.__doc__ = """One worker: its process (of a ThreadPool: its thread), how many tasks it has
done, and for how many seconds it had something to do, and nothing."""

PoolStats = collections.namedtuple(
    "PoolStats", "tasks failed died working waiting encoding decoding workers"
)
PoolStats.__doc__ = """A pool, with the workers that have gone.

How many tasks were done (a chunk is one); how many failed, of these, or with their worker, or before
they got to one; how many workers died at one; for how many seconds, all together, workers had something
to do, and nothing, and this process pickled tasks and unpickled outcomes; and the workers that there
are, a WorkerStats each.
"""

for _cls in (WorkerStats, PoolStats):
    _cls.__module__ = f"{__package__}.pool"


class Clock:
    """What an Engine counts, in all, and for each of its seats that has gone."""

    def __init__(self):
        self.failed = 0
        self.died = 0
        self.encoding = 0.0
        self.decoding = 0.0
        self._gone = (0, 0.0, 0.0)

    def let_go(self, seat, now):
        """The seat's worker has ended."""
        _, *figures = of_seat(seat, now)
        self._gone = tuple(map(sum, zip(self._gone, figures)))

    def stats(self, seats, now):
        workers = [of_seat(seat, now) for seat in seats if seat.up]
        figures = [self._gone, *(worker[1:] for worker in workers)]
        tasks, working, waiting = map(sum, zip(*figures))
        counts = tasks, self.failed, self.died
        return PoolStats(*counts, working, waiting, self.encoding, self.decoding, workers)


def of_seat(seat, now):
    """The WorkerStats of a seat whose worker has come up."""
    working = seat.working
    if seat.tickets:
        working += max(0.0, now - seat.busy_since)
    waiting = max(0.0, now - seat.up_since - working)
    return WorkerStats(seat.process.ident, seat.done, working, waiting)
