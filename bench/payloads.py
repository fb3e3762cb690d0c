"""Large payloads of all kinds, there and back over two queues, kinfolk beside multiprocessing.

    python bench/payloads.py [KIND ...] [--sizes 65536,1048576] [--rounds N]

A line for each kind and size: microseconds a round trip (the best of all rounds, the two taking
turns, each in fresh interpreters), the ratio, and for kinfolk the page faults of both processes in
each round trip once warm, and two copies by memcpy of as many bytes as a share of its time.
Pandas and PyArrow are measured where they are installed.
"""

import argparse
import importlib
import pickle
import resource
import subprocess
import sys
import time

__all__ = ["KINDS"]

WARM_UP = 8


def numbers(size):
    import numpy

    return numpy.ones(size // 8)


def frame(size):
    import pandas

    return pandas.DataFrame({"a": numbers(size // 2), "b": numbers(size // 2)})


def table(size):
    import pyarrow

    return pyarrow.table({"a": numbers(size // 2), "b": numbers(size // 2)})


KINDS = {
    "bytes": lambda size: b"x" * size,
    "bytearray": lambda size: bytearray(b"x" * size),
    "memoryview": lambda size: memoryview(bytearray(b"x" * size)),
    "array": numbers,
    "16 arrays": lambda size: [numbers(size // 16) for _ in range(16)],
    "DataFrame": frame,
    "Table": table,
}


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def echo(there, back, count):
    for _ in range(WARM_UP):
        back.put(there.get())
    before = faults()
    for _ in range(count):
        back.put(there.get())
    back.put(faults() - before)


def measure(package, kind, size):
    """Print seconds a round trip, page faults in it, and seconds for two copies."""
    mp = importlib.import_module(package).get_context("fork")
    item = KINDS[kind](size)
    if package == "multiprocessing":
        pickle.dumps(item)  # where it cannot be, put() would not say so
    count = max(5, min(300, (200 << 20) // size))
    there, back = mp.Queue(), mp.Queue()
    process = mp.Process(target=echo, args=(there, back, count))
    process.start()
    for _ in range(WARM_UP):
        there.put(item)
        back.get()
    before, times = faults(), []
    for _ in range(count):
        began = time.perf_counter()
        there.put(item)
        back.get()
        times.append(time.perf_counter() - began)
    faulted = faults() - before + back.get()
    process.join()
    print(min(times), faulted / count, 2 * copying(size))


def copying(size):
    import numpy

    source, target = numpy.ones(size, "u1"), numpy.ones(size, "u1")
    times = []
    for _ in range(100 if size < 1 << 24 else 10):
        began = time.perf_counter()
        numpy.copyto(target, source)
        times.append(time.perf_counter() - began)
    return min(times)


def measured(package, kind, size):
    """(seconds, faults, seconds for two copies), or None if it cannot be."""
    command = [sys.executable, __file__, "--measure", package, kind, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return tuple(map(float, done.stdout.split())) if done.returncode == 0 else None


def best(kind, size, rounds):
    got = {"multiprocessing": [], "kinfolk": []}
    for _ in range(rounds):
        for package, figures in got.items():
            figures.append(measured(package, kind, size))
    return [min(figures) if None not in figures else None for figures in got.values()]


def beside(theirs, ours):
    took, faulted, copies = ours
    stdlib, ratio = "", ""
    if theirs:  # which has no pickle of a memoryview
        stdlib, ratio = f"{theirs[0] * 1e6:,.0f}", f"{theirs[0] / took:.1f}"
    return f"{stdlib} | {took * 1e6:,.0f} | {ratio} | {faulted:.1f} | {copies / took:.2f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND")
    parser.add_argument("--sizes", default="65536,1048576,67108864")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        package, kind, size = options.measure
        measure(package, kind, int(size))
        return
    print("| payload | bytes | multiprocessing, µs | kinfolk | ratio | faults | of memcpy |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for kind in options.kinds:
        for size in map(int, options.sizes.split(",")):
            theirs, ours = best(kind, size, options.rounds)
            if not ours:
                print(f"| {kind} | {size} | | failed | | | |")
                continue
            print(f"| {kind} | {size} | {beside(theirs, ours)} |")


if __name__ == "__main__":
    main()
