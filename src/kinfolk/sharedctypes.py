"""ctypes objects in shared memory: RawValue and RawArray, and with a lock Value and Array.

A raw object is an ordinary ctypes object laid over a heap.BufferWrapper, which
it carries along as `_wrapper`.  Pickled, by any pickler and at any time, it is
its type and its wrapper, so every process sees the same memory.  ctypes would
pickle the bytes instead, which is a silent loss; so the reducer is entered in
copyreg's table for each type that was ever laid over shared memory, and for the
types of its parts: an element of a shared array of structures is as shared as
the array.  Objects of those types that lie elsewhere pickle as ctypes has it.

copy.copy() and copy.deepcopy() ask the same table, and of them one expects a
separate object.  They hand over what the reducer returned as it is, a pickle
hands over what it rebuilt: `_Seat` tells the two apart.

The synchronized kind is a thin wrapper: the object, a lock, and each access
inside the lock (ext/synchronized.c).
"""

import copyreg
import ctypes
import sys
import weakref

from . import get_context, heap
from ._kin import (
    Synchronized,
    SynchronizedArray,
    SynchronizedBase,
    SynchronizedString,
    locked,
)

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

typecode_to_type = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}

#: The types whose values ext/synchronized.c reads and writes in place: others, also those that
#: are derived from them, are left to ctypes.
_codes = {type_: code for code, type_ in typecode_to_type.items() if code != "u"}
_codes[ctypes.c_bool] = "?"


def RawValue(typecode_or_type, *args):
    """A ctypes object in shared memory, zeroed and then initialised with `args`.

    `typecode_or_type` is a ctypes type or one of the codes of the array module.
    """
    obj = _new_value(_type_of(typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type, size_or_initializer):
    """A ctypes array in shared memory: so many zeroed items, or those of a sequence."""
    type_ = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_value(type_ * size_or_initializer)
    obj = _new_value(type_ * len(size_or_initializer))
    obj.__init__(*size_or_initializer)
    return obj


def Value(typecode_or_type, *args, lock=True, ctx=None):
    """A RawValue with a lock around each access.

    `lock` is a lock of the caller's, True or None for a new RLock of the
    context `ctx`, or False for a plain RawValue.  AttributeError if it is no lock.
    """
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type, size_or_initializer, *, lock=True, ctx=None):
    """A RawArray with a lock around each access; `lock` and `ctx` as in Value()."""
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def copy(obj):
    """A new ctypes object in shared memory with the bytes of the ctypes object `obj`."""
    twin = _new_value(type(obj))
    ctypes.memmove(ctypes.byref(twin), ctypes.byref(obj), ctypes.sizeof(obj))
    return twin


def synchronized(obj, lock=None, ctx=None):
    """Wrap the ctypes object `obj` so that each access holds `lock` (a new RLock by default).

    The wrapper's class follows from the object: Synchronized for a simple value,
    SynchronizedString for an array of c_char, SynchronizedArray for other arrays,
    else a class with the fields of the structure.
    """
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    return _wrapper_class(obj)(obj, lock, ctx or get_context())


def _type_of(typecode_or_type):
    return typecode_to_type.get(typecode_or_type, typecode_or_type)


def _new_value(type_):
    # New memory of the heap is zeroed.
    return rebuild_ctype(type_, heap.BufferWrapper(ctypes.sizeof(type_)), None)


def _with_lock(obj, lock, ctx):
    if lock is False:
        return obj
    if lock in (True, None):
        ctx = ctx or get_context()
        lock = ctx.RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx=ctx)


# -- Pickling -------------------------------------------------------------------


class _Seat:
    """Stands for a wrapper in what the reducer returns; pickled, it is that wrapper."""

    def __init__(self, wrapper):
        self.wrapper = wrapper

    def __reduce__(self):
        return _same, (self.wrapper,)

    def __deepcopy__(self, memo):
        return self


def _same(wrapper):
    return wrapper


def reduce_ctype(obj):
    """How a ctypes object is pickled: one in shared memory as its type and its place there."""
    wrapper = _wrapper_under(obj)
    if wrapper is None:
        return obj.__reduce_ex__(2)
    item_type, shape = _spelled(type(obj))
    offset = ctypes.addressof(obj) - _address(wrapper)
    return _arrive, (item_type, shape, _Seat(wrapper), offset)


def rebuild_ctype(type_, wrapper, length):
    """Lay a `type_` (an array of `length` of them, unless None) over the bytes of `wrapper`."""
    return _lay(type_ if length is None else type_ * length, wrapper, 0)


def _lay(type_, wrapper, offset):
    _register(type_)
    obj = type_.from_buffer(wrapper.create_memoryview(), offset)
    obj._wrapper = wrapper
    return obj


def _register(type_):
    # With the types of the parts that one can take out of such an object and
    # send on their own.
    if copyreg.dispatch_table.get(type_) is reduce_ctype:
        return
    copyreg.pickle(type_, reduce_ctype)
    if issubclass(type_, ctypes.Array):
        parts = [type_._type_]
    else:
        parts = [field[1] for field in getattr(type_, "_fields_", ())]
    for part in parts:
        if issubclass(part, (ctypes.Array, ctypes.Structure, ctypes.Union)):
            _register(part)


def is_shared(obj):
    """Whether the ctypes object `obj` lies in shared memory, so that its pickle is a ref to it."""
    return _wrapper_under(obj) is not None


def _wrapper_under(obj):
    """The wrapper that `obj`, or the object that it is a part of, lies in; None if none."""
    while obj is not None:
        wrapper = getattr(obj, "_wrapper", None)
        if isinstance(wrapper, heap.BufferWrapper):
            return wrapper
        obj = getattr(obj, "_b_base_", None)
    return None


def _address(wrapper):
    (arena, start, _stop), _size = wrapper._state
    return ctypes.addressof(ctypes.c_char.from_buffer(arena.buffer)) + start


def _spelled(type_):
    # The type of an array is mostly made on the spot: no name to pickle it by.
    shape = []
    while issubclass(type_, ctypes.Array) and type_ is type_._type_ * type_._length_:
        shape.append(type_._length_)
        type_ = type_._type_
    if getattr(type_, _FOREIGN, None) is type_:
        # Numbers whose bytes are in the foreign order: a name of c_int's, but no c_int.
        return (getattr(type_, _NATIVE), _FOREIGN), tuple(shape)
    return type_, tuple(shape)


_ORDERS = "__ctype_le__", "__ctype_be__"
_NATIVE, _FOREIGN = _ORDERS if sys.byteorder == "little" else reversed(_ORDERS)


def _arrive(item_type, shape, wrapper, offset):
    type_ = getattr(*item_type) if isinstance(item_type, tuple) else item_type
    for length in reversed(shape):
        type_ *= length
    if isinstance(wrapper, _Seat):
        # The copy module: the same value in this process's own memory.
        return type_.from_buffer_copy(wrapper.wrapper.create_memoryview(), offset)
    return _lay(type_, wrapper, offset)


# -- Synchronized wrappers --------------------------------------------------------

_structure_classes = weakref.WeakKeyDictionary()


def _wrapper_class(obj):
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized
    if isinstance(obj, ctypes.Array):
        return SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray
    cls = type(obj)
    if cls not in _structure_classes:
        _structure_classes[cls] = _structure_class(cls)
    return _structure_classes[cls]


def _structure_class(cls):
    fields = {field[0]: make_property(field[0]) for field in cls._fields_}
    made = type("Synchronized" + cls.__name__, (SynchronizedBase,), fields)
    # Before any pickler thinks of the class, which has no name to be found by.
    copyreg.pickle(made, SynchronizedBase.__reduce__)
    return made


def make_property(name):
    """A property that gets and sets the attribute `name` of the wrapped object inside the lock."""
    return locked(name)
