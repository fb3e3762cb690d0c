#!/usr/bin/env python3
"""All that `make test` promises, counted.

    .venv/bin/python tools/run_tests.py [what pytest shall be told]

Runs each step to its end, also when one before it failed, and closes with what failed and

    N passed, N failed, N skipped

over all of them: the C tests, the Python tests and CPython's pickle tests one by one,
each check of the tree as one.  The models and CPython's pickle tests run beside the Python tests, and
are shown after them.  With arguments it runs pytest alone, with these.  The reports (JUnit) lie in
build/reports.
"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build/reports"
PYTEST_LIMIT = 20 * 60  # seconds for the whole suite; each test has its own limit in pyproject.toml
LAST_WORDS = 10  # seconds that pytest has to show its threads' stacks when it is given up

CLOSING = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")

counts: Counter[str] = Counter()
failures: list[str] = []  # names, for the end


def announce(title: str) -> None:
    print(f"\n== {title}", flush=True)


def run(*command: object, timeout: float | None = 600) -> bool:
    """Run a command in the checkout; was it a success?"""
    try:
        return subprocess.run([*map(str, command)], cwd=ROOT, timeout=timeout).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"gave up after {timeout} s: {' '.join(map(str, command))}")
        return False


def count(title: str, outcome: str) -> None:
    counts[outcome] += 1
    if outcome == "failed":
        failures.append(title)


def check(title: str, *command: object) -> None:
    """A step that is one test."""
    announce(title)
    count(title, "passed" if run(*command) else "failed")


def captured(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout, to be shown later."""
    return subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def show_models(done: subprocess.CompletedProcess[str]) -> None:
    title = "the models of the queue's protocols, by spin"
    announce(title)
    print(done.stdout, end="", flush=True)
    count(title, "skipped" if done.returncode == 77 else "failed" if done.returncode else "passed")


def count_report(report: Path, ran_well: bool) -> None:
    """Add the cases of a JUnit report.  A run that failed with no failed case to show counts as
    one failure: it broke before or after its tests."""
    found: Counter[str] = Counter()
    if report.exists():
        for case in ET.parse(report).iter("testcase"):
            outcome = {child.tag for child in case}
            if outcome & {"failure", "error"}:
                found["failed"] += 1
                failures.append(f"{case.get('classname')}::{case.get('name')}")
            else:
                found["skipped" if "skipped" in outcome else "passed"] += 1
    if not ran_well and not found["failed"]:
        found["failed"] += 1
        failures.append(f"{report.name}, which is not there or shows no failure")
    counts.update(found)


def c_tests() -> None:
    announce("C tests of libkin")
    report = ROOT / "build/libkin/meson-logs/testlog.junit.xml"
    report.unlink(missing_ok=True)
    count_report(report, run("tools/libkin-test", "build/libkin", "-Dwerror=true"))


def python_tests(arguments: list[str]) -> None:
    announce(f"Python tests, on the installed wheel, Python {sys.version.split()[0]}")
    report, now = REPORTS / "pytest.xml", REPORTS / "now.txt"
    for file in report, now:
        file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "KINFOLK_NOW": str(now)}) as pytest:
        try:
            pytest.wait(PYTEST_LIMIT)
        except subprocess.TimeoutExpired:
            give_up(pytest)
    if not report.exists():
        where = now.read_text() if now.exists() else "before the first test"
        failures.append(f"pytest itself: exit code {pytest.returncode}, last in {where}")
    count_report(report, pytest.returncode == 0)


def give_up(pytest: subprocess.Popen) -> None:
    """End it; its faulthandler shows first where its threads are."""
    print(f"gave up after {PYTEST_LIMIT} s", flush=True)
    pytest.send_signal(signal.SIGABRT)
    try:
        pytest.wait(LAST_WORDS)
    except subprocess.TimeoutExpired:
        pytest.kill()


def has_pickle_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_pickle") is not None
    except ModuleNotFoundError:  # no package `test`
        return False


def show_pickle_tests(done: subprocess.CompletedProcess[str] | None) -> None:
    title = "CPython's own pickle tests, on kinfolk.pickle"
    announce(title)
    if done is None:
        print("left out: this Python was installed without its tests")
        counts["skipped"] += 1
        return
    print(done.stdout, end="", flush=True)
    closing = CLOSING.match(done.stdout.rstrip().rpartition("\n")[2])
    passed, failed, skipped = map(int, closing.groups()) if closing else (0, 0, 0)
    if (done.returncode or not closing) and not failed:  # it broke before or after its tests
        failed = 1
    if failed:
        failures.append(title)
    counts.update(passed=passed, failed=failed, skipped=skipped)


def main(arguments: list[str]) -> int:
    REPORTS.mkdir(parents=True, exist_ok=True)
    # The wheel is what is tested: nothing on the way may shadow it.
    os.environ.pop("PYTHONPATH", None)
    if not arguments:
        check("the rooms", sys.executable, "tools/check_rooms.py")
        c_tests()
        check("libkin for a C program, without Python", "tools/check_pure_c", "build/pure-c")
        extension = importlib.util.find_spec("kinfolk._kin").origin
        check(
            "the names that are shown",
            *(sys.executable, "tools/check_exports.py", "--extension", extension),
            *("--shared", "build/pure-c/prefix/lib/libkin.so"),
        )
    with ThreadPoolExecutor() as beside:
        if not arguments:
            models = beside.submit(captured, sys.executable, "tools/model")
            pickle_tests = has_pickle_tests() and beside.submit(
                captured, sys.executable, "tools/conformance.py", "--pickle"
            )
        python_tests(arguments)
    if not arguments:
        show_models(models.result())
        show_pickle_tests(pickle_tests.result() if pickle_tests else None)
    for name in failures:
        print(f"FAILED {name}")
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
