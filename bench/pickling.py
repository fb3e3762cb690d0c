"""kinfolk.pickle beside its peers, in one process: `make bench-pickle`.

    python bench/pickling.py [WORDS OF A CASE ...] [--rounds N] [--markdown]

The peers take turns: in each round, each runs for some milliseconds, and each figure is the
best of all rounds, in microseconds a call.  So a noisy moment hits all of them.  The collector
is on, as in a program.  ratio: how many times faster than the standard library's
C pickle (or cloudpickle), both at protocol 5.
"""

import argparse
import ctypes
import gc
import math
import os
import pickle
import subprocess
import sys
import time
from itertools import repeat

import cloudpickle
import pickle_cases
from rich.console import Console
from rich.progress import track
from rich.table import Table

import kinfolk.pickle as kpickle

try:
    import msgspec
    import ormsgpack
except ImportError:  # no wheels for this interpreter: their columns stay empty
    msgspec = ormsgpack = None

ROUND = 0.004  # seconds for each in a round
FRESH = 50  # classes that a receiver meets for the first time


class OfMain:
    """Of the main program: kinfolk adds the class's value as a spare (docs/by-value.md)."""

    def __init__(self):
        self.a = 1

    def get(self):
        return self.a


def calls(function, arguments, count):
    """Seconds for so many calls."""
    if len(arguments) == 2:
        first, second = arguments
        began = time.perf_counter()
        for _ in repeat(None, count):
            function(first, second)
    else:
        (first,) = arguments
        began = time.perf_counter()
        for _ in repeat(None, count):
            function(first)
    return time.perf_counter() - began


def best(rivals, rounds):
    """Microseconds a call of each (function, *arguments); None where it cannot do it."""
    counts = [how_many(*rival) for rival in rivals]
    figures = [math.inf if count else None for count in counts]
    for _ in range(rounds):
        for index, (function, *arguments) in enumerate(rivals):
            if counts[index]:
                took = calls(function, arguments, counts[index]) / counts[index]
                figures[index] = min(figures[index], took * 1e6)
    return figures


def how_many(function, *arguments):
    """Calls that fill a round; 0 if it cannot be called so."""
    try:
        count, took = 1, calls(function, arguments, 1)
    except Exception:
        return 0
    while took < ROUND / 4:
        count *= 2
        took = calls(function, arguments, count)
    return max(1, int(count * ROUND / took))


def keep_pages():
    """Have malloc keep what it has: else a large result is measured by whether its pages had gone
    back to the system, which depends on who came before."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def ratio(theirs, ours):
    return theirs / ours


def mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


# -- The three tables ----------------------------------------------------------------


def beside_pickle(names, rounds):
    rows, columns = [], ([], [], [])
    for name in track(names, "beside pickle", console=Console(stderr=True)):
        thing = pickle_cases.CASES[name]()
        theirs, ours = pickle.dumps(thing, 5), kpickle.dumps(thing, 5)
        dumps = best([(pickle.dumps, thing, 5), (kpickle.dumps, thing, 5)], rounds)
        loads = best(
            [(pickle.loads, theirs), (kpickle.loads, ours), (kpickle.loads, theirs)], rounds
        )
        ratios = ratio(*dumps), ratio(*loads[:2]), ratio(loads[0], loads[2])
        for column, figure in zip(columns, ratios):
            column.append(figure)
        rows.append((name, *dumps, ratios[0], *loads[:2], *ratios[1:], len(theirs), len(ours)))
    means = [mean(column) for column in columns]
    rows.append(("**geometric mean**", None, None, means[0], None, None, *means[1:], None, None))
    heads = ("case", "dumps pickle", "kinfolk", "ratio", "loads pickle", "kinfolk", "ratio")
    return "Beside pickle, µs", (*heads, "of pickle's bytes", "bytes pickle", "kinfolk"), rows


def beside_messagepack(names, rounds):
    rows = []
    names = [name for name in names if name in pickle_cases.PLAIN]
    for name in track(names, "beside MessagePack", console=Console(stderr=True)):
        thing = pickle_cases.CASES[name]()
        dumps = best(
            [
                (pickle.dumps, thing, 5),
                (kpickle.dumps, thing, 5),
                (msgspec.msgpack.Encoder().encode, thing),
                (ormsgpack.packb, thing),
            ],
            rounds,
        )
        data = pickle.dumps(thing, 5), kpickle.dumps(thing, 5)
        loads = [(pickle.loads, data[0]), (kpickle.loads, data[1])]
        if dumps[2] is not None:
            packed = msgspec.msgpack.encode(thing)
            loads += [(msgspec.msgpack.Decoder().decode, packed), (ormsgpack.unpackb, packed)]
        rows.append((name, *dumps, *(best(loads, rounds) + [None, None])[:4]))
    each = "pickle", "kinfolk", "msgspec", "ormsgpack"
    return (
        "Plain data beside MessagePack, µs",
        ("case", *(f"dumps {peer}" for peer in each), *(f"loads {peer}" for peer in each)),
        rows,
    )


def beside_cloudpickle(rounds):
    rows, columns = [], ([], [])
    cases = {**pickle_cases.BY_VALUE, "instance of a class of __main__": OfMain}
    for name, make in track(cases.items(), "beside cloudpickle", console=Console(stderr=True)):
        thing = make()
        theirs, ours = cloudpickle.dumps(thing, 5), kpickle.dumps(thing, 5)
        dumps = best([(cloudpickle.dumps, thing, 5), (kpickle.dumps, thing, 5)], rounds)
        loads = best([(pickle.loads, theirs), (kpickle.loads, ours)], rounds)
        rows.append((name, *dumps, ratio(*dumps), *loads, ratio(*loads), len(theirs), len(ours)))
    fresh = first_meetings(rounds)
    rows.append(
        ("a class that is new to the receiver", None, None, None, *fresh, ratio(*fresh), None, None)
    )
    for column, index in zip(columns, (3, 6)):
        column += [row[index] for row in rows if row[index] is not None]
    means = [mean(column) for column in columns]
    rows.append(("**geometric mean**", None, None, means[0], None, None, means[1], None, None))
    heads = (
        "case",
        "dumps cloudpickle",
        "kinfolk",
        "ratio",
        "loads cloudpickle",
        "kinfolk",
        "ratio",
    )
    return "By value, beside cloudpickle, µs", (*heads, "bytes cloudpickle", "kinfolk"), rows


def first_meetings(rounds):
    """Loading classes of another process: each only once, for then it is known."""
    figures = [math.inf, math.inf]
    for _ in range(min(rounds, 5)):
        for index, (package, loads) in enumerate(
            (("cloudpickle", pickle.loads), ("kinfolk.pickle", kpickle.loads))
        ):
            command = [sys.executable, os.path.abspath(__file__), "--send-classes", package]
            sent = pickle.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            began = time.perf_counter()
            for data in sent:
                loads(data)
            figures[index] = min(figures[index], (time.perf_counter() - began) / FRESH * 1e6)
    return figures


def send_classes(package):
    dumps = (cloudpickle if package == "cloudpickle" else kpickle).dumps
    sent = [dumps(pickle_cases.dynamic_class()) for _ in range(FRESH)]
    sys.stdout.buffer.write(pickle.dumps(sent))


# -- Showing -----------------------------------------------------------------------------


def show(figure):
    if figure is None or isinstance(figure, str):
        return figure or ""
    if isinstance(figure, int):
        return f"{figure:,}"
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}" if figure < 1 else f"{figure:.2f}"


def print_table(title, heads, rows, markdown):
    if markdown:
        print(f"\n{title}\n\n| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
        for row in rows:
            print(f"| {' | '.join(map(show, row))} |")
        return
    table = Table(title=title)
    for head in heads:
        table.add_column(head, justify="left" if head == "case" else "right")
    for row in rows:
        cells = []
        for head, figure in zip(heads, row):
            below = head == "ratio" and figure is not None and figure < 1
            cells.append(f"[red]{show(figure)}[/]" if below else show(figure).replace("**", ""))
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="only cases with one of these")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--no-gc", action="store_true", help="with the collector off")
    parser.add_argument("--send-classes", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send_classes:
        send_classes(options.send_classes)
        return
    if options.no_gc:
        gc.disable()
    keep_pages()
    names = [
        name
        for name in pickle_cases.CASES
        if not options.words or any(word in name for word in options.words)
    ]
    tables = []
    if names:
        tables.append(beside_pickle(names, options.rounds))
    if not options.words or "value" in options.words:
        tables.append(beside_cloudpickle(options.rounds))
    if msgspec and not pickle_cases.PLAIN.isdisjoint(names):
        tables.append(beside_messagepack(names, options.rounds))
    print(f"Python {sys.version.split()[0]}, best of {options.rounds} rounds")
    for table in tables:
        print_table(*table, options.markdown)


if __name__ == "__main__":
    main()
