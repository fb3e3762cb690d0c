#!/usr/bin/env python3
"""Run test files over and over in one process, and count what stays.

    .venv/bin/python tools/leaks.py [--rounds N] [FILE ...]     by default the files about pickling
    .venv/bin/python tools/leaks.py --suite                     CPython's own test_pickle, likewise

Prints, for each file, by how many memory blocks (and on a debug build of Python, references) the
interpreter grew in each of the last rounds.  Something leaks if every one of them grew;
exit 1 then.  Tests that remember what they have seen (Hypothesis) grow a little, and less and less.
"""

import argparse
import contextlib
import gc
import io
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(
    [
        *(ROOT / "tests/api").glob("test_pickle_*.py"),
        *(ROOT / "tests/api").glob("test_cloudpickle_*.py"),
        ROOT / "tests/api/test_fuzz_corpus.py",
    ]
)
WARM_UP = 3
#: What a round may leave behind.  A leak in one test leaves more than this in each.
FEW_BLOCKS = 40


def held():
    gc.collect()
    gc.collect()
    return sys.getallocatedblocks(), getattr(sys, "gettotalrefcount", int)()


def report(name, counts, few=FEW_BLOCKS):
    """counts: what was held after each round; few: what each may leave behind."""
    steps = [
        tuple(now - then for now, then in zip(after, before))
        for before, after in zip(counts, counts[1:])
    ][WARM_UP - 1 :]
    blocks = [step[0] for step in steps]
    references = [step[1] for step in steps] if any(step[1] for step in steps) else []
    leaks = min(blocks) > few or bool(references) and min(references) > few
    words = f"blocks {blocks}" + (f" references {references}" if references else "")
    print(f"{'LEAKS ' if leaks else 'quiet '} {name}: {words}", flush=True)
    return leaks


class Rounds:
    """A plugin of pytest's: all the tests, again and again.  Nothing remembers their reports."""

    def __init__(self, rounds):
        self.rounds, self.counts, self.failed, self.ran = rounds, [], set(), 0

    def pytest_runtestloop(self, session):
        for _ in range(self.rounds):
            for item, following in zip(session.items, [*session.items[1:], None]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self.counts.append(held())
        return True

    def pytest_runtest_logreport(self, report):
        self.ran += report.when == "call"
        if report.failed:
            self.failed.add(report.nodeid)


def run_file(path, rounds):
    import pytest

    plugin = Rounds(rounds)
    quiet = ["-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts="]
    pytest.main([*quiet, "--rootdir", str(ROOT), path], plugins=[plugin])
    if plugin.failed or not plugin.ran:
        print(f"FAILED {path}: {sorted(plugin.failed) or 'no tests ran'}")
        return True
    # pytest itself keeps a block or two of each test that it has run.
    return report(Path(path).name, plugin.counts, max(FEW_BLOCKS, 3 * plugin.ran // rounds))


def run_suite(rounds):
    """CPython's own tests of picklers and unpicklers, by its C names, with ours in their place."""
    import test.test_pickle as suite

    import kinfolk.pickle as kpickle

    classes = [cls for cls in vars(suite).values() if isinstance(cls, type)]
    ours = {"pickler": kpickle.Pickler, "unpickler": kpickle.Unpickler}
    changed = set()
    for cls in classes:
        for name in ours.keys() & vars(cls).keys():
            if getattr(cls, name).__module__ == "_pickle":
                setattr(cls, name, ours[name])
                changed.add(cls)
    leaks = False
    for cls in sorted(changed, key=lambda cls: cls.__name__):
        if not issubclass(cls, unittest.TestCase):
            continue
        counts = []
        for _ in range(rounds):
            with contextlib.redirect_stdout(io.StringIO()):
                unittest.defaultTestLoader.loadTestsFromTestCase(cls).run(unittest.TestResult())
            counts.append(held())
        leaks |= report(cls.__name__, counts)
    return leaks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=[str(file) for file in FILES], metavar="FILE")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--suite", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rounds = max(options.rounds, WARM_UP + 1)
    if options.suite:
        return run_suite(rounds)
    if options.alone:
        return run_file(options.files[0], rounds)
    # each file in a process of its own: what one leaves behind is not the next one's
    again = [sys.executable, __file__, "--alone", "--rounds", str(rounds)]
    results = [subprocess.run([*again, file]).returncode for file in options.files]
    return any(results)


if __name__ == "__main__":
    sys.exit(main())
