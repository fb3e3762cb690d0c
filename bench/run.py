"""kinfolk beside the standard library and others, in one run: `make bench`.

    python bench/run.py [CASE ...] [--rounds N] [--markdown]

Each figure is the best of N fresh interpreters, the packages taking turns, so that a noisy
moment of the machine hits all of them.  ratio: how many times better kinfolk is than
multiprocessing.  A peer that is not installed, or has no such thing, has no figure.
"""

import argparse
import os
import subprocess
import sys

import manager_cases  # noqa: F401
import peers
import pool_cases  # noqa: F401
import shared_cases  # noqa: F401
import start_cases  # noqa: F401
import sync_cases  # noqa: F401
import value_cases  # noqa: F401
from cases import CASES
from rich.console import Console
from rich.progress import track
from rich.table import Table

OTHERS = ["faster-fifo", "Pipe"]
HEADS = ["case", *peers.PACKAGES, "ratio", *OTHERS]
CASES_PY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.py")


def measure(package, name):
    """One figure; None, and why on stderr, if there is none."""
    try:
        done = subprocess.run(
            [sys.executable, CASES_PY, package, name],
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{name}: {package}: {error}", file=sys.stderr)
        return None
    return float(done.stdout)


def best_of(name, rounds):
    """The best figure of each package that has any."""
    case = CASES[name]
    packages = [*peers.PACKAGES, *filter(peers.is_installed, case.peers)]
    figures = {package: [] for package in packages}
    for _ in range(rounds):
        for package in packages:
            figures[package].append(measure(package, name))
    pick = max if case.higher_is_better else min
    return {package: pick(got) for package, got in figures.items() if None not in got}


def ratio(name, best):
    """How many times better, in words."""
    if any(package not in best for package in peers.PACKAGES):
        return "failed"
    stdlib, kinfolk = (best[package] for package in peers.PACKAGES)
    if min(stdlib, kinfolk) == 0:
        return ""
    return f"{kinfolk / stdlib if CASES[name].higher_is_better else stdlib / kinfolk:.1f}"


def show(figure):
    if figure is None:
        return ""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def row(name, rounds):
    best = best_of(name, rounds)
    return (
        f"{name.replace('_', ' ')} ({CASES[name].unit})",
        *(show(best.get(package)) for package in peers.PACKAGES),
        ratio(name, best),
        *(show(best.get(other)) for other in OTHERS),
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    console = Console(stderr=True)
    rows = [row(name, options.rounds) for name in track(options.cases, console=console)]
    if options.markdown:
        print("| " + " | ".join(HEADS) + " |\n|---" + "|---:" * (len(HEADS) - 1) + "|")
        for cells in rows:
            print("| " + " | ".join(cells) + " |")
    else:
        title = f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, best of {options.rounds}"
        table = Table(*HEADS, title=title)
        for cells in rows:
            table.add_row(*cells)
        Console().print(table)
    sys.exit(any("failed" in cells for cells in rows))


if __name__ == "__main__":
    main()
