"""The fork server: a clean process, made once, that forks children in a moment.

It is a fresh interpreter that has imported what the children will need, the main module among it,
and runs nothing: no threads, no handlers but one.  `ensure_running` starts it, as a member of the
family.  What it was prepared by, the state of the program when it was started, is known on both
sides; what has changed since (the current folder, the environment, sys.path ...) goes with each
request, and in most there is nothing.

The two talk over a pair of sockets that nobody else can find; requests come from any process that
holds our end, which every child of the server is given, so that children start their children by
the same server.  How a request looks on the wire is the engine's business (libkin/src/process);
what this module puts into it is where the packed process object lies, and the descriptors that the
child is to have.

The server ends when nobody holds our end any more.  If it dies before that, the next start makes
another; the children that it made live on, only that their exit codes are not known.

A module that cannot be imported in the server is left to the children: the main module's errors
show where the program can see them, in the child that needed it.
"""

import errno
import gc
import marshal
import os
import signal
import sys
from _thread import allocate_lock

from . import _kin, context, process, spawn, util
from ._watch import look_after_parent

__all__ = [
    "connect_to_new_process",
    "ensure_running",
    "get_inherited_fds",
    "set_forkserver_preload",
]


_ON_ERROR = ("ignore", "warn", "fail")


class _Failed(Exception):
    """A server has ended by itself, with an error: another would fare no better."""


class _Server:
    """A fork server as its clients see it."""

    def __init__(self, channel, state, pid=None, orders=None):
        self.channel = channel  # our end of the sockets
        self.state = state  # by which it prepared itself: see _state_for_server
        self.pid = pid  # None if it is no child of ours
        self.exitcode = None  # known if it was, and ended by itself
        self._orders = orders  # what it was told: ours until it takes it over

    @classmethod
    def launch(cls, preload, state):
        """Start one that prepares itself by `state`; `preload` are the arguments of _preload."""
        # What cannot be sent is an error before anything is started.
        orders = spawn.pack_data((preload, state))
        family = _kin.family_fds()
        ours, theirs = _kin.zygote_channel()
        try:
            command = spawn.helper_command_line(
                "forkserver",
                arena_fd=family[0],
                locker_fd=family[1],
                channel=theirs,
                orders=spawn.number_of(orders),
            )
            pid = _kin.spawn(command[0], command, None, [*family, theirs])
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(ours, state, pid, orders)

    def has_died(self):
        """Whether we know that it has; of one that is no child of ours a request will tell."""
        if self.pid is None:
            return False
        return self._collect(os.WNOHANG)

    def end(self):
        """Have it end, if it is our child and has not, and forget it."""
        os.close(self.channel)
        if self.pid is None or self.has_died():
            return
        # It holds nothing that anybody needs.
        os.kill(self.pid, signal.SIGKILL)
        self._collect(0)

    def _collect(self, flag):
        try:
            ended, status = os.waitpid(self.pid, flag)
        except ChildProcessError:
            ended, status = self.pid, 0
        if not ended:
            return False
        self.pid = None  # from now on it may be the pid of another
        self.exitcode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        return True


class ForkServer:
    """This process's access to a fork server."""

    def __init__(self):
        self._lock = allocate_lock()
        self._server = None
        self._inherited_fds = None
        self._preload_modules = ["__main__"]
        self._on_error = "ignore"

    @property
    def _forkserver_pid(self):
        """The pid of the server if it is a child of this process, else None."""
        return None if self._server is None else self._server.pid

    def set_forkserver_preload(self, modules_names, *, on_error="ignore"):
        """Set the modules, a list of names, that the next server imports before its first child.

        `on_error` says what becomes of a module that cannot be imported there: with "ignore" it is
        left to the children, with "warn" the server says so in an ImportWarning, and with "fail" no
        child can be started.
        """
        if not all(type(name) is str for name in modules_names):
            raise TypeError("module_names must be a list of strings")
        if on_error not in _ON_ERROR:
            raise ValueError(f"on_error must be one of {_ON_ERROR}, not {on_error!r}")
        self._preload_modules = modules_names
        self._on_error = on_error

    def get_inherited_fds(self):
        """Return the descriptors that this process was started with; None if by no fork server."""
        return self._inherited_fds

    def connect_to_new_process(self, fds, payload_for):
        """Have the server make a child that gets copies of the descriptors `fds`.

        Returns its pid, its pidfd (None where there are none) and a descriptor on which the server
        reports its exit code.  `payload_for(state)` is called with the state of the program that
        the server was prepared by, and returns bytes; what the child does with them: see
        `_serve_one`.
        """
        try:
            return self._ask(fds, payload_for)
        except _Failed as error:
            raise BrokenPipeError(errno.EPIPE, str(error)) from None
        except BrokenPipeError:  # a server may die at any moment, and the next is as good
            return self._ask(fds, payload_for)

    def ensure_running(self):
        """Start the server if there is none.  One that the parent has started serves us too."""
        with self._lock:
            self._ensure_running_locked()

    def _ensure_running_locked(self):
        if self._server is not None and self._server.has_died():
            self._drop_locked()
        if self._server is None:
            preload = _modules_in_use(), list(self._preload_modules), self._on_error
            self._server = _Server.launch(preload, _state_for_server())

    def _ask(self, fds, payload_for):
        with self._lock:
            self._ensure_running_locked()
            server = self._server
            channel = os.dup(server.channel)  # the server's own may be closed meanwhile
        try:
            return _kin.zygote_start(channel, payload_for(server.state), (channel, *fds))
        except BrokenPipeError:
            with self._lock:
                if self._server is server:
                    self._drop_locked()
            if server.exitcode:
                raise _Failed(
                    "the fork server ended before it had made this child, with exit code "
                    f"{server.exitcode}; why, it has said on stderr"
                ) from None
            raise
        finally:
            os.close(channel)

    def _stop(self):
        """End the server, at once.  For tests."""
        with self._lock:
            self._drop_locked()

    def _drop_locked(self):
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def _join(self, channel, state, fds):
        """In a child of a server: be its client, with the descriptors that the child was given."""
        self._server = _Server(channel, state)
        self._inherited_fds = fds

    def _after_fork(self):
        """In a forked child: the server is no child of ours; whoever held the lock is not here."""
        self._lock = allocate_lock()
        if self._server is not None:
            self._server.pid = None


# What the server and its children are told


def _state_of_program():
    """What children must know, but for their names: preparation data and the environment."""
    state = spawn.get_preparation_data(None)
    del state["name"]
    state["environ"] = dict(os.environ)
    return state


def _state_for_server():
    state = _state_of_program()
    # The log is the children's.
    state["log_to_stderr"] = False
    state.pop("log_level", None)
    # These may be changed in place.
    for name in ("sys_path", "sys_argv"):
        state[name] = list(state[name])
    return state


def changes_since(state):
    """What a child must be told besides `state`: a dict, to be acted on by _prepare.

    Most often it is empty.
    """
    now = _state_of_program()
    return {key: value for key, value in now.items() if key not in state or state[key] != value}


def _modules_in_use():
    """Of this package; but for those that are programs."""
    ours = [name for name in sys.modules if name.startswith(f"{__package__}.")]
    return [name for name in ours if not name.endswith("__main__")]


def _prepare(data):
    if "environ" in data:
        wanted = data["environ"]
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)
    spawn.prepare(data)


# The server


def main(arena_fd, locker_fd, channel, orders):
    """Be a fork server on `channel`, and return when nobody needs it; in a child, be the child."""
    global _state
    _kin.join_family(arena_fd, locker_fd)
    preload, _state = spawn.unpack(spawn.claim(orders))
    _preload(*preload, dict(_state))
    util._flush_std_streams()  # or every child would print what was printed here
    util._close_stdin()
    before = {
        signal.SIGCHLD: signal.signal(signal.SIGCHLD, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),  # ^C is for the program
    }
    # What is here stays as it is: a collection in a child shall not look at it, and so copy it.
    sample = spawn.pack_data(context.ForkServerProcess(target=int, name="sample"))
    gc.collect()
    gc.freeze()
    request = _kin.zygote_serve(channel, lambda: _rehearse(sample))
    if request is not None:
        _be_child(*request, before)


#: By which the server was prepared, in the server and its children,
_state = None
#: and the part of it that the children have yet to act on: the main module, if it is not there.
_left_over = {}


def _preload(ours, names, on_error, data):
    """Import the modules; what goes wrong will go wrong again in the child, and be seen there.

    `ours` are those of this package that the program uses, and so will its children: a pool's
    worker is ten milliseconds of imports.
    """
    global _left_over
    main = {name: data.pop(name) for name in list(data) if name.startswith("init_main")}
    _prepare(data)
    for name in ours:
        try:
            __import__(name)
        except ImportError:
            pass
    current = process.current_process()
    _left_over = main
    if "__main__" in names:
        current._inheriting = True
        try:
            spawn.prepare(main)
            _left_over = {}
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _could_not_import("the main module", error, on_error)
        finally:
            del current._inheriting
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            _could_not_import(name, error, on_error)


def _could_not_import(name, error, on_error):
    if on_error == "fail":
        raise error
    if on_error == "warn":
        import warnings

        warnings.warn(
            f"the fork server could not import {name}: {error!r}", ImportWarning, stacklevel=2
        )


def _rehearse(sample):
    """Go through a start, in a child that has been given nothing to do yet.

    `sample` is a pickled process object.  The pages that a start writes to are copied now, and not
    when somebody waits.
    """
    process._import_late()
    os.close(look_after_parent(os.getppid(), None, False))
    sample.load().run()
    util._flush_std_streams()


def _be_child(payload, fds, handlers):
    """Run the process object that a request names; does not return."""
    code = 1
    try:
        util._begin_forked_child()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        code = _serve_one(payload, fds)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        util._flush_std_streams()
    finally:
        util._end_forked_child(code)


def request_for(name, changes, number, watch, tracker_fd):
    """Return the payload of a request for the child called `name`.

    `changes` is the blob of what changes_since() says, or None; `number` that of the process
    object (see spawn.number_of).  The first descriptors of the request are fds_for().
    """
    lifeline, daemon = watch.arguments()
    given = (lifeline is not None, tracker_fd is not None, len(watch.inherited))
    changed = None if changes is None else spawn.number_of(changes)
    return marshal.dumps((name, changed, number, os.getpid(), daemon, given))


def fds_for(watch, tracker_fd):
    """The descriptors that a child is given before those that its arguments ask for."""
    return [*watch.inherited] if tracker_fd is None else [*watch.inherited, tracker_fd]


def _serve_one(payload, fds):
    name, changed, number, parent_pid, daemon, given = marshal.loads(payload)
    has_lifeline, has_tracker, watched = given
    channel, *fds = fds
    lifeline = fds[0] if has_lifeline else None
    del fds[:watched]  # the other one is the parent's sentinel for us: only to be held open
    if has_tracker:
        spawn._share_tracker(fds.pop(0))
    _forkserver._join(channel, _state, fds)
    sentinel = look_after_parent(parent_pid, lifeline, daemon)
    process.current_process().name = name
    blobs = spawn.claim(number), None if changed is None else spawn.claim(changed)
    return spawn._run(blobs[0], lambda: _get_ready(blobs[1]), sentinel)


def _get_ready(changes):
    changed = {} if changes is None else spawn.unpack(changes)
    if _left_over or changed:
        _prepare({**_left_over, **changed})


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
connect_to_new_process = _forkserver.connect_to_new_process
set_forkserver_preload = _forkserver.set_forkserver_preload
os.register_at_fork(after_in_child=_forkserver._after_fork)
