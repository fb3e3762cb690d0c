"""^C while a pool works: one traceback, that of the program, and nobody left.  Also at a second ^C."""

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time
import kinfolk

def work(path):
    with open(path, "w") as file:
        file.write("here")
    time.sleep(600)

if __name__ == "__main__":
    how, method, path = sys.argv[1:]
    with kinfolk.get_context(method).Pool(2) as pool:
        if how == "apply":
            pool.apply(work, (path,))
        else:
            list(getattr(pool, how)(work, [path] * 50, chunksize=1))
"""


def session_is_empty(sid):
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(name)) == sid:
                return False
        except ProcessLookupError:
            pass
    return True


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("how", ["apply", "map", "imap", "imap_unordered"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_one_traceback_and_all_gone(tmp_path, method, how, times):
    interrupt(tmp_path, method, how, times)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system's choice")
@pytest.mark.parametrize("how", ["apply", "map", "imap"])
def test_one_that_comes_just_before_the_wait(tmp_path, how):
    """On one processor it often does: the main thread has looked for signals, and lets others run."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for i in range(10):
            (tmp_path / str(i)).mkdir()
            interrupt(tmp_path / str(i), "fork", how, 2)
    finally:
        os.sched_setaffinity(0, allowed)


def interrupt(path, method, how, times):
    (path / "program.py").write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, str(path / "program.py"), how, method, str(path / "mark")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with program:
        try:
            while not (path / "mark").exists():
                assert program.poll() is None
                time.sleep(0.001)
            for _ in range(times):
                try:
                    os.killpg(program.pid, signal.SIGINT)
                except ProcessLookupError:
                    pass
            out, err = program.communicate(timeout=30)
        except BaseException:
            os.killpg(program.pid, signal.SIGKILL)
            raise
    assert program.returncode == -signal.SIGINT
    # The second may come while the first is on its way, and shows that; and one that comes while the
    # interpreter calls back a weak reference (of an import, in a child) is shown by the interpreter.
    others = err.count("During handling of the above exception") + err.count("Exception ignored in")
    assert err.count("Traceback (most recent call last)") == 1 + others, err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert out == ""
    while not session_is_empty(program.pid):  # its fork server, too
        time.sleep(0.001)
