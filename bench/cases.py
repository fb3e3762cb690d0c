"""One measurement of one package, in an interpreter of its own.

    python bench/cases.py PACKAGE CASE      prints a number: see CASES for the unit

PACKAGE is multiprocessing or kinfolk; the programs are the same for both.
"""

import importlib
import sys
import time

CASES = {}


def case(unit, higher_is_better):
    def add(function):
        CASES[function.__name__] = function, unit, higher_is_better
        return function

    return add


# -- One producer, one consumer -------------------------------------------------


def feed(queue, make, count):
    item = make()
    for _ in range(count):
        queue.put(item)
    queue.put(None)


def one_way(mp, make, count):
    """Items a second, from the first to arrive to the last."""
    queue = mp.Queue()
    process = mp.Process(target=feed, args=(queue, make, count))
    process.start()
    queue.get()
    began = time.perf_counter()
    while queue.get() is not None:
        pass
    took = time.perf_counter() - began
    process.join()
    return (count - 1) / took


def small_int():
    return 7


def small_dict():
    return {"id": 12345, "name": "some name", "value": 1.5, "ok": True}


def kilobyte():
    return b"x" * 1024


@case("items/s", True)
def queue_small_ints(mp):
    return one_way(mp.get_context("fork"), small_int, 100_000)


@case("items/s", True)
def queue_small_dicts(mp):
    return one_way(mp.get_context("fork"), small_dict, 60_000)


@case("items/s", True)
def queue_1KB_bytes(mp):
    return one_way(mp.get_context("fork"), kilobyte, 60_000)


# -- There and back ---------------------------------------------------------------


def echo(there, back):
    while (item := there.get()) is not None:
        back.put(item)


def there_and_back(mp, item, count, warm_up):
    """Microseconds a round trip."""
    there, back = mp.Queue(), mp.Queue()
    process = mp.Process(target=echo, args=(there, back))
    process.start()
    for _ in range(warm_up):
        there.put(item)
        back.get()
    began = time.perf_counter()
    for _ in range(count):
        there.put(item)
        back.get()
    took = time.perf_counter() - began
    there.put(None)
    process.join()
    return took / count * 1e6


def array(megabytes):
    import numpy

    return numpy.ones(megabytes << 17)


@case("µs", False)
def round_trip_small_int(mp):
    return there_and_back(mp.get_context("fork"), 7, 20_000, 100)


@case("µs", False)
def round_trip_1MB_array(mp):
    return there_and_back(mp.get_context("fork"), array(1), 200, 10)


@case("µs", False)
def round_trip_64MB_array(mp):
    return there_and_back(mp.get_context("fork"), array(64), 8, 2)


# -- Start and join ------------------------------------------------------------------


def nothing():
    pass


def start_and_join(mp, method, count):
    """Milliseconds a start and join."""
    context = mp.get_context(method)

    def once():
        process = context.Process(target=nothing)
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"a child by {method} failed")

    once()
    began = time.perf_counter()
    for _ in range(count):
        once()
    return (time.perf_counter() - began) / count * 1e3


@case("ms", False)
def start_fork(mp):
    return start_and_join(mp, "fork", 100)


@case("ms", False)
def start_spawn(mp):
    return start_and_join(mp, "spawn", 10)


@case("ms", False)
def start_forkserver(mp):
    return start_and_join(mp, "forkserver", 50)


# -- Locks -----------------------------------------------------------------------------


@case("µs", False)
def lock_with(mp):
    lock = mp.Lock()
    began = time.perf_counter()
    for _ in range(300_000):
        with lock:
            pass
    return (time.perf_counter() - began) / 300_000 * 1e6


@case("µs", False)
def lock_create(mp):
    began = time.perf_counter()
    for _ in range(5_000):
        mp.Lock()
    return (time.perf_counter() - began) / 5_000 * 1e6


if __name__ == "__main__":
    package, name = sys.argv[1:]
    print(CASES[name][0](importlib.import_module(package)))
