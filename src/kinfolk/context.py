"""Contexts: one way to start processes each, and everything that a program makes with it.

There are three concrete contexts, fork, spawn and forkserver, one object each.  They differ in what
`Process` is and in nothing else: what lives in the family's arena does not care how its members
were started.  The default context stands in front of one of them, chosen by `set_start_method()` or
at the first use; its methods are the functions of the package.

A factory imports its module when it is called, so that a program pays for what it uses.

Objects that travel only while a child is being started (an authentication key, a bare descriptor)
ask `get_spawning_popen()`: it is the Popen at work in this thread, or None.
"""

import os
import sys
from _thread import _local

from . import process

__all__ = ()


class ProcessError(Exception):
    """What the errors of this package have in common."""


class BufferTooShort(ProcessError):
    """The message does not fit into the buffer: it is `args[0]`, whole."""


class TimeoutError(ProcessError):
    """The time is over."""


class AuthenticationError(ProcessError):
    """The other end does not hold the key."""


class _Factory:
    """A method of contexts that makes an object of a generic class.

    Like the method, `context.Queue(maxsize)` makes a queue of that context; unlike it,
    `context.Queue[int]` can be written in an annotation.
    """

    def __init__(self, function):
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, context, owner=None):
        return self if context is None else _BoundFactory(self._function, context, self._name)


class _BoundFactory:
    def __init__(self, function, context, name):
        self.__func__ = self.__wrapped__ = function
        self.__self__ = context
        self.__name__ = name
        self.__qualname__ = function.__qualname__
        self.__doc__ = function.__doc__

    def __call__(self, *args, **kwargs):
        return self.__func__(self.__self__, *args, **kwargs)

    def __getitem__(self, item):
        from . import queues

        return getattr(queues, self.__name__)[item]

    def __reduce__(self):
        return getattr, (self.__self__, self.__name__)

    def __repr__(self):
        return f"<bound factory {self.__qualname__} of {self.__self__!r}>"


class BaseContext:
    """What all contexts can do.  The public names are those of the package."""

    ProcessError = ProcessError
    BufferTooShort = BufferTooShort
    TimeoutError = TimeoutError
    AuthenticationError = AuthenticationError

    current_process = staticmethod(process.current_process)
    parent_process = staticmethod(process.parent_process)
    active_children = staticmethod(process.active_children)

    def cpu_count(self):
        """Return the number of processors.  NotImplementedError if it cannot be known."""
        count = os.cpu_count()
        if count is None:
            raise NotImplementedError("cannot determine number of cpus")
        return count

    def Manager(self):
        """Return a started manager: a process that holds objects, reached through proxies."""
        manager = _built("managers").SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex=True):
        """Return the two Connections of a pipe; one way only if not `duplex` (reader, writer)."""
        from .connection import Pipe

        return Pipe(duplex)

    def Lock(self):
        """Return a lock that any process can release."""
        from .synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self):
        """Return a lock that its owner may acquire again."""
        from .synchronize import RLock

        return RLock(ctx=self.get_context())

    def Condition(self, lock=None):
        """Return a condition on `lock`, or on an RLock of its own."""
        from .synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value=1):
        """Return a semaphore that counts from `value`."""
        from .synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value=1):
        """Return a semaphore that refuses to rise above `value`."""
        from .synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self):
        """Return an event, not set."""
        from .synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(self, parties, action=None, timeout=None):
        """Return a barrier for `parties` processes or threads."""
        from .synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    @_Factory
    def Queue(self, maxsize=0, *, max_bytes=None):
        """Return a queue for at most `maxsize` items, without limit if that is not above 0.

        `max_bytes` is a second bound, of what is in it, pickled: see kinfolk.queues.
        """
        from .queues import Queue

        return Queue(maxsize, max_bytes=max_bytes, ctx=self.get_context())

    @_Factory
    def JoinableQueue(self, maxsize=0, *, max_bytes=None):
        """Return a queue that also knows when all its items have been dealt with."""
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, max_bytes=max_bytes, ctx=self.get_context())

    @_Factory
    def SimpleQueue(self):
        """Return a queue of put(), get() and empty()."""
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pool(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        maxtasksperchild=None,
        *,
        retries=0,
        seed=None,
        logs=False,
    ):
        """Return a pool of worker processes (pool.Pool, which says what the arguments are)."""
        return _built("pool").Pool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            context=self.get_context(),
            retries=retries,
            seed=seed,
            logs=logs,
        )

    def RawValue(self, typecode_or_type, *args):
        """Return a shared ctypes object, without a lock."""
        return _built("sharedctypes").RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type, size_or_initializer):
        """Return a shared ctypes array, without a lock."""
        return _built("sharedctypes").RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type, *args, lock=True):
        """Return a shared ctypes object, with a lock unless `lock` is False."""
        sharedctypes = _built("sharedctypes")
        return sharedctypes.Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type, size_or_initializer, *, lock=True):
        """Return a shared ctypes array, with a lock unless `lock` is False."""
        sharedctypes = _built("sharedctypes")
        return sharedctypes.Array(
            typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context()
        )

    def freeze_support(self):
        """Be the child, and do not return, if this is a frozen program started as one."""
        if getattr(sys, "frozen", False):
            from .spawn import freeze_support

            freeze_support()

    def get_logger(self):
        """Return the package's logger, made if need be."""
        from .util import get_logger

        return get_logger()

    def log_to_stderr(self, level=None):
        """Have the package's logger print to stderr, from `level` up; return it."""
        from .util import log_to_stderr

        return log_to_stderr(level)

    def allow_connection_pickling(self):
        """Do nothing: connections and sockets can be pickled."""
        from . import connection  # noqa: F401 (what multiprocessing does, and some rely on)

    def set_executable(self, executable):
        """Set the interpreter that spawned children run, in place of sys.executable."""
        from .spawn import set_executable

        set_executable(executable)

    def set_forkserver_preload(self, module_names, *, on_error="ignore"):
        """Set the modules that the fork server imports before it makes its first child.

        `on_error`: "ignore", "warn" or "fail", if one cannot be imported there.
        """
        from .forkserver import set_forkserver_preload

        set_forkserver_preload(module_names, on_error=on_error)

    def get_context(self, method=None):
        """Return the context that starts processes by `method`, this one if None."""
        if method is None:
            return self
        try:
            return _concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None

    def get_start_method(self, allow_none=False):
        """Return the name of the start method: fork, spawn or forkserver."""
        return self._name

    def set_start_method(self, method, force=False):
        """Raise ValueError: the method of a concrete context is what it is."""
        raise ValueError("cannot set start method of concrete context")

    @property
    def reducer(self):
        """The module that says how objects are taken apart to be sent."""
        if _reducer is None:
            from . import reduction

            return reduction
        return _reducer

    @reducer.setter
    def reducer(self, reduction):
        global _reducer
        _reducer = reduction


_reducer = None


def _built(name):
    """Import one of the package's modules that may not be there yet."""
    from importlib import import_module

    full = f"{__package__}.{name}"
    try:
        return import_module(full)
    except ModuleNotFoundError as error:
        if error.name != full:
            raise
        raise ModuleNotFoundError(f"{full} is not built yet", name=full) from None


class Process(process.BaseProcess):
    """A child process, started by the default context's method."""

    _start_method = None

    @staticmethod
    def _Popen(process_obj):
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork():
        return _default_context.get_context().Process._after_fork()


class ForkProcess(process.BaseProcess):
    """A child process that begins as a copy of this one."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process_obj):
        from .popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(process.BaseProcess):
    """A child process that begins as a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process_obj):
        from .popen_spawn_posix import Popen

        return Popen(process_obj)

    @staticmethod
    def _after_fork():
        """Do nothing: nothing was inherited."""


class ForkServerProcess(process.BaseProcess):
    """A child process that begins as a copy of a clean process kept for that."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process_obj):
        from .popen_forkserver import Popen

        return Popen(process_obj)


class _ConcreteContext(BaseContext):
    def __reduce__(self):
        return _default_context_get, (self._name,)


class ForkContext(_ConcreteContext):
    """Children are made by fork()."""

    _name = "fork"
    Process = ForkProcess


class SpawnContext(_ConcreteContext):
    """Children are fresh interpreters."""

    _name = "spawn"
    Process = SpawnProcess


class ForkServerContext(_ConcreteContext):
    """Children are forked off a clean process kept for that."""

    _name = "forkserver"
    Process = ForkServerProcess


class DefaultContext(BaseContext):
    """The context of the package's functions: in front of a concrete one, settled at first use."""

    Process = Process

    def __init__(self, context):
        self._default_context = context
        self._actual_context = None

    def get_context(self, method=None):
        """Return the context that starts processes by `method`, the one in use if None."""
        if method is not None:
            return super().get_context(method)
        if self._actual_context is None:
            self._actual_context = self._default_context
        return self._actual_context

    def set_start_method(self, method, force=False):
        """Set how processes are started from now on.

        RuntimeError if that is settled and not `force`; with it, None unsettles it.
        """
        if self._actual_context is not None and not force:
            raise RuntimeError("context has already been set")
        if method is None and force:
            self._actual_context = None
            return
        self._actual_context = self.get_context(method)

    def get_start_method(self, allow_none=False):
        """Return the name of the start method; None if it is not settled and `allow_none`."""
        if self._actual_context is None and allow_none:
            return None
        return self.get_context()._name

    def get_all_start_methods(self):
        """Return the names of the start methods, the default one first."""
        default = self._default_context._name
        return [default, *(name for name in _concrete_contexts if name != default)]

    def __reduce__(self):
        return _default_context_get, ()


def _default_context_get(method=None):
    """Where a pickled context leads to: the object of the process that loads it."""
    return _default_context if method is None else _default_context.get_context(method)


_concrete_contexts = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}


def _default_method():
    """The default start method of the running version's own multiprocessing."""
    if sys.platform == "darwin":
        return "spawn"
    return "forkserver" if sys.version_info >= (3, 14) else "fork"


_default_context = DefaultContext(_concrete_contexts[_default_method()])


def _force_start_method(method):
    _default_context._actual_context = _concrete_contexts[method]


_at_work = _local()


def get_spawning_popen():
    """Return the Popen that starts a child in this thread, or None."""
    return getattr(_at_work, "popen", None)


def set_spawning_popen(popen):
    """Say which Popen is about to start a child in this thread; None when it has."""
    _at_work.popen = popen


def assert_spawning(obj):
    """RuntimeError unless a child is being started in this thread: `obj` travels no other way."""
    if get_spawning_popen() is None:
        raise RuntimeError(
            f"{type(obj).__name__} objects should only be shared between processes"
            " through inheritance"
        )
