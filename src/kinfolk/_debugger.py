"""breakpoint() in a child: the debugger talks to the terminal of the program.

A child's standard input is empty, so the usual debugger ends at its first prompt.  This one opens
the terminal itself.  Where there is none, or PYTHONBREAKPOINT asks for something else, all is as
usual.  Several children may stop at once: they take turns, a prompt at a time, and each prompt says
whose it is.
"""

import fcntl
import os
import pdb
import sys

from .process import current_process

__all__ = ["stop"]


class _ChildPdb(pdb.Pdb):
    def __init__(self, terminal, output):
        super().__init__(stdin=terminal, stdout=output)
        self.prompt = f"(Pdb {current_process().name}) "
        self._terminal = terminal

    def interaction(self, *args):
        fcntl.flock(self._terminal, fcntl.LOCK_EX)
        try:
            super().interaction(*args)
        finally:
            fcntl.flock(self._terminal, fcntl.LOCK_UN)


_debugger = None


def stop(frame, args, kwargs):
    """What breakpoint(*args, **kwargs) does in a child; `frame` is where it was called."""
    global _debugger
    if os.environ.get("PYTHONBREAKPOINT") not in (None, "", "pdb.set_trace"):
        return sys.__breakpointhook__(*args, **kwargs)
    if _debugger is None:
        try:
            _debugger = _ChildPdb(open("/dev/tty"), open("/dev/tty", "w"))
        except OSError:
            return sys.__breakpointhook__(*args, **kwargs)
    _debugger.set_trace(frame)
    return None
