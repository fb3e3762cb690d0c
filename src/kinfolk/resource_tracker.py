"""The resource tracker: a process that removes names that others have left behind.

What kinfolk makes by itself has no names and needs no tracker.  Named shared memory has: a segment
that a program creates by name outlives the program unless somebody removes it.  So when the first
such name is registered, and not before, a small process is started that holds the read end of a
pipe; every process of the program shares the write end.  What is registered and not unregistered
when the last of them has ended is removed, with a warning.

A message is a line, `COMMAND:name:type`, short enough to be written in one piece (see pipe(7) on
PIPE_BUF) so that writers need no lock between processes.  The tracker sits out SIGINT and SIGTERM:
it must be there when the others are not.
"""

import os
import signal
import sys
import warnings
from _thread import RLock, get_ident

from . import _kin, spawn

__all__ = ["ensure_running", "register", "unregister"]

#: Bytes.  POSIX promises that writes of this many to a pipe are not torn.
_LONGEST = 512

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _refuse(name):
    raise RuntimeError("noop should never be registered or cleaned up")


def _unlink_shared_memory(name):
    from . import shared_memory

    if not shared_memory.is_arena_name(name.lstrip("/")):  # else it went with the family
        shared_memory._unlink(name)


#: How what is left behind is removed, by type.
_CLEANUP_FUNCS = {
    "noop": _refuse,
    "shared_memory": _unlink_shared_memory,
}
if sys.version_info >= (3, 13):
    _CLEANUP_FUNCS["dummy"] = lambda name: None  # CPython's tests leave these behind


class ReentrantCallError(RuntimeError):
    """A finalizer that the collector ran came upon the tracker in the middle of something."""


class ResourceTracker:
    """A process's access to the tracker, which it may share with its parent."""

    def __init__(self):
        self._lock = RLock()
        self._busy = None  # the thread that is starting or stopping the tracker
        self._fd = None  # the write end of the pipe
        self._pid = None  # if the tracker is our own child
        self._exitcode = None

    def getfd(self):
        """Return the pipe's write end; starts the tracker if need be."""
        self.ensure_running()
        return self._fd

    def ensure_running(self):
        """Start the tracker if there is none, or it has died."""
        with self._lock:
            if self._busy == get_ident():
                raise ReentrantCallError("Reentrant call into the multiprocessing resource tracker")
            self._busy = get_ident()
            try:
                self._ensure_running_locked()
            finally:
                self._busy = None

    def _ensure_running_locked(self):
        if self._fd is not None:
            if self._check_alive():
                return
            self._bury()
            warnings.warn(
                "resource_tracker: process died unexpectedly, relaunching.  "
                "Some resources might leak.",
                stacklevel=4,
            )
        self._launch()

    def _check_alive(self):
        """Whether somebody reads the pipe."""
        try:
            os.write(self._fd, b"PROBE:0:noop\n")
        except OSError:
            return False
        return True

    def _bury(self):
        os.close(self._fd)
        self._fd = None
        pid, self._pid = self._pid, None
        if pid is None:
            return  # another process's child
        try:
            _, status = os.waitpid(pid, 0)
            self._exitcode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            self._exitcode = None

    def _launch(self):
        read_end, write_end = os.pipe()
        # The mask is inherited: no signal finds the tracker before it is ready for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            command = spawn.helper_command_line("resource_tracker", fd=read_end)
            self._pid = _kin.spawn(command[0], command, None, [read_end])
        except BaseException:
            os.close(write_end)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(read_end)
        self._fd = write_end
        self._exitcode = None

    def _stop(self):
        with self._lock:
            if self._fd is not None:
                self._bury()

    def register(self, name, rtype):
        """Have the resource `name` of type `rtype` removed at the end if it is still there."""
        self._send("REGISTER", name, rtype)

    def unregister(self, name, rtype):
        """Say that the resource has been removed."""
        self._send("UNREGISTER", name, rtype)

    def _send(self, command, name, rtype):
        line = f"{command}:{name}:{rtype}\n".encode("ascii")
        if len(line) > _LONGEST:
            raise ValueError("msg too long")
        try:
            self.ensure_running()
        except ReentrantCallError:
            warnings.warn(
                "ResourceTracker called reentrantly for resource cleanup, which is unsupported. "
                f"The {rtype} object {name!r} might leak.",
                stacklevel=3,
            )
            return
        os.write(self._fd, line)

    def _after_fork(self):
        """In a forked child: the tracker is shared, and whoever held the lock is not here."""
        self._lock = RLock()
        self._busy = None


_resource_tracker = ResourceTracker()
ensure_running = _resource_tracker.ensure_running
register = _resource_tracker.register
unregister = _resource_tracker.unregister
getfd = _resource_tracker.getfd
os.register_at_fork(after_in_child=_resource_tracker._after_fork)


# The tracker


def main(fd):
    """Be the tracker that reads from `fd`; does not return.

    Exit code: 0; 1: something was left behind; 2: and could not be removed; 3: a line made no sense.
    """
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    for stream in (sys.stdin, sys.stdout):
        try:
            stream.close()
        except Exception:
            pass
    left = {rtype: set() for rtype in _CLEANUP_FUNCS}
    code = 0
    with open(fd, "rb") as lines:
        for line in lines:
            try:
                _note(line, left)
            except Exception:
                code = 3
                sys.excepthook(*sys.exc_info())
    sys.exit(max((_clean_up(rtype, names) for rtype, names in left.items()), default=0) or code)


def _note(line, left):
    command, name, rtype = line.strip().decode("ascii").split(":")
    if rtype not in left:
        raise ValueError(
            f"Cannot register {name} for automatic cleanup: unknown resource type {rtype}"
        )
    if command == "REGISTER":
        left[rtype].add(name)
    elif command == "UNREGISTER":
        left[rtype].remove(name)
    elif command != "PROBE":
        raise RuntimeError(f"unrecognized command {command!r}")


def _clean_up(rtype, names):
    """Remove the resources of one type that were left behind; return the exit code for that."""
    if not names:
        return 0
    code = 1
    if rtype != "dummy":
        warnings.warn(
            f"resource_tracker: There appear to be {len(names)} leaked {rtype} objects to "
            f"clean up at shutdown: {names}",
            stacklevel=1,
        )
    for name in names:
        try:
            _CLEANUP_FUNCS[rtype](name)
        except Exception as error:
            code = 2
            warnings.warn(f"resource_tracker: {name!r}: {error}", stacklevel=1)
    return code
