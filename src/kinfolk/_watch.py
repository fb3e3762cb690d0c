"""How parent and child each learn that the other has ended.

The parent has a sentinel for every child, and every child has one for its parent: a pidfd, which
becomes readable when the process ends and which no third process can keep from doing so.

A daemon does not look at its sentinel, it must not outlive its parent by an instant: it is bound to
the parent's lifeline (kin/process.h), by which the kernel kills it.  With SIGKILL: it may have
inherited a handler for SIGTERM, and nobody is left to see that it did not end.  A parent that ends
in the normal way has sent SIGTERM to its daemons, and waited, before it comes to that.

Where the kernel has no pidfds, the child holds the write end of a pipe open for as long as it is
there, and looks at its parent's lifeline, which is the same thing the other way round.
"""

import errno
import os

from . import _kin

__all__ = ["Watch", "look_after_parent"]


class Watch:
    """Made before the child is: what the two will watch each other by.

    `inherited` are the descriptors that the child must get.  Then one of: `sentinel_of(pid)` in the
    parent when the child is there, `abandon()` if there will be none, `given_up_to_child()` in a
    child that was forked.
    """

    def __init__(self, process_obj):
        self._daemon = process_obj.daemon
        self._pipe = None if _has_pidfd() else os.pipe()
        needed = self._daemon or self._pipe is not None
        self._lifeline = _kin.lifeline_fd() if needed else None

    @property
    def inherited(self):
        """The descriptors that a child must get which was not forked."""
        fds = [] if self._lifeline is None else [self._lifeline]
        return fds if self._pipe is None else [*fds, self._pipe[1]]

    def arguments(self):
        """What look_after_parent() in the child is to be called with, after the parent's pid."""
        return self._lifeline, self._daemon

    def sentinel_of(self, pid, pidfd=None):
        """Return a descriptor that is readable once the child, process `pid`, has ended.

        That is `pidfd` if it is there already.
        """
        self._close_what_is_the_childs()
        if self._pipe is not None:
            return self._pipe[0]
        return _open(pid) if pidfd is None else pidfd

    def abandon(self):
        """Close everything: no child was made."""
        self._close_what_is_the_childs()
        if self._pipe is not None:
            os.close(self._pipe[0])

    def given_up_to_child(self):
        """In a forked child: close what is the parent's, and return `arguments()`."""
        if self._pipe is not None:
            os.close(self._pipe[0])
        return self.arguments()

    def _close_what_is_the_childs(self):
        for fd in self.inherited:
            os.close(fd)


def look_after_parent(pid, lifeline, daemon):
    """In a child: return a descriptor that is readable once process `pid`, its parent, has ended.

    A daemon is killed at that moment.  Takes `lifeline` over, which others need not have.
    """
    try:
        sentinel = _open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        sentinel = os.dup(lifeline)
    if daemon:
        from signal import SIGKILL

        _kin.lifeline_bind(lifeline, SIGKILL)
    elif lifeline is not None:
        os.close(lifeline)
    return sentinel


def _open(pid):
    try:
        return _kin.pidfd_open(pid)
    except ProcessLookupError:  # it has ended, and more: nobody remembers how
        r, w = os.pipe()
        os.close(w)
        return r


def _has_pidfd():
    global _pidfd
    if _pidfd is None:
        try:
            os.close(_kin.pidfd_open(os.getpid()))
            _pidfd = True
        except OSError:
            _pidfd = False
    return _pidfd


_pidfd = None
