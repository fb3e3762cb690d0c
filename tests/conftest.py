"""Around every test: what the process holds is the same before and after.

Open descriptors, children, Python threads and names in /dev/shm are listed before
a test and again after it; a test that leaves more than it found fails, with the
list of what it left.  Things are compared by kind, not by number: a test that has
killed the zygote and made kinfolk start another has left nothing.

What a process of a family gets once and keeps (the arena, the zygote and its
sockets, the lifeline of daemons, a doorbell, …) is got before the first test, so that it
never counts as left by the one that happened to come first.

`@pytest.mark.leaves_traces("why")` excuses a test.
"""

import gc
import os
import re
import signal
import threading
import time
from collections import Counter

import hypothesis
import pytest

PATIENCE = 5.0  # seconds that an ended child's remains may take to go

# A shell's background job starts with SIGINT ignored, and what is ignored stays so across exec.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("kinfolk", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("kinfolk")


def pytest_runtest_logstart(nodeid):
    """For tools/run_tests.py: which test it was, if pytest itself does not come to its end."""
    if "KINFOLK_NOW" in os.environ:
        with open(os.environ["KINFOLK_NOW"], "w") as now:
            now.write(nodeid)


@pytest.fixture(scope="session", autouse=True)
def settled_family():
    """Get what a process gets once."""
    import kinfolk
    import kinfolk.connection

    for method in ("fork", "spawn", "forkserver"):
        child = kinfolk.get_context(method).Process(target=int, daemon=True)
        child.start()
        child.join()
        assert child.exitcode == 0, f"a child by {method} that does nothing: {child.exitcode}"
        child.close()
    kinfolk.connection.wait([kinfolk.Event()], 0.001)  # the doorbell that is kept
    with kinfolk.Lock():  # the family's table of texts
        pass


@pytest.fixture(autouse=True)
def nothing_left_behind(request, settled_family):
    if request.node.get_closest_marker("leaves_traces"):
        yield
        return
    before = held()
    yield
    left = grown(before)
    give_up = time.monotonic() + PATIENCE
    while left and time.monotonic() < give_up:
        time.sleep(0.01)
        left = grown(before)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


def held() -> dict[str, Counter]:
    """Everything the process holds that could be left behind, counted by kind."""
    return {
        "descriptor": Counter(descriptors()),
        "child": Counter(children()),
        "thread": Counter(thread.name for thread in threading.enumerate()),
        "/dev/shm": Counter(os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else ()),
    }


def grown(before: dict[str, Counter]) -> list[str]:
    gc.collect()
    return [
        f"{what}: {kind}" + (f" ({count} of them)" if count > 1 else "")
        for what, now in held().items()
        for kind, count in (now - before[what]).items()
    ]


def descriptors():
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that listed the others
            continue
        yield without_numbers(target)


def children():
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                pids = file.read().split()
        except FileNotFoundError:  # the thread has ended since
            continue
        for pid in pids:
            try:
                with open(f"/proc/{pid}/cmdline") as file:
                    words = file.read().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield without_numbers(" ".join(words)) or "a zombie"


def without_numbers(text: str) -> str:
    return re.sub(r"\d+", "N", text)
