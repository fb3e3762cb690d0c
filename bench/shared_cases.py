"""Cases of shared dicts and lists, for bench/cases.py: the standard library's are a manager's."""

import time

from cases import case

__all__ = []


def per_call(function, count):
    """Microseconds a turn of function(count), which does the thing so many times."""
    function(10)
    began = time.perf_counter()
    function(count)
    return (time.perf_counter() - began) / count * 1e6


def shared_dict(mp):
    """A dict, how often to use it, and what keeps it alive."""
    if hasattr(mp, "SharedDict"):
        return mp.SharedDict(key=1), 200_000, None
    manager = mp.Manager()
    return manager.dict(key=1), 3_000, manager


@case("µs")
def shared_dict_get(mp):
    shared, count, _manager = shared_dict(mp)

    def turn(count):
        for _ in range(count):
            shared["key"]

    return per_call(turn, count)


@case("µs")
def shared_dict_set(mp):
    shared, count, _manager = shared_dict(mp)

    def turn(count):
        for n in range(count):
            shared["key"] = n

    return per_call(turn, count)


@case("µs")
def shared_list_append_pop(mp):
    if hasattr(mp, "SharedList"):
        shared, count = mp.SharedList(), 100_000
    else:
        manager = mp.Manager()
        shared, count = manager.list(), 2_000

    def turn(count):
        for n in range(count):
            shared.append(n)
            shared.pop()

    return per_call(turn, count)
