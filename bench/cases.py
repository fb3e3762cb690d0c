"""One measurement of one package, in an interpreter of its own.

    python bench/cases.py PACKAGE CASE      prints a number: see CASES for the unit

PACKAGE is multiprocessing or kinfolk, or one of the peers (peers.py) that the case names; the
programs are the same for all of them.

Children that are started import this page again: it imports little, or that would be measured.
"""

import importlib
import sys
import time
from collections import namedtuple

__all__ = ["CASES", "Case"]


#: `peers`: those that can run it, besides the two.
Case = namedtuple("Case", ["measure", "unit", "higher_is_better", "peers"])

CASES: dict[str, Case] = {}


def case(unit, *others):
    """Rates and shares are better when they are higher, times when they are lower."""

    def add(measure):
        CASES[measure.__name__] = Case(measure, unit, "/s" in unit or unit == "of memcpy", others)
        return measure

    return add


def queue_of(mp, maxsize=0, largest=0):
    """A queue for items of at most so many bytes."""
    make = getattr(mp, "make_queue", None)
    return make(maxsize, largest) if make else mp.Queue(maxsize)


# -- What is sent ------------------------------------------------------------------


def small_int():
    return 7


def small_dict():
    return {"id": 12345, "name": "some name", "value": 1.5, "ok": True}


def kilobyte():
    return b"x" * 1024


def array(megabytes):
    import numpy

    return numpy.ones(megabytes << 17)


# -- One producer, one consumer -------------------------------------------------


def feed(put, make, count):
    item = make()
    for _ in range(count):
        put(item)
    put(None)


def drain(get):
    """Items a second, from the first to arrive to the last."""
    get()
    count = 0
    began = time.perf_counter()
    while get() is not None:
        count += 1
    return count / (time.perf_counter() - began)


def one_way(mp, make, count):
    queue = queue_of(mp)
    process = mp.Process(target=feed, args=(queue.put, make, count))
    process.start()
    rate = drain(queue.get)
    process.join()
    return rate


@case("items/s", "faster-fifo", "Pipe")
def queue_small_ints(mp):
    return one_way(mp.get_context("fork"), small_int, 100_000)


@case("items/s", "faster-fifo", "Pipe")
def queue_small_dicts(mp):
    return one_way(mp.get_context("fork"), small_dict, 60_000)


@case("items/s", "faster-fifo", "Pipe")
def queue_1KB_bytes(mp):
    return one_way(mp.get_context("fork"), kilobyte, 60_000)


# -- Many at a time: where there is no put_many, one by one --------------------------


def feed_many(queue, count, batch):
    items = [7] * batch
    put_many = getattr(queue, "put_many", None)
    for _ in range(count // batch):
        if put_many:
            put_many(items)
        else:
            for item in items:
                queue.put(item)


@case("items/s", "faster-fifo")
def queue_small_ints_100_at_a_time(mp):
    mp = mp.get_context("fork")
    count, batch = 200_000, 100
    queue = queue_of(mp)
    process = mp.Process(target=feed_many, args=(queue, count, batch))
    process.start()
    get_many = getattr(queue, "get_many", None)
    first = len(get_many()) if get_many else len([queue.get()])
    left = count - first
    began = time.perf_counter()
    while left > 0:
        left -= len(get_many()) if get_many else len([queue.get()])
    took = time.perf_counter() - began
    process.join()
    return (count - first) / took


# -- Four producers, four consumers --------------------------------------------------


def produce(queue, gate, times, count):
    gate.wait()
    began = time.perf_counter()
    for _ in range(count):
        queue.put(7)
    queue.put(None)
    times.put(began)


def consume(queue, gate, times):
    gate.wait()
    while queue.get() is not None:
        pass
    times.put(time.perf_counter())


@case("items/s", "faster-fifo")
def queue_small_ints_4_to_4(mp):
    mp = mp.get_context("fork")
    count, each = 25_000, 4
    queue, times, gate = queue_of(mp), mp.SimpleQueue(), mp.Barrier(2 * each)
    processes = [mp.Process(target=produce, args=(queue, gate, times, count)) for _ in range(each)]
    processes += [mp.Process(target=consume, args=(queue, gate, times)) for _ in range(each)]
    for process in processes:
        process.start()
    marks = [times.get() for _ in processes]  # of one clock
    for process in processes:
        process.join()
    return each * count / (max(marks) - min(marks))


# -- Large arrays, one way -----------------------------------------------------------


def feed_arrays(queue, megabytes, count):
    item = array(megabytes)
    for _ in range(count):
        queue.put(item)


def arrays_one_way(mp, megabytes, count, warm_up=12):
    """Seconds from one array to the next once warm, two of them waiting at the most: the median.
    And the last one that came."""
    queue = queue_of(mp, 2, megabytes << 20)
    process = mp.Process(target=feed_arrays, args=(queue, megabytes, warm_up + count))
    process.start()
    for _ in range(warm_up):
        item = queue.get()
    times = [time.perf_counter()]
    for _ in range(count):
        item = queue.get()
        times.append(time.perf_counter())
    process.join()
    return median_step(times), item


def median_step(times):
    from statistics import median

    return median(later - earlier for earlier, later in zip(times, times[1:], strict=False))


@case("items/s", "faster-fifo")
def queue_1MB_arrays(mp):
    return 1 / arrays_one_way(mp.get_context("fork"), 1, 400)[0]


@case("items/s", "faster-fifo")
def queue_64MB_arrays(mp):
    return 1 / arrays_one_way(mp.get_context("fork"), 64, 12)[0]


@case("of memcpy", "faster-fifo")
def queue_64MB_arrays_beside_memcpy(mp):
    """How fast arrays arrive, as a share of copying one over what was received."""
    import numpy

    took, received = arrays_one_way(mp.get_context("fork"), 64, 12)
    source = array(64)
    if not received.flags.writeable:
        received = received.copy()
    times = [time.perf_counter()]
    for _ in range(12):
        numpy.copyto(received, source)
        times.append(time.perf_counter())
    return median_step(times) / took


# -- There and back ---------------------------------------------------------------


def echo(get, put):
    while (item := get()) is not None:
        put(item)


def trips(put, get, item, count, warm_up):
    """Microseconds a round trip."""
    for _ in range(warm_up):
        put(item)
        get()
    began = time.perf_counter()
    for _ in range(count):
        put(item)
        get()
    took = time.perf_counter() - began
    put(None)
    return took / count * 1e6


def there_and_back(mp, item, count, warm_up, largest=0):
    there, back = queue_of(mp, largest=largest), queue_of(mp, largest=largest)
    process = mp.Process(target=echo, args=(there.get, back.put))
    process.start()
    took = trips(there.put, back.get, item, count, warm_up)
    process.join()
    return took


@case("µs", "faster-fifo", "Pipe")
def round_trip_small_int(mp):
    return there_and_back(mp.get_context("fork"), 7, 20_000, 100)


@case("µs", "faster-fifo", "Pipe")
def round_trip_1MB_array(mp):
    return there_and_back(mp.get_context("fork"), array(1), 200, 10, 1 << 20)


@case("µs", "faster-fifo", "Pipe")
def round_trip_64MB_array(mp):
    return there_and_back(mp.get_context("fork"), array(64), 8, 4, 64 << 20)


# -- Pipes ---------------------------------------------------------------------------


def pipe_one_way(mp, make, count, duplex):
    reader, writer = mp.Pipe(duplex)
    process = mp.Process(target=feed, args=(writer.send, make, count))
    process.start()
    rate = drain(reader.recv)
    process.join()
    return rate


def pipe_there_and_back(mp, item, count, warm_up=20):
    here, there = mp.Pipe()
    process = mp.Process(target=echo, args=(there.recv, there.send))
    process.start()
    took = trips(here.send, here.recv, item, count, warm_up)
    process.join()
    return took


@case("items/s")
def pipe_1KB_bytes(mp):
    return pipe_one_way(mp.get_context("fork"), kilobyte, 60_000, duplex=False)


@case("items/s")
def pipe_1KB_bytes_duplex(mp):
    return pipe_one_way(mp.get_context("fork"), kilobyte, 60_000, duplex=True)


@case("items/s")
def pipe_small_ints(mp):
    return pipe_one_way(mp.get_context("fork"), small_int, 60_000, duplex=False)


@case("items/s")
def pipe_small_dicts(mp):
    return pipe_one_way(mp.get_context("fork"), small_dict, 60_000, duplex=False)


@case("µs")
def pipe_round_trip_1KB_bytes(mp):
    return pipe_there_and_back(mp.get_context("fork"), kilobyte(), 10_000)


@case("µs")
def pipe_round_trip_1MB_array(mp):
    return pipe_there_and_back(mp.get_context("fork"), array(1), 200)


# -- Waiting -------------------------------------------------------------------------


def waiter(queue, wait):
    if wait:
        wait([queue._reader])
    queue.get()


def aget_waiter(queue, wait):
    """By the loop where the queue can be waited for so, else by a thread."""
    import asyncio

    async def main():
        if hasattr(queue, "aget"):
            await queue.aget()
        else:
            await asyncio.get_running_loop().run_in_executor(None, queue.get)

    asyncio.run(main())


def cpu(processes):
    """Nanoseconds that they have run so far."""
    total = 0
    for process in processes:
        with open(f"/proc/{process.pid}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


def idle(mp, wait, target=waiter, count=100, seconds=5):
    """Milliseconds of CPU that so many use in so many seconds, blocked on a queue."""
    queue = mp.Queue()
    processes = [mp.Process(target=target, args=(queue, wait)) for _ in range(count)]
    for process in processes:
        process.start()
    time.sleep(3)
    before = cpu(processes)
    time.sleep(seconds)
    used = cpu(processes) - before
    for _ in processes:
        queue.put(None)
    for process in processes:
        process.join()
    return used / 1e6


@case("ms of CPU in 5 s")
def idle_100_in_get(mp):
    return idle(mp.get_context("fork"), None)


@case("ms of CPU in 5 s")
def idle_100_in_wait(mp):
    connection = importlib.import_module(f"{mp.__name__}.connection")
    return idle(mp.get_context("fork"), connection.wait)


@case("ms of CPU in 5 s")
def idle_100_in_asyncio(mp):
    return idle(mp.get_context("fork"), None, aget_waiter)


if __name__ == "__main__":
    import manager_cases  # noqa: F401
    import pool_cases  # noqa: F401
    import shared_cases  # noqa: F401
    import start_cases  # noqa: F401
    import sync_cases  # noqa: F401
    import value_cases  # noqa: F401
    from cases import CASES  # not this page's: the one that the other has added to

    package, name = sys.argv[1:]
    if package in ("multiprocessing", "kinfolk"):
        module = importlib.import_module(package)
    else:
        import peers

        module = peers.load(package)
    print(CASES[name].measure(module))
