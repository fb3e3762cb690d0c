"""The types of a SyncManager that live in the arena, and what their proxies' methods do there.

`TYPES` has them by typeid.  The functions of `calls` do what the standard library's objects do in
a server: what is a view there comes as a list, and errors are those of dict, list, array,
queue and threading.  docs/managers.md says more.
"""

import array
import queue
import time
from typing import NamedTuple

from . import _barrier, _kin, queues, synchronize
from ._manager_values import Array, Namespace, Value
from ._manager_wire import RemoteError
from .shared_dict import SharedDict
from .shared_list import SharedList

__all__ = ["TYPES", "Type"]

# Seconds after which who waits looks whether the manager was shut down.
_PERIOD = 0.25

# What every object has, exposed or not.
_ALWAYS = ("#GETVALUE", "__repr__", "__str__")


class Type(NamedTuple):
    """One type: the class of its object in the arena, and how to make and to use one.

    make: takes what the creator of a proxy was given; returns a function that makes the object
    and what else the proxy must know, a text; or None if this one must live in the server.
    It is called before anything is pickled, so that it finds wrong arguments and no others.
    calls: by the name of a method, a function of what `wrap(object, more, life)` returns (the object
    itself, if there is no `wrap`) and the arguments.
    """

    kind: type
    make: object
    calls: dict
    wrap: object = None

    @property
    def exposed(self):
        """The names of the methods that a proxy may call."""
        return tuple(name for name in self.calls if name not in _ALWAYS)


def _shown(calls, show):
    """`calls`, and what repr() and str() of the object are."""
    return {**calls, "__repr__": show, "__str__": show}


# -- Containers --------------------------------------------------------------------------------


def _make_dict(*args, **kwds):
    values = dict(*args, **kwds)
    return lambda: SharedDict(values), ""


def _keys(shared, size):
    for key in shared:
        if len(shared) != size:
            break
        yield key
    if len(shared) != size:
        raise RuntimeError("dictionary changed size during iteration")


_DICT = {
    "__contains__": SharedDict.__contains__,
    "__delitem__": SharedDict.__delitem__,
    "__getitem__": SharedDict.__getitem__,
    "__iter__": lambda shared: _keys(shared, len(shared)),
    "__len__": SharedDict.__len__,
    "__setitem__": SharedDict.__setitem__,
    "clear": SharedDict.clear,
    "copy": SharedDict.copy,
    "get": SharedDict.get,
    "items": lambda shared: list(shared.items()),
    "keys": list,
    "pop": SharedDict.pop,
    "popitem": SharedDict.popitem,
    "setdefault": SharedDict.setdefault,
    "update": SharedDict.update,
    "values": lambda shared: list(shared.values()),
    "#GETVALUE": SharedDict.copy,
}


def _make_list(*args, **kwds):
    values = list(*args, **kwds)
    return lambda: SharedList(values), ""


def _multiply(shared, times):
    shared *= times
    return shared.copy()


_LIST = {
    "__add__": lambda shared, other: shared.copy() + other,
    "__contains__": SharedList.__contains__,
    "__delitem__": SharedList.__delitem__,
    "__getitem__": SharedList.__getitem__,
    "__len__": SharedList.__len__,
    "__mul__": SharedList.__mul__,
    "__reversed__": lambda shared: reversed(shared.copy()),
    "__rmul__": SharedList.__rmul__,
    "__setitem__": SharedList.__setitem__,
    "append": SharedList.append,
    "count": SharedList.count,
    "extend": SharedList.extend,
    "index": SharedList.index,
    "insert": SharedList.insert,
    "pop": SharedList.pop,
    "remove": SharedList.remove,
    "reverse": SharedList.reverse,
    "sort": SharedList.sort,
    "__imul__": _multiply,
    "#GETVALUE": SharedList.copy,
}


def _make_namespace(**kwds):
    return lambda: SharedDict(kwds), ""


def _get_attribute(shared, name):
    try:
        return shared[name]
    except KeyError:
        # A method that every object has, or the right error.
        return getattr(Namespace(), name)


def _delete_attribute(shared, name):
    try:
        del shared[name]
    except KeyError:
        raise AttributeError(name) from None


def _namespace(shared):
    return Namespace(**shared.copy())


_NAMESPACE = {
    "__getattribute__": _get_attribute,
    "__setattr__": SharedDict.__setitem__,
    "__delattr__": _delete_attribute,
    "#GETVALUE": _namespace,
}


def _make_value(typecode, value, lock=True):
    return lambda: SharedDict(typecode=typecode, value=value), ""


def _value(shared):
    return Value(shared["typecode"], shared["value"])


_VALUE = {
    "get": lambda shared: shared["value"],
    "set": lambda shared, value: shared.__setitem__("value", value),
    "#GETVALUE": _value,
}


def _make_array(typecode, sequence, lock=True):
    values = Array(typecode, sequence)
    if typecode not in _Items.typecodes:
        return None
    return lambda: _filled(values.tobytes()), f"{typecode}{len(values)}"


def _filled(content):
    memory = _kin.Memory(len(content) or 1)
    memoryview(memory)[: len(content)] = content
    return memory


class _Items:
    """The items of an Array.  What is set is converted as by array.array."""

    # Those that a memoryview has, too.
    typecodes = "bBhHiIlLqQfd"

    def __init__(self, memory, more, life):
        self.typecode = more[0]
        size = int(more[1:]) * array.array(self.typecode).itemsize
        self.view = memoryview(memory)[:size].cast("B").cast(self.typecode)

    def __len__(self):
        return len(self.view)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return array.array(self.typecode, self.view[index].tobytes())
        return self.view[index]

    def __setitem__(self, index, value):
        if isinstance(index, slice):
            if not isinstance(value, array.array):
                raise TypeError(
                    f"can only assign array (not {type(value).__name__!r}) to array slice"
                )
            self.view[index] = value
        else:
            self.view[index] = array.array(self.typecode, [value])[0]

    def copy(self):
        return self[:]


_ARRAY = {
    "__len__": _Items.__len__,
    "__getitem__": _Items.__getitem__,
    "__setitem__": _Items.__setitem__,
    "#GETVALUE": _Items.copy,
}


# -- What is waited for ------------------------------------------------------------------------


class _Waited:
    """An object that calls wait for: they end with an error when its manager is shut down."""

    __slots__ = ("check", "handle")

    def __init__(self, handle, more, life):
        self.handle = handle
        self.check = life.check

    def wait(self, step, timeout):
        """Whether `step(seconds)`, which waits that long, was true before `timeout` was over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _PERIOD if deadline is None else deadline - time.monotonic()
            if step(max(0, min(left, _PERIOD))):
                return True
            if left <= _PERIOD and deadline is not None:
                return False
            self.check()

    def __repr__(self):
        return repr(self.handle)


def _at_once(method):
    """A method that does not wait."""
    return lambda waited, *args, **kwds: method(waited.handle, *args, **kwds)


def _make_queue(maxsize=0):
    return lambda: queues.JoinableQueue(maxsize), ""


def _put(waited, item, block=True, timeout=None):
    if not block:
        return waited.handle.put(item, False)
    return _passes(
        queue.Full, waited, lambda seconds: waited.handle.put(item, True, seconds), timeout
    )


def _get(waited, block=True, timeout=None):
    if not block:
        return waited.handle.get(False)
    return _passes(queue.Empty, waited, lambda seconds: waited.handle.get(True, seconds), timeout)


def _passes(failure, waited, step, timeout):
    """What step(seconds) returned before `timeout` was over; else its `failure`."""
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    deadline = None if timeout is None else time.monotonic() + timeout
    left = _PERIOD
    while True:
        if deadline is not None:
            left = deadline - time.monotonic()
        try:
            return step(max(0, min(left, _PERIOD)))
        except failure:
            if left <= _PERIOD and deadline is not None:
                raise
        waited.check()


def _join(waited):
    waited.wait(lambda seconds: _kin.Queue.join(waited.handle, seconds), None)


_QUEUE = {
    "empty": _at_once(queues.Queue.empty),
    "full": _at_once(queues.Queue.full),
    "get": _get,
    "get_nowait": _at_once(queues.Queue.get_nowait),
    "join": _join,
    "put": _put,
    "put_nowait": _at_once(queues.Queue.put_nowait),
    "qsize": _at_once(queues.Queue.qsize),
    "task_done": _at_once(queues.JoinableQueue.task_done),
}
if hasattr(queue.Queue, "shutdown"):
    _QUEUE["shutdown"] = _at_once(queues.Queue.shutdown)


def _made_by(kind):
    def make(*args, **kwds):
        made = kind(*args, **kwds)
        return lambda: made, ""

    return make


def _acquire(waited, blocking=True, timeout=-1):
    if timeout is None or timeout == -1:
        timeout = None
    elif not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    elif timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    return _acquire_semaphore(waited, blocking, timeout)


def _acquire_semaphore(waited, blocking=True, timeout=None):
    if timeout is not None and not blocking:
        raise ValueError("can't specify timeout for non-blocking acquire")
    acquire = waited.handle.acquire
    if acquire(False):
        return True
    return bool(blocking) and waited.wait(lambda seconds: acquire(True, seconds), timeout)


def _release(waited):
    try:
        waited.handle.release()
    except (ValueError, AssertionError):
        raise RuntimeError("cannot release un-acquired lock") from None


def _release_semaphore(waited, n=1):
    if n < 1:
        raise ValueError("n must be one or more")
    for _ in range(n):
        waited.handle.release()


def _make_condition(lock=None):
    if lock is not None:
        return None
    lock = synchronize.RLock()
    return lambda: synchronize.Condition(lock), lock.ref.hex()


def _condition_named(condition, more, life):
    condition.__setstate__((_kin._open(synchronize.RLock, bytes.fromhex(more)), None))
    return _Waited(condition, more, life)


def _wait_condition(waited, timeout=None):
    # Between one wait and the next the lock is ours, so that no notify() is missed.
    return _owning(waited.wait)(waited.handle.wait, timeout)


def _owning(method):
    """A method of a Condition, whose error is that of threading."""

    def call(*args):
        try:
            return method(*args)
        except AssertionError as error:
            raise RuntimeError(*error.args) from None

    return call


def _wait_event(waited, timeout=None):
    return waited.wait(waited.handle.wait, timeout)


def _make_barrier(parties, action=None, timeout=None):
    # An action is the server's: whoever comes last may not be able to do it.
    if action is not None:
        return None
    made = _barrier.Barrier(parties, None, timeout)
    return lambda: made, "" if timeout is None else repr(float(timeout))


def _barrier_named(barrier, more, life):
    barrier.__setstate__((None, float(more) if more else None, {}))
    return barrier


def _not_to_be_had(shared):
    raise RemoteError(f"Unserializable message: {shared!r}\n")


_LOCK = {"acquire": _acquire, "release": _release, "#GETVALUE": _not_to_be_had}
_SEMAPHORE = {
    "acquire": _acquire_semaphore,
    "release": _release_semaphore,
    "#GETVALUE": _not_to_be_had,
}
_CONDITION = {
    "acquire": _acquire,
    "release": _release,
    "wait": _wait_condition,
    "notify": _owning(_at_once(synchronize.Condition.notify)),
    "notify_all": _owning(_at_once(synchronize.Condition.notify_all)),
    "#GETVALUE": _not_to_be_had,
}
_EVENT = {
    "is_set": _at_once(synchronize.Event.is_set),
    "set": _at_once(synchronize.Event.set),
    "clear": _at_once(synchronize.Event.clear),
    "wait": _wait_event,
    "#GETVALUE": _not_to_be_had,
}
_BARRIER = {
    "__getattribute__": getattr,
    "wait": _kin.Barrier.wait,
    "abort": _kin.Barrier.abort,
    "reset": _kin.Barrier.reset,
    "#GETVALUE": _not_to_be_had,
}
_QUEUE["#GETVALUE"] = _not_to_be_had


def _lock_type(kind, calls):
    return Type(kind, _made_by(kind), _shown(calls, repr), _Waited)


_queue_type = Type(queues.JoinableQueue, _make_queue, _shown(_QUEUE, repr), _Waited)

TYPES = {
    "dict": Type(SharedDict, _make_dict, _shown(_DICT, lambda shared: repr(shared.copy()))),
    "list": Type(SharedList, _make_list, _shown(_LIST, lambda shared: repr(shared.copy()))),
    "Namespace": Type(
        SharedDict, _make_namespace, _shown(_NAMESPACE, lambda shared: repr(_namespace(shared)))
    ),
    "Value": Type(SharedDict, _make_value, _shown(_VALUE, lambda shared: repr(_value(shared)))),
    "Array": Type(
        _kin.Memory, _make_array, _shown(_ARRAY, lambda items: repr(items.copy())), _Items
    ),
    "Queue": _queue_type,
    "JoinableQueue": _queue_type,
    "Lock": _lock_type(synchronize.Lock, _LOCK),
    "RLock": _lock_type(synchronize.RLock, _LOCK),
    "Semaphore": _lock_type(synchronize.Semaphore, _SEMAPHORE),
    "BoundedSemaphore": _lock_type(synchronize.BoundedSemaphore, _SEMAPHORE),
    "Event": _lock_type(synchronize.Event, _EVENT),
    "Condition": Type(
        synchronize.Condition, _make_condition, _shown(_CONDITION, repr), _condition_named
    ),
    "Barrier": Type(_barrier.Barrier, _make_barrier, _shown(_BARRIER, repr), _barrier_named),
}
