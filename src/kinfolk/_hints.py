"""What to do about things that cannot be pickled: one line for each kind, for error messages."""

import types
from _pickle import PickleBuffer

__all__ = ["hint_for", "type_name"]

_MODULE_HINTS = {
    "_thread": "a lock belongs to one process: send a kinfolk.Lock() in its place, or make one in "
    "the receiver",
    "threading": "what belongs to threads stays in one process: send kinfolk's counterpart, or "
    "make one in the receiver",
    "queue": "a queue.Queue belongs to one process: send a kinfolk.Queue() in its place",
    "_queue": "a queue.SimpleQueue belongs to one process: send a kinfolk.SimpleQueue() in its "
    "place",
    "_io": "an open file belongs to one process: send its name, and open it in the receiver",
    "ssl": "a secured connection belongs to one process: make it in the receiver",
    "_ssl": "a secured connection belongs to one process: make it in the receiver",
    "_socket": "send it with kinfolk.reduction, or connect in the receiver",
    "sqlite3": "a database connection belongs to one process: connect in the receiver",
    "_weakref": "a weak reference is to a thing of this process: send the thing",
    "weakref": "a weak reference is to a thing of this process: send the thing",
    "_asyncio": "what belongs to an event loop stays in one process: send its result",
    "asyncio": "what belongs to an event loop stays in one process: send its result",
    "_contextvars": "contexts belong to one process: send the values",
    "multiprocessing": "what the standard library's multiprocessing makes is inherited or not had "
    "at all: make kinfolk's counterpart in its place, which travels at any time",
}

_TYPE_HINTS = {
    types.GeneratorType: "a generator is a running function: send what it was made from, or "
    "list() of it",
    types.AsyncGeneratorType: "an asynchronous generator is a running function: send what it was "
    "made from",
    types.CoroutineType: "a coroutine is a running function: send the function and its arguments",
    types.FrameType: "a frame belongs to a running function: send traceback.format_stack()",
    types.TracebackType: "send traceback.format_exception() of it",
    types.ModuleType: "send its name, and import it in the receiver",
}

_DEFAULT = (
    "leave it out (__getstate__), say how to make it again (__reduce__), or make it in the receiver"
)

_NOT_BY_NAME = "it cannot be imported under its name, and is made in C, so it has no value to send"
_BY_NAME_ONLY = "it cannot be imported under its name; by_value=True sends its value"


def type_name(kind):
    """A type as error messages name it."""
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def hint_for(thing, by_value):
    """What could be done so that `thing` need not travel, or can; empty if the error says it."""
    kind = type(thing)
    if kind is PickleBuffer:
        return ""
    if kind in _TYPE_HINTS:
        return _TYPE_HINTS[kind]
    if issubclass(kind, (types.FunctionType, type)):
        return _NOT_BY_NAME if by_value else _BY_NAME_ONLY
    for base in kind.__mro__:
        hint = _MODULE_HINTS.get(base.__module__.partition(".")[0])
        if hint is not None:
            return hint
    return _DEFAULT
