"""Start a child as a fresh interpreter.

The process object is packed before anything is started, so that what cannot be sent is an error
here, with nothing to clean up.  The child inherits the standard streams, the descriptors of the
family, those that the arguments asked to be passed on, and no other.

The blobs stay ours until the child has taken them over; if it ends before that, they are given back
with the rest of this object.
"""

import os

from . import _kin, popen_fork, spawn
from ._watch import Watch

__all__ = ["Popen"]


class _DupFd:
    """A descriptor that the child inherits under the number that it has here."""

    def __init__(self, fd):
        self.fd = fd

    def detach(self):
        os.set_inheritable(self.fd, False)  # here, and no further
        return self.fd


class Popen(popen_fork.Popen):
    """A running child that was started afresh (see popen_fork.Popen)."""

    method = "spawn"
    DupFd = _DupFd

    def __init__(self, process_obj):
        self._fds = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd):
        """Have the child inherit `fd`; return its number there, the same."""
        self._fds.append(fd)
        return fd

    def _launch(self, process_obj):
        obj = spawn.pack(process_obj, self)
        data = spawn.pack_data(spawn.get_preparation_data(process_obj._name))
        self._blobs = data, obj
        watch = Watch(process_obj)
        try:
            mask = (
                popen_fork.hold_interrupts()
            )  # until the child can deal with one: see spawn._main
            try:
                self.pid = self._execute(watch, mask)
            finally:
                popen_fork.let_interrupts(mask)
        except BaseException:
            watch.abandon()
            raise
        self._adopt(watch)

    def _execute(self, watch, mask):
        from signal import SIGINT

        arena_fd, locker_fd = _kin.family_fds()
        tracker_fd = spawn.tracker_fd()
        data, obj = map(spawn.number_of, self._blobs)
        lifeline, daemon = watch.arguments()
        command = spawn.get_command_line(
            arena_fd=arena_fd,
            locker_fd=locker_fd,
            data=data,
            obj=obj,
            parent_pid=os.getpid(),
            lifeline=lifeline,
            daemon=int(daemon),
            tracker_fd=tracker_fd,
            held=int(SIGINT in mask),
        )
        keep = {arena_fd, locker_fd, *watch.inherited, *self._fds}
        if tracker_fd is not None:
            keep.add(tracker_fd)
        return _kin.spawn(command[0], command, None, sorted(keep))

    def _bury(self):
        super()._bury()
        for blob in self._blobs:
            blob.close()
