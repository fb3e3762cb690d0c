"""Process objects: a child as its parent sees it, and as it sees itself.

A `BaseProcess` is made in the parent, where it first describes the child and then stands for it; it
is run in the child, where it becomes `current_process()`.  How a child comes to be is not known
here: the Process class of each context names a Popen (popen_fork, popen_spawn_posix,
popen_forkserver), and every question about the running child is passed on to that.

What is handed down the tree lies in `_config` (authkey, daemon, the temporary folder...): a process
object starts with a copy of the config of the process that made it.  Names count by parent:
`Process-1:2` is the second child of the first child.

Invariants
  - `_children` are the processes that this process started and has not yet seen end; every child,
    one made by the program's own os.fork() too, starts with none.
  - What the target was called with is dropped when the child has been started, so that the parent
    keeps nothing alive for it.
  - Nothing is imported from the package while this module loads; `_import_late` is for that, before
    the first child is made.  (In a forked child an import statement, of a module that is there,
    touches forty pages, which are copied.)
"""

import itertools
import os
import sys

__all__ = ["BaseProcess", "active_children", "current_process", "parent_process"]

try:
    ORIGINAL_DIR = os.path.abspath(os.getcwd())
except OSError:  # the folder that we were started in is gone
    ORIGINAL_DIR = None

#: Python 3.13 runs what a child registered with atexit; before, a forked child ran none of it.
_RUNS_ATEXIT = sys.version_info >= (3, 13)


util = context = _kin = None


def _import_late():
    """Import what is needed of the package when there is a child."""
    global util, context, _kin
    if _kin is None:
        from . import _kin, context, util


def current_process():
    """Return the Process object of the process that asks."""
    return _current_process


def active_children():
    """Return a list of the children of this process that are alive.  Joins those that have ended."""
    _cleanup()
    return list(_children)


def parent_process():
    """Return the Process object of the parent, or None in the process that all others come from."""
    return _parent_process


def _cleanup():
    """Take leave of the children that have ended."""
    for child in list(_children):
        popen = child._popen
        if popen is not None and popen.poll() is not None:
            _children.discard(child)


class BaseProcess:
    """A child process, used as `threading.Thread` is.

    `group` must be None.  `target(*args, **kwargs)` is what the child does, unless `run()` is
    overridden.  `daemon` is inherited when None; a daemon is ended when its parent ends.  It may have
    children, which are daemons too unless they are said not to be.
    """

    def _Popen(self):
        raise NotImplementedError

    def __init__(self, group=None, target=None, name=None, args=(), kwargs={},  # noqa: B006
                 *, daemon=None):  # fmt: skip
        assert group is None, "group argument must be None for now"
        parent = _current_process
        self._identity = (*parent._identity, next(_process_counter))
        self._config = parent._config.copy()
        self._parent_pid = os.getpid()
        self._parent_name = parent.name
        self._popen = None
        self._closed = False
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs)
        self._name = name or f"{type(self).__name__}-{':'.join(map(str, self._identity))}"
        if daemon is not None:
            self.daemon = daemon
        sys.modules[__name__]._dangling.add(self)

    def run(self):
        """Do the work, in the child: call the target.  For subclasses to override."""
        if self._target:
            self._target(*self._args, **self._kwargs)

    def start(self):
        """Start the child.  At most once, and only by the process that made the object.

        Raises what keeps the arguments from being sent, or the child from being made.
        """
        self._check_closed()
        assert self._popen is None, "cannot start a process twice"
        self._check_parent("can only start a process object created by current process")
        _cleanup()
        _import_late()
        self._popen = self._Popen(self)
        self._sentinel = self._popen.sentinel
        # The child has what it needs.  The target may refer back to this object: no cycle.
        del self._target, self._args, self._kwargs
        _children.add(self)

    def interrupt(self):
        """Send the child SIGINT, which is what ^C sends."""
        self._check_closed()
        self._popen.interrupt()

    def terminate(self):
        """Send the child SIGTERM."""
        self._check_closed()
        self._popen.terminate()

    def kill(self):
        """Send the child SIGKILL."""
        self._check_closed()
        self._popen.kill()

    def join(self, timeout=None):
        """Wait until the child has ended, at most `timeout` seconds (None: for ever)."""
        self._check_closed()
        self._check_parent("can only join a child process")
        assert self._popen is not None, "can only join a started process"
        if self._popen.wait(timeout) is not None:
            _children.discard(self)

    def is_alive(self):
        """Return whether the child has been started and has not ended."""
        self._check_closed()
        if self is _current_process:
            return True
        self._check_parent("can only test a child process")
        if self._popen is None:
            return False
        if self._popen.poll() is None:
            return True
        _children.discard(self)
        return False

    def close(self):
        """Give back what this object holds.  ValueError while the child still runs."""
        if self._popen is not None:
            if self._popen.poll() is None:
                raise ValueError(
                    "Cannot close a process while it is still running. "
                    "You should first call join() or terminate()."
                )
            self._popen.close()
            self._popen = None
            del self._sentinel
            _children.discard(self)
        self._closed = True

    @property
    def name(self):
        """What the process is called; it means nothing to the system."""
        return self._name

    @name.setter
    def name(self, name):
        assert isinstance(name, str), "name must be a string"
        self._name = name

    @property
    def daemon(self):
        """Whether the process ends with its parent.  To be set before start()."""
        return self._config.get("daemon", False)

    @daemon.setter
    def daemon(self, daemonic):
        assert self._popen is None, "process has already started"
        self._config["daemon"] = daemonic

    @property
    def authkey(self):
        """The key, in bytes, with which connections of the family prove themselves."""
        return self._config["authkey"]

    @authkey.setter
    def authkey(self, authkey):
        self._config["authkey"] = AuthenticationString(authkey)

    @property
    def exitcode(self):
        """How the child ended: its exit code, minus the signal that ended it, None if it runs."""
        self._check_closed()
        return None if self._popen is None else self._popen.poll()

    @property
    def ident(self):
        """The process id; None before start()."""
        self._check_closed()
        if self is _current_process:
            return os.getpid()
        return self._popen and self._popen.pid

    pid = ident

    @property
    def sentinel(self):
        """A file descriptor that becomes ready to read when the child ends."""
        self._check_closed()
        try:
            return self._sentinel
        except AttributeError:
            raise ValueError("process not started") from None

    def _check_closed(self):
        if self._closed:
            raise ValueError("process object is closed")

    def _check_parent(self, complaint):
        assert self._parent_pid == os.getpid(), complaint

    def _status(self):
        """What repr() says of the state, and the exit code when there is one."""
        if self is _current_process:
            return "started", None
        if self._closed:
            return "closed", None
        if self._parent_pid != os.getpid():
            return "unknown", None
        if self._popen is None:
            return "initial", None
        exitcode = self._popen.poll()
        return ("started" if exitcode is None else "stopped"), exitcode

    def __repr__(self):
        status, exitcode = self._status()
        words = [type(self).__name__, f"name={self._name!r}"]
        if self._popen is not None:
            words.append(f"pid={self._popen.pid}")
        words += [f"parent={self._parent_pid}", status]
        if exitcode is not None:
            words.append(f"exitcode={_exitcode_name(exitcode)}")
        if self.daemon:
            words.append("daemon")
        return f"<{' '.join(words)}>"

    # What follows runs in the child.

    def _bootstrap(self, parent_sentinel=None):
        """Be this process from start to end, and return its exit code."""
        _import_late()
        try:
            self._take_over(parent_sentinel)
            util.info("child process calling self.run()")
            try:
                self.run()
            finally:
                if not _RUNS_ATEXIT:  # else whoever called us runs it, among the atexit handlers
                    util._exit_function()
            exitcode = 0
        except SystemExit as error:
            exitcode = _code_of_exit(error)
        except KeyboardInterrupt:
            exitcode = 1
            self._say_interrupted()
        except BaseException as error:
            exitcode = 1
            self._report(error)
        finally:
            _join_threads()
            util.info("process exiting with exitcode %d", exitcode)
            util._flush_std_streams()
        return exitcode

    def _say_interrupted(self):
        """^C is sent to the whole program: one traceback is enough, the first process's."""
        if sys.stderr is not None:
            sys.stderr.write(f"{self.name} was interrupted\n")

    def _take_over(self, parent_sentinel):
        """Become the current process of an interpreter that was another process until now."""
        global _current_process, _parent_process, _process_counter, _children

        _kin.set_member_name(self.name)
        self._join_barriers()
        if self._start_method is not None:
            context._force_start_method(self._start_method)
        _process_counter = itertools.count(1)
        _children = set()
        util._close_stdin()
        if sys.breakpointhook is sys.__breakpointhook__:
            sys.breakpointhook = util._breakpoint
        before = _current_process
        _current_process = self
        _parent_process = _ParentProcess(self._parent_name, self._parent_pid, parent_sentinel)
        threading = sys.modules.get("threading")
        if threading is not None and hasattr(threading.Thread, "_set_native_id"):
            threading.main_thread()._set_native_id()
        try:
            self._after_fork()
        finally:
            # Not before: what the old process object keeps alive may be finalized only when those
            # who registered for it know that they are in a child.
            del before

    def _join_barriers(self):
        """Be a party of the barriers among the arguments, which break if this process is killed."""
        module = sys.modules.get("kinfolk._barrier")
        if module is not None:
            for value in (*self._args, *self._kwargs.values()):
                if isinstance(value, module.Barrier):
                    value._join()

    @staticmethod
    def _after_fork():
        util._finalizer_registry.clear()
        util._run_after_forkers()

    def _report(self, error):
        """Print what ended the child, with the frames of this package left away."""
        import traceback

        if sys.stderr is None:
            return
        shown = util._without_own_frames(error.__traceback__) or error.__traceback__
        sys.stderr.write(f"Process {self.name}:\n")
        traceback.print_exception(type(error), error, shown)


def _code_of_exit(error):
    """The exit code that a SystemExit asks for, which may be a message to print instead."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    if sys.stderr is not None:
        sys.stderr.write(f"{error.code}\n")
    return 1


def _join_threads():
    """Wait for the threads that are no daemons, as the interpreter does at its end."""
    threading = sys.modules.get("threading")
    # There is no public way to do just this; every version from 3.10 to 3.14 has this one.
    shutdown = getattr(threading, "_shutdown", None)
    if shutdown is not None:
        shutdown()


class AuthenticationString(bytes):
    """A key that travels to children while they are started, and by no other way."""

    def __reduce__(self):
        from .context import get_spawning_popen

        if get_spawning_popen() is None:
            raise TypeError(
                "Pickling an AuthenticationString object is disallowed for security reasons"
            )
        return AuthenticationString, (bytes(self),)


class _OtherProcess(BaseProcess):
    """A process that is described here, and was not made by this object."""

    def __init__(self, name, config, parent_pid=None):
        self._identity = ()
        self._name = name
        self._parent_pid = parent_pid
        self._popen = None
        self._closed = False
        self._config = config


class _ParentProcess(_OtherProcess):
    def __init__(self, name, pid, sentinel):
        super().__init__(name, {})
        self._pid = pid
        self._sentinel = sentinel

    def is_alive(self):
        """Return whether the parent has not ended."""
        from ._wait import readable

        return not readable(self._sentinel, 0)

    def join(self, timeout=None):
        """Wait until the parent has ended, at most `timeout` seconds (None: for ever)."""
        from ._wait import readable

        readable(self._sentinel, timeout)

    @property
    def ident(self):
        """The process id."""
        return self._pid

    pid = ident


class _MainProcess(_OtherProcess):
    def __init__(self):
        config = {"authkey": AuthenticationString(os.urandom(32)), "semprefix": "/mp"}
        super().__init__("MainProcess", config)

    def close(self):
        """Do nothing: it is the process that this runs in."""


def _exitcode_name(code):
    """The name of the signal that ended a child (-SIGTERM), or the exit code as it is."""
    if code >= 0:
        return code
    from signal import Signals

    try:
        return f"-{Signals(-code).name}"
    except ValueError:
        return code


def _forget_children():
    """After a fork, whoever made it: the children of our parent are none of ours."""
    global _children
    _children = set()


_parent_process = None
_current_process = _MainProcess()
_process_counter = itertools.count(1)
_children = set()
os.register_at_fork(after_in_child=_forget_children)


def __getattr__(name):
    """`_dangling`: every process object that exists, for tests that look for leaks.

    Made when it is first asked for: a child that was started afresh need not import what it is from.
    """
    global _dangling
    if name != "_dangling":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from _weakrefset import WeakSet

    _dangling = WeakSet()
    return _dangling
