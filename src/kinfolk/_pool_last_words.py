"""What can be learned of a worker that has crashed: its stack.

A worker has a file without a name, into which faulthandler writes it; the parent reads that when the
worker is dead.
"""

import faulthandler
import os
import sys

from .reduction import DupFd

__all__ = ["LastWords"]

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
