"""The cases of pools: tasks that do nothing, two workers."""

import time

from cases import case


def nothing(x):
    return x


def pool_of(mp):
    return mp.get_context("fork").Pool(2)


def per_second(count, run):
    run(count // 10)
    began = time.perf_counter()
    run(count)
    return count / (time.perf_counter() - began)


@case("tasks/s")
def pool_map(mp):
    with pool_of(mp) as pool:
        return per_second(20_000, lambda count: pool.map(nothing, range(count), chunksize=1))


def stream(mp, name):
    def run(count):
        for _ in getattr(pool, name)(nothing, range(count)):
            pass

    with pool_of(mp) as pool:
        return per_second(20_000, run)


@case("tasks/s")
def pool_imap(mp):
    return stream(mp, "imap")


@case("tasks/s")
def pool_imap_unordered(mp):
    return stream(mp, "imap_unordered")


@case("tasks/s")
def pool_apply_async(mp):
    """Many asked for, then all waited for."""

    def run(count):
        for result in [pool.apply_async(nothing, (i,)) for i in range(count)]:
            result.get()

    with pool_of(mp) as pool:
        return per_second(20_000, run)


@case("µs")
def pool_apply(mp):
    """One after the other."""
    with pool_of(mp) as pool:
        for _ in range(100):
            pool.apply(nothing, (0,))
        began = time.perf_counter()
        for i in range(2_000):
            pool.apply(nothing, (i,))
        return (time.perf_counter() - began) / 2_000 * 1e6


def executor_of(mp):
    if mp.__name__ == "multiprocessing":
        from concurrent.futures import ProcessPoolExecutor
    else:
        from kinfolk.futures import ProcessPoolExecutor
    return ProcessPoolExecutor(2, mp.get_context("fork"))


@case("tasks/s")
def executor_submit(mp):
    """Many asked for, then all waited for."""

    def run(count):
        for future in [executor.submit(nothing, i) for i in range(count)]:
            future.result()

    with executor_of(mp) as executor:
        return per_second(10_000, run)


@case("tasks/s")
def executor_map(mp):
    def run(count):
        for _ in executor.map(nothing, range(count)):
            pass

    with executor_of(mp) as executor:
        return per_second(10_000, run)


@case("tasks/s")
def pool_map_1mb_arrays(mp):
    import numpy

    arrays = [numpy.ones(1 << 17) for _ in range(20)]
    with pool_of(mp) as pool:
        return per_second(200, lambda count: pool.map(nothing, (arrays * 10)[:count], chunksize=1))


@case("ms")
def pool_start_of_8_by_forkserver(mp):
    context = mp.get_context("forkserver")

    def once():
        with context.Pool(8) as pool:
            pool.map(abs, range(8), chunksize=1)  # what workers need not import a page for

    once()
    began = time.perf_counter()
    for _ in range(3):
        once()
    return (time.perf_counter() - began) / 3 * 1e3
