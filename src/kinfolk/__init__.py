"""kinfolk: the face of the standard library's multiprocessing over an engine of its own.

    import kinfolk as multiprocessing

What is public here are the methods of one object, the default context (see `kinfolk.context`), so
that `kinfolk.Queue()` and `kinfolk.get_context("spawn").Queue()` are the same method of two
contexts.  Submodules carry the standard library's names: `kinfolk.connection`, `kinfolk.queues`...

Importing this package is cheap: it loads the contexts and the process objects and nothing else.  A
factory imports its module when it is first called, and a submodule named as an attribute is
imported when it is first asked for.  For programs that are to be left as they are there is
`python -m kinfolk script.py`, which makes `multiprocessing` mean this package.
"""

import sys

from . import context, process

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

# Levels of the package's logger; multiprocessing has them here, unlisted.
SUBDEBUG = 5
SUBWARNING = 25

# `reducer` is the module kinfolk.reduction: it comes when it is asked for (see __getattr__).
globals().update(
    (_name, getattr(context._default_context, _name)) for _name in __all__ if _name != "reducer"
)

# Programs written for multiprocessing name its submodules as attributes, relying on what the
# standard library happens to have imported by then.  Here they are imported at that moment.
_SUBMODULES = frozenset(
    (
        "connection",
        "dummy",
        "forkserver",
        "heap",
        "managers",
        "pickle",
        "pool",
        "popen_fork",
        "popen_forkserver",
        "popen_spawn_posix",
        "queues",
        "reduction",
        "resource_sharer",
        "resource_tracker",
        "shared_dict",
        "shared_list",
        "shared_memory",
        "sharedctypes",
        "spawn",
        "synchronize",
        "util",
    )
)

# What kinfolk has and multiprocessing has not: the module that it comes from when it is asked for.
# It is not in __all__: `from multiprocessing import *` brings what a program expects of that.
_EXTRAS = {
    "SharedDict": "shared_dict",
    "SharedList": "shared_list",
    "ShutDown": "_shutdown",
    "explain": "_explain",
    "share": "_shared_array",
    "shared_array": "_shared_array",
}


def __getattr__(name):
    if name == "reducer":
        return context._default_context.reducer
    if name in _EXTRAS:
        return getattr(_import(_EXTRAS[name]), name)
    if name in _SUBMODULES:
        try:
            return _import(name)
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _import(name):
    full = f"{__name__}.{name}"
    __import__(full)  # importlib's function brings modules that nothing else here needs
    return sys.modules[full]


# A child that was started afresh knows the main module as __mp_main__, and pickles that travel back
# say so: here it is another name of our own.  Children set both names anew (see kinfolk.spawn).
if "__main__" in sys.modules:
    sys.modules["__mp_main__"] = sys.modules["__main__"]

if getattr(sys, "frozen", False):
    _import("spawn").answer_if_frozen(sys.modules[__name__])
