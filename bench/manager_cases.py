"""Cases of managers, for bench/cases.py: what a SyncManager holds, and calls to a server."""

import time

from cases import case

__all__ = []

KEY = b"the same on both sides"


def per_call(function, count=3_000):
    """Microseconds a turn of function(count), which does the thing so many times."""
    function(10)
    began = time.perf_counter()
    function(count)
    return (time.perf_counter() - began) / count * 1e6


def counts(mp):
    """How often to use what kinfolk's managers hold in the arena."""
    return 3_000 if mp.__name__ == "multiprocessing" else 100_000


# -- What a SyncManager holds ----------------------------------------------------------------


@case("µs")
def manager_dict_get(mp):
    with mp.Manager() as manager:
        shared = manager.dict(key=1)

        def turn(count):
            for _ in range(count):
                shared["key"]

        return per_call(turn, counts(mp))


@case("µs")
def manager_dict_set(mp):
    with mp.Manager() as manager:
        shared = manager.dict(key=1)

        def turn(count):
            for n in range(count):
                shared["key"] = n

        return per_call(turn, counts(mp))


@case("µs")
def manager_list_append_pop(mp):
    with mp.Manager() as manager:
        shared = manager.list()

        def turn(count):
            for n in range(count):
                shared.append(n)
                shared.pop()

        return per_call(turn, counts(mp))


@case("µs")
def manager_namespace_get(mp):
    with mp.Manager() as manager:
        shared = manager.Namespace(x=1)

        def turn(count):
            for _ in range(count):
                shared.x  # noqa: B018

        return per_call(turn, counts(mp))


@case("µs")
def manager_queue_put_get(mp):
    with mp.Manager() as manager:
        shared = manager.Queue()

        def turn(count):
            for n in range(count):
                shared.put(n)
                shared.get()

        return per_call(turn, counts(mp))


@case("µs")
def manager_lock_with(mp):
    with mp.Manager() as manager:
        lock = manager.Lock()

        def turn(count):
            for _ in range(count):
                with lock:
                    pass

        return per_call(turn, counts(mp))


# -- A server ------------------------------------------------------------------------------------


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, amount=1):
        self.count += amount
        return self.count


def calling(mp, address=None):
    """Microseconds for a call to an object of a type that was registered."""
    from importlib import import_module

    class Manager(import_module(f"{mp.__name__}.managers").BaseManager):
        pass

    Manager.register("Counter", Counter)
    with Manager(address, KEY, ctx=mp.get_context("fork")) as manager:
        counter = manager.Counter()

        def turn(count):
            for n in range(count):
                counter.add(n)

        return per_call(turn, 10_000)


@case("µs")
def manager_call(mp):
    return calling(mp)


@case("µs")
def manager_call_over_tcp(mp):
    return calling(mp, ("127.0.0.1", 0))


@case("µs")
def manager_object_create(mp):
    from importlib import import_module

    class Manager(import_module(f"{mp.__name__}.managers").BaseManager):
        pass

    Manager.register("Counter", Counter)
    with Manager(None, KEY, ctx=mp.get_context("fork")) as manager:

        def turn(count):
            for _ in range(count):
                manager.Counter()

        return per_call(turn, 300)
