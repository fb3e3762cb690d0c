"""Cases of values and arrays in shared memory, for bench/cases.py: one access, and making one."""

from cases import case
from sync_cases import per_call

__all__ = []


@case("µs")
def value_add_in_lock(mp):
    value = mp.Value("q", 0)

    def turn(count):
        for _ in range(count):
            with value.get_lock():
                value.value += 1

    return per_call(turn)


@case("µs")
def value_get(mp):
    value = mp.Value("q", 5)

    def turn(count):
        for _ in range(count):
            value.value  # noqa: B018

    return per_call(turn)


@case("µs")
def value_set(mp):
    value = mp.Value("d", 5)

    def turn(count):
        for _ in range(count):
            value.value = 1.5

    return per_call(turn)


@case("µs")
def array_get_item(mp):
    array = mp.Array("i", 100)

    def turn(count):
        for _ in range(count):
            array[50]

    return per_call(turn)


@case("µs")
def array_set_item(mp):
    array = mp.Array("i", 100)

    def turn(count):
        for _ in range(count):
            array[50] = 7

    return per_call(turn)


@case("µs")
def array_get_slice_of_100(mp):
    array = mp.Array("i", 100)

    def turn(count):
        for _ in range(count):
            array[:]

    return per_call(turn, 30_000)


@case("µs")
def value_make(mp):
    def turn(count):
        for _ in range(count):
            mp.Value("i", 3)

    return per_call(turn, 5000)


@case("µs")
def array_make(mp):
    def turn(count):
        for _ in range(count):
            mp.Array("i", 1000)

    return per_call(turn, 5000)


def add(value, count):
    for _ in range(count):
        with value.get_lock():
            value.value += 1


@case("µs")
def value_add_by_4_processes(mp):
    """From the first to the last, an addition."""
    mp = mp.get_context("fork")
    value, count = mp.Value("q", 0), 20_000

    def turn(_):
        processes = [mp.Process(target=add, args=(value, count)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()

    return per_call(turn, 4 * count)
