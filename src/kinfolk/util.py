"""What the other modules share: logging, finalizers, what happens at the end and after a fork.

The end of a process has an order, and this module keeps it.  `_exit_function` is registered with
atexit when the module is loaded; it runs finalizers of priority 0 and more, ends the children that
are daemons, waits for the others, and runs the remaining finalizers: the higher the priority the
earlier, the younger before the older.  When the interpreter itself is gone, the engine has the
process leave the family; a forked child, which ends before that, leaves by `_end_forked_child`.

A finalizer belongs to the process that made it: in a forked child it does nothing.  What a forked
child must do instead is registered with `register_after_fork` and runs before anything of its own.

Logging costs nothing until somebody asks for the logger: the functions that log look at one global.
"""

import atexit
import itertools
import os
import sys
from _thread import _local, allocate_lock
from _weakref import ref

from . import process

__all__ = [
    "DEBUG",
    "INFO",
    "NOTSET",
    "SUBDEBUG",
    "SUBWARNING",
    "Finalize",
    "ForkAwareLocal",
    "ForkAwareThreadLock",
    "close_all_fds_except",
    "debug",
    "get_logger",
    "get_temp_dir",
    "info",
    "is_exiting",
    "log_to_stderr",
    "register_after_fork",
    "sub_debug",
    "sub_warning",
]

# Logging

NOTSET = 0
SUBDEBUG = 5
DEBUG = 10
INFO = 20
SUBWARNING = 25

#: The name under which programs configure it.
LOGGER_NAME = "multiprocessing"
DEFAULT_LOGGING_FORMAT = "[%(levelname)s/%(processName)s] %(message)s"

_logger = None
_log_to_stderr = False


def sub_debug(msg, *args):
    """Log what is of interest only to those who work on this package."""
    if _logger:
        _logger.log(SUBDEBUG, msg, *args, stacklevel=2)


def debug(msg, *args):
    """Log at DEBUG."""
    if _logger:
        _logger.log(DEBUG, msg, *args, stacklevel=2)


def info(msg, *args):
    """Log at INFO."""
    if _logger:
        _logger.log(INFO, msg, *args, stacklevel=2)


def sub_warning(msg, *args):
    """Log between INFO and WARNING."""
    if _logger:
        _logger.log(SUBWARNING, msg, *args, stacklevel=2)


def get_logger():
    """Return the package's logger, made if need be.  It does not pass records on to the root."""
    global _logger
    import logging

    if not _logger:
        logger = logging.getLogger(LOGGER_NAME)
        logger.propagate = False
        logger.addFilter(_name_process)
        # logging has just registered its shutdown: what we do at the end is to be logged yet.
        atexit.unregister(_exit_function)
        atexit.register(_exit_function)
        _logger = logger
    return _logger


def _name_process(record):
    """Tell a record its process, which logging knows only by the name `multiprocessing`."""
    record.processName = process.current_process().name
    return True


def log_to_stderr(level=None):
    """Have the logger print to stderr, from `level` up if given; return it."""
    global _log_to_stderr
    import logging

    logger = get_logger()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(DEFAULT_LOGGING_FORMAT))
    logger.addHandler(handler)
    if level:
        logger.setLevel(level)
    _log_to_stderr = True
    return logger


# Sockets without a name in the file system

abstract_sockets_supported = sys.platform in ("linux", "android") or hasattr(
    sys, "getandroidapilevel"
)


def is_abstract_socket_namespace(address):
    """Return whether the address of a Unix socket is one without a file."""
    if not address:
        return False
    if isinstance(address, bytes):
        return address[0] == 0
    if isinstance(address, str):
        return address[0] == "\0"
    raise TypeError(f"address type of {address!r} unrecognized")


# A folder for files that end with the program


def get_temp_dir():
    """Return the path of a folder that is removed when the process that made it ends.

    Children share the folder that their parent had when they were made.
    """
    config = process.current_process()._config
    folder = config.get("tempdir")
    if folder is None:
        import shutil
        import tempfile

        folder = config["tempdir"] = tempfile.mkdtemp(prefix="pymp-")
        info("created temp directory %s", folder)
        # rmtree is handed over: this may run when modules are no longer whole.
        Finalize(None, _remove_temp_dir, args=(shutil.rmtree, folder), exitpriority=-100)
    return folder


def _remove_temp_dir(rmtree, folder):
    rmtree(folder)
    current = process.current_process()
    if current is not None:
        current._config["tempdir"] = None


# After a fork

_afterfork_counter = itertools.count()


def __getattr__(name):
    """`_afterfork_registry`: (number, id, function) -> object.

    Made when it is first asked for: a child that was started afresh need not import what it is from.
    """
    global _afterfork_registry
    if name != "_afterfork_registry":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from weakref import WeakValueDictionary

    _afterfork_registry = WeakValueDictionary()
    return _afterfork_registry


def register_after_fork(obj, func):
    """Have `func(obj)` called in every forked child, in order of registration, while `obj` lives."""
    registry = sys.modules[__name__]._afterfork_registry
    registry[next(_afterfork_counter), id(obj), func] = obj


def _run_after_forkers():
    registered = globals().get("_afterfork_registry")
    if not registered:
        return
    # By the counter, which is unique: functions cannot be compared.
    for (_, _, func), obj in sorted(registered.items(), key=lambda item: item[0][0]):
        try:
            func(obj)
        except Exception as error:
            info("after forker raised exception %s", error)


class ForkAwareThreadLock:
    """A lock between threads that is free in every new child."""

    def __init__(self):
        self._lock = allocate_lock()
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        register_after_fork(self, ForkAwareThreadLock._at_fork_reinit)

    def _at_fork_reinit(self):
        self._lock._at_fork_reinit()  # what every lock of the interpreter's own goes through

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *args):
        return self._lock.__exit__(*args)


class ForkAwareLocal(_local):
    """Data of one thread that is gone in every new child."""

    def __init__(self):
        register_after_fork(self, lambda obj: obj.__dict__.clear())

    def __reduce__(self):
        return type(self), ()


# Finalizers

#: (exit priority, number) -> Finalize
_finalizer_registry = {}
_finalizer_counter = itertools.count()


class Finalize:
    """Calls `callback(*args, **kwargs)` once: when `obj` is collected, at exit, or when called.

    `exitpriority` says when in the course of the exit; None: not at all, and then there must be an
    `obj`.  It does nothing in a process other than the one that made it.
    """

    def __init__(self, obj, callback, args=(), kwargs=None, exitpriority=None):
        if exitpriority is not None and not isinstance(exitpriority, int):
            raise TypeError(
                f"Exitpriority ({exitpriority!r}) must be None or int, not {type(exitpriority)}"
            )
        if obj is not None:
            self._weakref = ref(obj, self)
        elif exitpriority is None:
            raise ValueError("Without object, exitpriority cannot be None")
        self._callback = callback
        self._args = args
        self._kwargs = kwargs or {}
        self._key = (exitpriority, next(_finalizer_counter))
        self._pid = os.getpid()
        _finalizer_registry[self._key] = self

    # The defaults stand for globals that may be gone when the interpreter is nearly so.
    def __call__(self, wr=None, _registry=_finalizer_registry, _getpid=os.getpid):
        """Call the callback, unless that has been done or cancelled, and return what it returns."""
        if _registry.pop(self._key, None) is None:
            return None
        callback, args, kwargs = self._callback, self._args, self._kwargs
        self._forget()
        if self._pid != _getpid():
            return None
        sub_debug("finalizer calling %s with args %s and kwargs %s", callback, args, kwargs)
        return callback(*args, **kwargs)

    def cancel(self):
        """Never call the callback."""
        if _finalizer_registry.pop(self._key, None) is not None:
            self._forget()

    def still_active(self):
        """Return whether the callback may yet be called."""
        return self._key in _finalizer_registry

    def _forget(self):
        self._weakref = self._callback = self._args = self._kwargs = self._key = None

    def __repr__(self):
        name = type(self).__name__
        weak = getattr(self, "_weakref", None)
        if weak is None or weak() is None:
            return f"<{name} object, dead>"
        words = [f"callback={getattr(self._callback, '__name__', self._callback)}"]
        if self._args:
            words.append(f"args={self._args}")
        if self._kwargs:
            words.append(f"kwargs={self._kwargs}")
        if self._key[0] is not None:
            words.append(f"exitpriority={self._key[0]}")
        return f"<{name} object, {', '.join(words)}>"


def _run_finalizers(minpriority=None):
    """Run the finalizers that have a priority, and one of at least `minpriority` if given."""
    # Other threads and the collector may add and remove while this runs: a snapshot of the keys,
    # which list() takes in one step, and a look-up for each.
    due = [
        key
        for key in list(_finalizer_registry)
        if key[0] is not None and (minpriority is None or key[0] >= minpriority)
    ]
    for key in sorted(due, reverse=True):
        finalizer = _finalizer_registry.get(key)
        if finalizer is None:
            continue
        sub_debug("calling %s", finalizer)
        try:
            finalizer()
        except Exception:
            import traceback

            traceback.print_exc()
    if minpriority is None:
        _finalizer_registry.clear()


# The end of the process

_exiting = False


def is_exiting():
    """Return whether the process has begun to end."""
    return _exiting


def _exit_function():
    """Do what the end of a process asks for, once (see the top of this module)."""
    global _exiting
    if _exiting:
        return
    _exiting = True
    info("process shutting down")
    debug('running all "atexit" finalizers with priority >= 0')
    _run_finalizers(0)
    for child in process.active_children():
        if child.daemon:
            info("calling terminate() for daemon %s", child.name)
            child._popen.terminate()
    for child in process.active_children():
        info("calling join() for process %s", child.name)
        child.join()
    debug('running the remaining "atexit" finalizers')
    _run_finalizers()


atexit.register(_exit_function)


def _end_forked_child(code):
    """End a process that was forked off inside of somebody's call; does not return."""
    try:
        if process._RUNS_ATEXIT:
            atexit._run_exitfuncs()
        engine = sys.modules.get(f"{__package__}._kin")
        if engine is not None:
            engine.leave()
    finally:
        # What the system keeps of a code; the interpreter has 255 for one beyond C's numbers.
        os._exit(code & 0xFF if code.bit_length() < 64 else 0xFF)


def _begin_forked_child():
    """Drop what the process that this one was forked off would do at its end."""
    if process._RUNS_ATEXIT:
        # The handlers are the parent's; as in the standard library the child runs its own alone.
        # Both functions of atexit are there in every version from 3.13.
        atexit._clear()
        atexit.register(_exit_function)


# Descriptors and streams

try:
    MAXFD = os.sysconf("SC_OPEN_MAX")
except (OSError, ValueError):
    MAXFD = 256


def close_all_fds_except(fds):
    """Close every descriptor of this process but those in `fds`."""
    kept = sorted({-1, *fds, MAXFD})
    assert kept[-1] == MAXFD, "fd too large"
    for low, high in itertools.pairwise(kept):
        os.closerange(low + 1, high)


def close_fds(*fds):
    """Close each descriptor given."""
    for fd in fds:
        os.close(fd)


_no_stdin = None  # what sys.stdin is since _close_stdin()


def _close_stdin():
    """Have sys.stdin read from /dev/null: the terminal belongs to the first process."""
    global _no_stdin
    if sys.stdin is None or sys.stdin is _no_stdin:
        return
    try:
        sys.stdin.close()
    except (OSError, ValueError):
        pass
    try:
        fd = os.open(os.devnull, os.O_RDONLY)
        try:
            sys.stdin = _no_stdin = open(fd, encoding="utf-8", closefd=False)
        except BaseException:
            os.close(fd)
            raise
    except (OSError, ValueError):
        pass


def _breakpoint(*args, **kwargs):
    """sys.breakpointhook in children: see _debugger."""
    from . import _debugger

    return _debugger.stop(sys._getframe(1), args, kwargs)


def _flush_std_streams():
    """Flush sys.stdout and sys.stderr, whatever the program has made of them."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (AttributeError, ValueError):
            pass


# Interpreters


def _args_from_interpreter_flags():
    """Return the options by which another interpreter gets the settings of this one."""
    flags = sys.flags
    args = []
    for letter, count in (
        ("d", flags.debug),
        ("B", flags.dont_write_bytecode),
        ("S", flags.no_site),
        ("v", flags.verbose),
        ("b", flags.bytes_warning),
        ("q", flags.quiet),
        ("O", flags.optimize),
        ("I", flags.isolated),
        # -I implies the rest
        ("E", flags.ignore_environment and not flags.isolated),
        ("s", flags.no_user_site and not flags.isolated),
        ("P", getattr(flags, "safe_path", False) and not flags.isolated),
    ):
        if count:
            args.append("-" + letter * int(count))
    args += [f"-W{option}" for option in _warnings_asked_for(flags)]
    for name, value in sys._xoptions.items():
        args += ["-X", name if value is True else f"{name}={value}"]
    return args


def _warnings_asked_for(flags):
    """The options of sys.warnoptions that no other flag implies."""
    options = list(sys.warnoptions)
    implied = []
    if flags.dev_mode:
        implied.append("default")
    if flags.bytes_warning:
        implied.append(f"{'error' if flags.bytes_warning > 1 else 'default'}::BytesWarning")
    for option in implied:
        if option in options:
            options.remove(option)
    return options


def spawnv_passfds(path, args, passfds):
    """Start a program with standard streams and `passfds` as its descriptors; return its pid."""
    from . import _kin

    return _kin.spawn(path, args, None, sorted(map(int, passfds)))


_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_RUNPY = ("<frozen runpy>", f"{os.sep}runpy.py")


def _without_own_frames(tb):
    """A traceback from its first frame on that is neither this package's nor runpy's.

    Where the program's own part begins is what its author wants to see.  None if there is none.
    """
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        if not name.startswith(_OWN_FOLDER) and not name.endswith(_RUNPY):
            return tb
        tb = tb.tb_next
    return None


def _cleanup_tests():
    """Stop what runs in the background.  For CPython's test suite."""
    from test import support

    from . import forkserver, resource_tracker

    process._cleanup()
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()
    _run_finalizers()
    support.gc_collect()
    support.reap_children()
