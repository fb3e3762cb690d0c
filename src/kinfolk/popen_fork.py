"""Start a child by fork(), and wait for it: what all the Popen classes have in common.

The child is a copy of this process from which only the calling thread goes on.  It runs the process
object's `_bootstrap` and ends by os._exit(): nothing of the parent's stack is ever returned to.  The
engine's own fork handler has made it a member of the family before Python code runs.

The sentinel is a pidfd: it becomes readable when the child ends, and no other process can keep it
from doing so.  On a kernel without pidfds it is a pipe whose other end the child holds open.

Waiting comes in two steps.  First the sentinel is waited for, which takes nothing away, so that any
number of threads can; then the exit status is taken, once.  A signal handler may look at the child
between the taking and the noting: `_collecting` tells.  When the child has ended, the engine is
told to give back what it held.
"""

import os
import sys
from _thread import RLock

from . import _kin, _mainnames, util
from ._wait import readable
from ._watch import Watch, look_after_parent

__all__ = ["Popen"]

#: The exit code of a child whose status somebody else has taken.
_UNKNOWN = 255


class Popen:
    """A running child, for its process object.

    Attributes: `pid`, `sentinel` (a descriptor, readable when the child has ended), `returncode`
    (None until that has been seen).
    """

    method = "fork"

    def __init__(self, process_obj):
        util._flush_std_streams()
        self.returncode = None
        self.finalizer = None
        self._owner = os.getpid()
        self._lock = RLock()
        self._collecting = False
        self._launch(process_obj)

    def duplicate_for_child(self, fd):
        """Return the number that descriptor `fd` of this process has in the child."""
        return fd

    def poll(self, flag=os.WNOHANG):
        """Return the exit code, or None if the child runs; with flag 0, wait for it."""
        if self.returncode is not None or self._owner != os.getpid():
            return self.returncode
        if not flag & os.WNOHANG:
            self._await_end(None)
        with self._lock:
            if self.returncode is not None or self._collecting:
                return self.returncode
            self._collecting = True
            try:
                self.returncode = self._collect()
            finally:
                self._collecting = False
        if self.returncode is not None:
            self._bury()
        return self.returncode

    def wait(self, timeout=None):
        """Return the exit code, or None if the child has not ended in `timeout` seconds."""
        if self.returncode is None and timeout is not None and not self._await_end(timeout):
            return None
        return self.poll(os.WNOHANG if timeout == 0 else 0)

    def interrupt(self):
        """Send SIGINT, if the child has not been seen to end."""
        from signal import SIGINT

        self._send_signal(SIGINT)

    def terminate(self):
        """Send SIGTERM, if the child has not been seen to end."""
        from signal import SIGTERM

        self._send_signal(SIGTERM)

    def kill(self):
        """Send SIGKILL, if the child has not been seen to end."""
        from signal import SIGKILL

        self._send_signal(SIGKILL)

    def close(self):
        """Close the descriptors held for the child."""
        if self.finalizer is not None:
            self.finalizer()

    # What differs from one way of starting to another.

    def _launch(self, process_obj):
        watch = Watch(process_obj)
        try:
            mask = hold_interrupts()
            try:
                self.pid = _fork()
                if self.pid == 0:
                    _be_child(process_obj, watch, mask)
            finally:
                let_interrupts(mask)
            _mainnames.note_child(self)
        except BaseException:
            watch.abandon()
            raise
        self._adopt(watch)

    def _adopt(self, watch):
        """The child is there: get its sentinel.  If that cannot be had, have no child."""
        try:
            sentinel = watch.sentinel_of(self.pid)
        except OSError:
            self.kill()
            os.waitpid(self.pid, 0)
            raise
        self._hold(sentinel)

    def _hold(self, sentinel, *others):
        """Take over the descriptors that are held while the child is there; None is none."""
        self.sentinel = sentinel
        held = {fd for fd in (sentinel, *others) if fd is not None}
        self.finalizer = util.Finalize(self, util.close_fds, held)

    def _await_end(self, timeout):
        """Return whether the child ends within `timeout` seconds (None: wait for ever)."""
        if not readable(self.sentinel, timeout):
            return False
        try:
            # Without pidfds the sentinel is a little early: let the moment pass.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass
        return True

    def _collect(self):
        """Return the exit code if the child has ended, else None; called once at a time."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # Somebody else has waited for it (SIGCHLD is ignored, a handler takes them all): it
            # has ended, and how will never be known.
            return _UNKNOWN
        return os.waitstatus_to_exitcode(status) if pid else None

    def _send_signal(self, signum):
        if self.returncode is None:
            try:
                os.kill(self.pid, signum)  # its pid is its own until we have taken its status
            except ProcessLookupError:
                pass

    def _bury(self):
        """The child has ended: have the engine give back what it held."""
        _kin.reap()


#: What os.fork() is when nobody (gevent ...) has put their own in its place.
_SYSTEMS_OWN = os.fork


def _fork():
    """os.fork(), with a warning that names the threads where the interpreter has one that does not."""
    if sys.version_info < (3, 12) or os.fork is not _SYSTEMS_OWN:
        return os.fork()
    pid = _kin.fork()
    if pid:
        _warn_of_threads()
    return pid


def _warn_of_threads():
    count = _kin.thread_count()
    if count == 1:
        return
    threading = sys.modules.get("threading")
    others = []
    if threading is not None:
        me = threading.current_thread()
        others = [thread.name for thread in threading.enumerate() if thread is not me]
    nameless = count - 1 - len(others)
    if nameless > 0:
        others.append(f"{nameless} that Python did not start")
    if not others:
        return
    import warnings

    warnings.warn(
        f"This process (pid={os.getpid()}) is multi-threaded, use of fork() may lead to deadlocks "
        f"in the child.  Threads alive: {', '.join(others)}.  "
        "The start methods forkserver and spawn are not affected",
        DeprecationWarning,
        skip_file_prefixes=(os.path.dirname(__file__),),
    )


def hold_interrupts():
    """Have ^C wait, in this thread and in the child that it makes.  For let_interrupts()."""
    from signal import SIG_BLOCK, SIGINT, pthread_sigmask

    return pthread_sigmask(SIG_BLOCK, (SIGINT,))


def let_interrupts(mask):
    """Have ^C come again, as it did before."""
    from signal import SIG_SETMASK, pthread_sigmask

    pthread_sigmask(SIG_SETMASK, mask)


def _be_child(process_obj, watch, mask):
    """Run the process object in the process that fork() has just made; does not return.

    ^C is held until here: it shall end a child, and not the hooks that run after a fork.
    """
    code = 1
    try:
        util._begin_forked_child()
        sentinel = look_after_parent(process_obj._parent_pid, *watch.given_up_to_child())
        let_interrupts(mask)
        code = process_obj._bootstrap(parent_sentinel=sentinel)
    except KeyboardInterrupt:
        process_obj._say_interrupted()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        util._flush_std_streams()
    finally:
        util._end_forked_child(code)
