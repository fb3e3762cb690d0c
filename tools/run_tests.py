#!/usr/bin/env python3
"""All that `make test` promises, counted.

    .venv/bin/python tools/run_tests.py [what pytest shall be told]

Runs each step to its end, also when one before it failed, and closes with

    N passed, N failed, N skipped

over all of them: the C tests, the Python tests and CPython's pickle tests one by one,
each check of the tree as one.  With arguments it runs pytest alone, with these.  The reports
(JUnit) lie in build/reports.
"""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build/reports"
PYTEST_LIMIT = 20 * 60  # seconds for the whole suite; each test has its own limit in pyproject.toml

CLOSING = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")

counts: Counter[str] = Counter()


def announce(title: str) -> None:
    print(f"\n== {title}", flush=True)


def run(*command: object, timeout: float | None = 600) -> bool:
    """Run a command in the checkout; was it a success?"""
    try:
        return subprocess.run([*map(str, command)], cwd=ROOT, timeout=timeout).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"gave up after {timeout} s: {' '.join(map(str, command))}")
        return False


def check(title: str, *command: object) -> None:
    """A step that is one test."""
    announce(title)
    counts["passed" if run(*command) else "failed"] += 1


def models() -> None:
    announce("the models of the queue's protocols, by spin")
    done = subprocess.run([sys.executable, "tools/model"], cwd=ROOT)
    counts["skipped" if done.returncode == 77 else "failed" if done.returncode else "passed"] += 1


def count_report(report: Path, ran_well: bool) -> None:
    """Add the cases of a JUnit report.  A run that failed with no failed case to show counts as
    one failure: it broke before or after its tests."""
    found: Counter[str] = Counter()
    if report.exists():
        for case in ET.parse(report).iter("testcase"):
            outcome = {child.tag for child in case}
            if outcome & {"failure", "error"}:
                found["failed"] += 1
            else:
                found["skipped" if "skipped" in outcome else "passed"] += 1
    if not ran_well and not found["failed"]:
        found["failed"] += 1
    counts.update(found)


def c_tests() -> None:
    announce("C tests of libkin")
    report = ROOT / "build/libkin/meson-logs/testlog.junit.xml"
    report.unlink(missing_ok=True)
    count_report(report, run("tools/libkin-test", "build/libkin", "-Dwerror=true"))


def python_tests(arguments: list[str]) -> None:
    announce(f"Python tests, on the installed wheel, Python {sys.version.split()[0]}")
    report = REPORTS / "pytest.xml"
    report.unlink(missing_ok=True)
    well = run(
        sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments, timeout=PYTEST_LIMIT
    )
    count_report(report, well)


def has_pickle_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_pickle") is not None
    except ModuleNotFoundError:  # no package `test`
        return False


def pickle_tests() -> None:
    announce("CPython's own pickle tests, on kinfolk.pickle")
    if not has_pickle_tests():
        print("left out: this Python was installed without its tests")
        counts["skipped"] += 1
        return
    command = [sys.executable, "tools/conformance.py", "--pickle"]
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        for last in child.stdout:
            print(last, end="", flush=True)
    closing = CLOSING.match(last)
    passed, failed, skipped = map(int, closing.groups()) if closing else (0, 0, 0)
    if (child.returncode or not closing) and not failed:  # it broke before or after its tests
        failed = 1
    counts.update(passed=passed, failed=failed, skipped=skipped)


def main(arguments: list[str]) -> int:
    REPORTS.mkdir(parents=True, exist_ok=True)
    # The wheel is what is tested: nothing on the way may shadow it.
    os.environ.pop("PYTHONPATH", None)
    if not arguments:
        check("the rooms", sys.executable, "tools/check_rooms.py")
        c_tests()
        models()
        check("libkin for a C program, without Python", "tools/check_pure_c", "build/pure-c")
        extension = importlib.util.find_spec("kinfolk._kin").origin
        check(
            "the names that are shown",
            *(sys.executable, "tools/check_exports.py", "--extension", extension),
            *("--shared", "build/pure-c/prefix/lib/libkin.so"),
        )
    python_tests(arguments)
    if not arguments:
        pickle_tests()
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
