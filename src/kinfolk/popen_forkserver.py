"""Start a child by the fork server.

The server is the child's parent as far as the system goes: it is there that the exit code is taken,
and from there that it is reported, on a descriptor of our own.  The sentinel is the child's pidfd,
as everywhere.  Signals go by it too: the child's pid may be another process's by the time that we
hear of the end.
"""

import os

from . import forkserver, popen_fork, spawn
from ._wait import readable
from ._watch import Watch

__all__ = ["Popen"]


class _DupFd:
    """A descriptor that the child is given, known by its place among them."""

    def __init__(self, ind):
        self.ind = ind

    def detach(self):
        return forkserver.get_inherited_fds()[self.ind]


class Popen(popen_fork.Popen):
    """A running child that the fork server has made (see popen_fork.Popen)."""

    method = "forkserver"
    DupFd = _DupFd

    def __init__(self, process_obj):
        self._fds = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd):
        """Have the child be given `fd`; return its place in get_inherited_fds() there."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj):
        obj = spawn.pack(process_obj, self)
        self._blobs = [obj]
        watch = Watch(process_obj)
        tracker_fd = spawn.tracker_fd()

        def payload_for(state):
            changes = self._pack_changes(state)
            return forkserver.request_for(
                process_obj.name, changes, spawn.number_of(obj), watch, tracker_fd
            )

        try:
            self.pid, self._pidfd, self._status_fd = forkserver.connect_to_new_process(
                [*forkserver.fds_for(watch, tracker_fd), *self._fds], payload_for
            )
        except BaseException:
            watch.abandon()
            raise
        sentinel = watch.sentinel_of(self.pid, self._pidfd)
        self._hold(sentinel, self._status_fd, self._pidfd)

    def _pack_changes(self, state):
        changes = forkserver.changes_since(state)
        if not changes:
            return None
        blob = spawn.pack_data(changes)
        self._blobs.append(blob)
        return blob

    def _await_end(self, timeout):
        return readable(self.sentinel, timeout)

    def _collect(self):
        if not readable(self.sentinel, 0):
            return None
        # The server, if it lives, takes notice as soon as we do: this hardly waits.
        report = os.read(self._status_fd, 4)
        if len(report) < 4:
            return popen_fork._UNKNOWN
        return int.from_bytes(report, "little", signed=True)

    def _send_signal(self, signum):
        if self._pidfd is None:
            super()._send_signal(signum)
        elif self.returncode is None:
            from signal import pidfd_send_signal

            try:
                pidfd_send_signal(self._pidfd, signum)
            except ProcessLookupError:
                pass

    def _bury(self):
        super()._bury()
        for blob in self._blobs:
            blob.close()
