#!/usr/bin/env python3
"""CPython's own multiprocessing and pickle tests, run unchanged through `python -m kinfolk`.

    conformance.py [--method fork|spawn|forkserver] [--pickle] [--timeout SECONDS] [PATTERN ...]

The tests are those installed beside this interpreter (test/_test_multiprocessing.py,
test/test_pickle.py); none of them is kept here.  With neither --method nor --pickle all are run.
A PATTERN chooses among their names, as in 'TestQueue' or 'WithProcessesTestLock.test_rlock'.

For the pickle tests, the pickler and unpickler of kinfolk.pickle take the places of the C ones in
`pickle` and `_pickle` before the tests are imported.  They are run twice: as `pickle`, and as
`pickle-strict` with by_value=False, where what the standard library refuses must be refused.

Each test class runs in an interpreter of its own, in a session of its own, and
writes the outcome of each test into a file as it comes.  When it passes its time,
or dies, the test that was running has failed, and the rest is run afresh.

What is known to differ is in tests/conformance/expected.txt, a reason a line:

    skip SUITE.CLASS.TEST-PATTERN  reason     not run
    fail SUITE.CLASS.TEST-PATTERN  reason     run; a failure is expected, a success is news

The last line is `N passed, N failed, N skipped`; the exit status is 1 if a test failed
that is not expected to.
"""

import argparse
import fnmatch
import functools
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "tests/conformance/expected.txt"
METHODS = ("fork", "spawn", "forkserver")
PICKLES = ("pickle", "pickle-strict")
PICKLE_API = ("Pickler", "Unpickler", "dump", "dumps", "load", "loads")
MULTIPROCESSING_SUITE = """\
from test._test_multiprocessing import install_tests_in_module_dict
install_tests_in_module_dict(globals(), {suite!r})
"""
PICKLE_SUITE = """\
from __main__ import pickle_classes
globals().update(pickle_classes({suite!r}))
"""
FRESH_STARTS = 3  # for one class; what is left after these has failed


# The part that runs inside, under `python -m kinfolk`.


def strict_pickling() -> dict[str, object]:
    """What pickles, with by_value=False unless it is told otherwise."""
    from kinfolk import pickle as ours

    class Pickler(ours.Pickler):
        def __init__(self, *args, by_value=False, **options):
            super().__init__(*args, by_value=by_value, **options)

    # A function of C does not become a method when a test class takes it for an attribute,
    # nor does a static method.
    return {
        "Pickler": Pickler,
        "dump": staticmethod(functools.partial(ours.dump, by_value=False)),
        "dumps": staticmethod(functools.partial(ours.dumps, by_value=False)),
    }


def pickle_classes(suite: str) -> dict[str, type]:
    """The classes of test_pickle that ask the C pickler or unpickler; from here on these are ours."""
    import _pickle
    import pickle

    from kinfolk import pickle as ours

    api = {name: getattr(ours, name) for name in PICKLE_API}
    if suite == "pickle-strict":
        api.update(strict_pickling())
    vars(_pickle).update(api)
    vars(pickle).update(api)
    from test import test_pickle

    return {
        name: cls
        for name, cls in vars(test_pickle).items()
        if isinstance(cls, type)
        and issubclass(cls, unittest.TestCase)
        and not name.startswith("Py")  # pickle's own in Python: nothing of ours in it
    }


def tests_of(module: str):
    """Every test of the suite, as 'Class.test' -> TestCase, in the loader's order."""

    def flatten(suite):
        for item in suite:
            if isinstance(item, unittest.TestSuite):
                yield from flatten(item)
            else:
                yield item

    suite = unittest.defaultTestLoader.loadTestsFromName(module)
    return {".".join(test.id().split(".")[-2:]): test for test in flatten(suite)}


class Journal(unittest.TextTestResult):
    """Writes 'start NAME', then 'pass|fail|skip NAME', each at once."""

    file = None

    def note(self, outcome, test):
        name = getattr(test, "test_case", test).id()  # a subtest is its test
        print(outcome, ".".join(name.split(".")[-2:]), file=self.file, flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.note("start", test)

    def stopTest(self, test):
        super().stopTest(test)
        self.note("stop", test)

    def addError(self, test, err):
        super().addError(test, err)
        self.note("fail", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note("fail", test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note("fail", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note("skip", test)


def run_inside(module: str, journal: str, names: list[str]) -> None:
    """Run the named tests of the suite; with no names, only write down what there is."""
    tests = tests_of(module)
    with open(journal, "a") as Journal.file:
        if not names:
            for name in tests:
                print("test", name, file=Journal.file)
            return
        suite = unittest.TestSuite(tests[name] for name in names)
        unittest.TextTestRunner(verbosity=2, resultclass=Journal).run(suite)


# The part that conducts.


class Conductor:
    def __init__(self, suite: str, folder: Path, timeout: float):
        self.suite = suite
        self.folder = folder
        self.timeout = timeout
        self.module = f"suite_{suite.replace('-', '_')}"
        source = PICKLE_SUITE if suite in PICKLES else MULTIPROCESSING_SUITE
        (folder / f"{self.module}.py").write_text(source.format(suite=suite))

    def start(self, names: list[str]) -> tuple[list[list[str]], str]:
        """One interpreter; returns its journal, split into words, and what it printed."""
        journal = self.folder / "journal"
        journal.write_text("")
        command = [sys.executable, "-m", "kinfolk", __file__]
        command += ["--inside", self.module, str(journal), *names]
        path = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]  # see tools/dev
        with open(self.folder / "output", "w+", errors="replace") as output:
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                child.wait(self.timeout)
            except subprocess.TimeoutExpired:
                print(f"  no end after {self.timeout:.0f} s", flush=True)
            finally:
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                child.wait()
            output.seek(0)
            return [line.split() for line in journal.read_text().splitlines()], output.read()

    def names(self) -> list[str]:
        journal, output = self.start([])
        found = [words[1] for words in journal if words[0] == "test"]
        if not found:
            raise SystemExit(f"no tests found for {self.suite}:\n{output}")
        return found

    def run_class(self, names: list[str]) -> tuple[dict[str, str], str]:
        """Outcome of each test of one class, and what was printed by the way."""
        outcomes: dict[str, str] = {}
        printed = ""
        for _ in range(FRESH_STARTS):
            left = [name for name in names if name not in outcomes]
            if not left:
                break
            journal, output = self.start(left)
            printed += output
            running = None
            for what, name in journal:
                if what in ("fail", "skip"):
                    outcomes[name] = what
                elif what == "stop":
                    outcomes.setdefault(name, "pass")
                running = name if what == "start" else None if what == "stop" else running
            if running:
                outcomes[running] = "fail"
            if not journal:  # it did not get to its first test, and would not again
                break
        return {name: outcomes.get(name, "fail") for name in names}, printed


def expectations() -> list[tuple[str, str]]:
    lines = EXPECTED.read_text().splitlines() if EXPECTED.exists() else []
    words = [line.split(maxsplit=2) for line in lines if line.strip() and line[0] != "#"]
    return [(verb, pattern) for verb, pattern, _reason in words]


def conduct(suite: str, patterns: list[str], timeout: float) -> Counter:
    counts: Counter[str] = Counter()
    known = expectations()

    def expected(verb: str, name: str) -> bool:
        return any(v == verb and fnmatch.fnmatch(f"{suite}.{name}", p) for v, p in known)

    with tempfile.TemporaryDirectory(prefix="kinfolk-conformance-") as folder:
        conductor = Conductor(suite, Path(folder), timeout)
        classes: dict[str, list[str]] = {}
        for name in conductor.names():
            if patterns and not any(fnmatch.fnmatch(name, f"*{p}*") for p in patterns):
                continue
            if expected("skip", name):
                counts["skipped"] += 1
            else:
                classes.setdefault(name.split(".")[0], []).append(name)
        for cls, names in classes.items():
            print(f"-- {suite}: {cls}", flush=True)
            outcomes, printed = conductor.run_class(names)
            if any(o == "fail" and not expected("fail", name) for name, o in outcomes.items()):
                print(printed, flush=True)
            for name, outcome in outcomes.items():
                if outcome == "fail" and expected("fail", name):
                    outcome = "skip"
                    print(f"   fails as expected: {name}")
                elif outcome == "fail":
                    print(f"   FAILED {suite}.{name}")
                elif outcome == "pass" and expected("fail", name):
                    print(f"   news, it passes: {name} (see {EXPECTED.name})")
                counts[{"pass": "passed", "fail": "failed", "skip": "skipped"}[outcome]] += 1
    return counts


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        run_inside(sys.argv[2], sys.argv[3], sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=METHODS, action="append", default=[])
    parser.add_argument("--pickle", action="store_true", help="the pickle tests, both ways")
    parser.add_argument("--timeout", type=float, default=240, help="seconds for a test class")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    chosen = [*args.method, *(PICKLES if args.pickle else ())]
    for suite in chosen or [*METHODS, *PICKLES]:
        counts += conduct(suite, args.patterns, args.timeout)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
