"""What can be learned of a worker that has died: its stack, if it crashed, and if memory was short.

A worker has a file without a name, into which faulthandler writes the stack of a crash; the parent
reads it when the worker is dead.  Whether the kernel killed for want of memory is counted by
control groups: `oom_kill` in memory.events (cgroup-v2.rst of the kernel's documentation).
"""

import faulthandler
import os
import sys

from .reduction import DupFd

__all__ = ["LastWords", "oom_kills"]

_MOST = 1 << 16  # bytes of a stack that are read
_kept = []  # in a worker: its own, which faulthandler knows by number only


class LastWords:
    """The file of one worker, which it gets as it starts.  None to be had: there will be no words."""

    def __init__(self, fd=-1):
        if fd < 0 and hasattr(os, "memfd_create"):
            fd = os.memfd_create("kinfolk-last-words")
        self._fd = fd

    def __reduce__(self):
        return _received, (DupFd(self._fd) if self._fd >= 0 else None,)

    def listen(self):
        """In the worker: have crashes written down, from now on to its end."""
        if self._fd >= 0:
            faulthandler.enable(self._fd, all_threads=False)
            _kept.append(self)

    def take(self):
        """In the parent, once: the text, "" if there is none.

        A program that asked for stacks on stderr still gets them there.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return ""
        try:
            text = os.pread(fd, _MOST, 0).decode("utf-8", "backslashreplace")
        finally:
            os.close(fd)
        if text and faulthandler.is_enabled() and sys.stderr is not None:
            sys.stderr.write(text)
        return text

    def __del__(self, close=os.close):
        if self._fd >= 0:
            close(self._fd)


def _received(duplicate):
    return LastWords(duplicate.detach() if duplicate is not None else -1)


def oom_kills():
    """How many processes of this one's control group were killed for want of memory; 0: unknown."""
    from ._processors import groups  # the parent's business

    for folder in groups("memory"):
        try:
            with open(f"{folder}/memory.events") as file:
                counts = [line.split() for line in file]
            for name, number in counts:
                if name == "oom_kill":
                    return int(number)
        except (OSError, ValueError):
            pass
    return 0
