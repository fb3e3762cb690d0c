"""kinfolk beside the standard library, in one run: `make bench`.

    python bench/run.py [CASE ...] [--rounds N] [--markdown]

Each figure is the best of N fresh interpreters, the two packages taking turns, so
that a noisy moment of the machine hits both.  ratio: how many times better.
"""

import argparse
import os
import subprocess
import sys

from cases import CASES
from rich.console import Console
from rich.progress import track
from rich.table import Table

PACKAGES = ["multiprocessing", "kinfolk"]
CASES_PY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.py")


def measure(package, name):
    done = subprocess.run(
        [sys.executable, CASES_PY, package, name],
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    return float(done.stdout)


def best_of(name, rounds):
    _, _, higher_is_better = CASES[name]
    figures = {package: [] for package in PACKAGES}
    for _ in range(rounds):
        for package in PACKAGES:
            figures[package].append(measure(package, name))
    pick = max if higher_is_better else min
    stdlib, kinfolk = (pick(figures[package]) for package in PACKAGES)
    return stdlib, kinfolk, kinfolk / stdlib if higher_is_better else stdlib / kinfolk


def show(figure):
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in track(options.cases, console=Console(stderr=True)):
        stdlib, kinfolk, ratio = best_of(name, options.rounds)
        title = f"{name.replace('_', ' ')} ({CASES[name][1]})"
        rows.append((title, show(stdlib), show(kinfolk), f"{ratio:.1f}"))
    heads = ["case", *PACKAGES, "ratio"]
    if options.markdown:
        print("| " + " | ".join(heads) + " |\n|---|---:|---:|---:|")
        for row in rows:
            print("| " + " | ".join(row) + " |")
        return
    table = Table(
        *heads,
        title=f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, best of {options.rounds}",
    )
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
