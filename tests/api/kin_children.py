"""Children for the tests of kinfolk._kin, made without kinfolk's own Process.

`forked(work, ...)` runs a function in a child by os.fork(), which is a member of the family
without further ado.  `executed(code, ...)` runs a fresh interpreter that knows of the family
only what it is told.
"""

import gc
import os
import subprocess
import sys
import traceback

from kinfolk import _kin


class Forked:
    """A child that runs `work(*args)`; its exit code is 0 unless that raised."""

    def __init__(self, work, *args):
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            work(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def exitcode(self):
        """Wait for the end; minus the signal's number if one killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def forked(work, *args):
    return Forked(work, *args)


def run_forked(work, *args):
    """Run `work(*args)` in a child and fail unless it succeeded."""
    code = Forked(work, *args).exitcode()
    assert code == 0, f"the child ended with {code}: see stderr"


def executed(code, *args, pass_fds=()):
    """Run `code` in a new interpreter with `args` as sys.argv[1:]; return what it printed."""
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(
        command, capture_output=True, text=True, pass_fds=pass_fds, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def used_queue():
    """A queue that something has been through: it has the blocks that it keeps."""
    queue = _kin.Queue()
    queue.put(None)
    queue.get()
    return queue


def blocks():
    """How many blocks of the arena are in use, once the dead are buried."""
    gc.collect()
    _kin.reap()
    return _kin.stats()["blocks"]
