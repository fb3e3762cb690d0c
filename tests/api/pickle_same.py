"""Are two graphs of objects the same?  `same(a, b)` raises Different and says where.

The two are walked in step.  Whatever is met again on one side must be met again at the
same places on the other: shared things stay shared, distinct ones distinct, cycles close at
the same points.  For numbers, strings and bytes nobody promises that; for all else it holds.
"""

import array
import functools
import struct
import types
from collections import deque

__all__ = ["Different", "same"]

ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range)
BY_NAME = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
SINGLETONS = (), frozenset()  # the interpreter has one of each, whoever makes it


class Different(AssertionError):
    pass


def same(a, b):
    ours, theirs = {}, {}  # id -> the other side's; values keep what they name alive
    todo = [(a, b, "it")]
    while todo:
        a, b, where = todo.pop()
        if type(a) is not type(b):
            raise Different(f"{where}: {type(a)} is not {type(b)}")
        if type(a) in ATOMS:
            if not same_atom(a, b):
                raise Different(f"{where}: {a!r:.80} is not {b!r:.80}")
            continue
        if isinstance(a, BY_NAME):
            if a is not b and not same_bound(a, b, where, todo):
                raise Different(f"{where}: {a!r:.80} is not {b!r:.80}")
            continue
        if any(a is one for one in SINGLETONS):
            if a is not b:
                raise Different(f"{where}: {a!r} is not the one and only")
            continue
        met = ours.get(id(a)), theirs.get(id(b))
        if met != (None, None):
            if met[0] is None or met[0][1] is not b or met[1] is None or met[1][1] is not a:
                raise Different(f"{where}: shared here and not there: {a!r:.80}")
            continue
        ours[id(a)], theirs[id(b)] = (a, b), (b, a)
        todo += parts(a, b, where)


def same_atom(a, b):
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (a != a and b != b)
    if isinstance(a, complex):
        return same_atom(a.real, b.real) and same_atom(a.imag, b.imag)
    return a == b


def same_bound(a, b, where, todo):
    """Methods of things are made anew; they are the same if what they are bound to is."""
    if isinstance(a, type) or getattr(a, "__self__", None) is None or a.__name__ != b.__name__:
        return False
    todo.append((a.__self__, b.__self__, f"{where}.__self__"))
    return True


def parts(a, b, where):
    yield from content(a, b, where)
    for name in slots(type(a)):
        missing = object()
        mine, its = getattr(a, name, missing), getattr(b, name, missing)
        if (mine is missing) is not (its is missing):
            raise Different(f"{where}.{name}: only one of them has it")
        if mine is not missing:
            yield mine, its, f"{where}.{name}"
    mine, its = getattr(a, "__dict__", None), getattr(b, "__dict__", None)
    if isinstance(mine, dict):
        if mine.keys() != its.keys():
            raise Different(f"{where}: has {list(mine)}, not {list(its)}")
        for name in mine:
            yield mine[name], its[name], f"{where}.{name}"


def content(a, b, where):
    if isinstance(a, (list, tuple, deque)):
        if len(a) != len(b):
            raise Different(f"{where}: {len(a)} items, not {len(b)}")
        getters = (list, tuple, deque)
        base = next(one for one in getters if isinstance(a, one))
        pairs = zip(base.__iter__(a), base.__iter__(b))
        yield from ((x, y, f"{where}[{i}]") for i, (x, y) in enumerate(pairs))
        if isinstance(a, deque) and a.maxlen != b.maxlen:
            raise Different(f"{where}: maxlen {a.maxlen}, not {b.maxlen}")
    elif isinstance(a, dict):
        if len(a) != len(b):
            raise Different(f"{where}: {len(a)} items, not {len(b)}")
        pairs = zip(dict.items(a), dict.items(b))
        for (key, value), (its_key, its_value) in pairs:
            yield key, its_key, f"{where}'s key {key!r:.40}"
            yield value, its_value, f"{where}[{key!r:.40}]"
    elif isinstance(a, (set, frozenset)):
        its = {element: element for element in b}
        if a != its.keys():
            raise Different(f"{where}: {a!r:.80} is not {b!r:.80}")
        yield from ((element, its[element], f"{where}'s {element!r:.40}") for element in a)
    elif isinstance(a, (int, float, complex, str, bytes, bytearray, array.array)):
        kind = next(one for one in type(a).__mro__ if one.__module__ in ("builtins", "array"))
        if kind.__repr__(a) != kind.__repr__(b):
            raise Different(f"{where}: {a!r:.80} is not {b!r:.80}")
    elif isinstance(a, functools.partial):
        yield (a.func, *a.args), (b.func, *b.args), f"{where}.args"
        yield a.keywords, b.keywords, f"{where}.keywords"
    elif isinstance(a, BaseException):
        yield a.args, b.args, f"{where}.args"
    elif type(a).__module__ == "numpy":
        if a.dtype != b.dtype or a.shape != b.shape:
            raise Different(f"{where}: {a.dtype}{a.shape} is not {b.dtype}{b.shape}")
        if a.dtype == object:
            yield from (
                (x, y, f"{where}.flat[{i}]") for i, (x, y) in enumerate(zip(a.flat, b.flat))
            )
        elif a.tobytes() != b.tobytes():
            raise Different(f"{where}: other values")
    elif opaque(a) and not a == b:
        raise Different(f"{where}: {a!r:.80} is not {b!r:.80}")


def opaque(a):
    """Has it neither attributes nor slots, nor the equality of mere identity?"""
    kind = type(a)
    has_parts = hasattr(a, "__dict__") or next(slots(kind), None) is not None
    return not has_parts and kind.__eq__ is not object.__eq__


def slots(cls):
    for base in cls.__mro__:
        names = vars(base).get("__slots__", ())
        for name in [names] if isinstance(names, str) else names:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{base.__name__.lstrip('_')}{name}"
            if isinstance(vars(base).get(name), types.MemberDescriptorType):
                yield name
