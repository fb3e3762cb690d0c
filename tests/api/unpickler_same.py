"""Odd classes, states and pickles, and what the interpreter's own unpickler makes of them."""

import _pickle
import collections
import io
import pickle
import sys

from kinfolk import _kin

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Child(Plain):
    pass


class Slots:
    __slots__ = ("a", "b")


class SlotsAndDict(Slots):
    __slots__ = ("__dict__", "c")


class SlotsBelow(Slots):
    __slots__ = ("d",)


class Property:
    """x is a property, and yet in the __dict__ of what is loaded."""

    x = property(lambda self: self.__dict__["x"] * 2, lambda self, value: self.calls.append(value))
    calls = []


class Setattr:
    def __setattr__(self, name, value):
        raise AssertionError("BUILD does not call __setattr__ for a dict")


class SlotsSetattr:
    __slots__ = ("a",)

    def __setattr__(self, name, value):
        object.__setattr__(self, name, ("set", value))


class Getattribute:
    def __getattribute__(self, name):
        if name == "__dict__":
            return object.__getattribute__(self, "__dict__").setdefault("inner", {})
        return object.__getattribute__(self, name)


class Getattr:
    """Says that it has a __setstate__, by __getattr__."""

    def __getattr__(self, name):
        if name == "__setstate__":
            return lambda state: self.__dict__.update(by_getattr=state)
        raise AttributeError(name)


class Dict:
    """A __dict__ that is no dict of its own."""

    store = {}
    __dict__ = property(lambda self: self.store)


class DictSubclass(dict):
    def __setitem__(self, key, value):
        dict.__setitem__(self, key, ("seen", value))


class NewDict:
    def __new__(cls):
        self = object.__new__(cls)
        self.__dict__ = DictSubclass(early=1)
        return self


class Setstate:
    def __setstate__(self, state):
        self.state = state


class Meta(type):
    def __getattribute__(cls, name):
        if name == "__setstate__":
            raise AssertionError("asked the metaclass")
        return type.__getattribute__(cls, name)


class WithMeta(metaclass=Meta):
    pass


class Descriptor:
    def __get__(self, obj, owner=None):
        return "got" if obj is not None else self


class NonData:
    """y has a descriptor that is none of data: the __dict__ goes before it."""

    y = Descriptor()


class Listy(list):
    def append(self, item):
        list.append(self, ("appended", item))


class Appender:
    def __init__(self):
        self.items = []

    def append(self, item):
        self.items.append(item)


class Adder:
    def __init__(self):
        self.items = []

    def add(self, item):
        self.items.append(item)


class Error(Exception):
    def __init__(self, *args):
        super().__init__(*args)
        self.extra = args


ODD = [
    Plain,
    Child,
    Slots,
    SlotsAndDict,
    SlotsBelow,
    Property,
    Setattr,
    SlotsSetattr,
    Getattribute,
    Getattr,
    Dict,
    NewDict,
    Setstate,
    WithMeta,
    NonData,
    Error,
]

#: What BUILD may be given, as opcodes: dicts, slots, both, and what is neither.
STATES = {
    "dict": b"}(\x8c\x01aK\x01\x8c\x01xK\x02\x8c\x01yK\x03u",
    "memoised": b"}\x94(\x8c\x01a\x94K\x01\x8c\x01x\x94K\x02u",
    "one": b"}\x8c\x01aK\x01s",
    "none": b"N",
    "empty": b"}",
    "empty marked": b"}(u",
    "odd": b"}(K\x01u",
    "int key": b"}(K\x01K\x02\x8c\x01aK\x03u",
    "twice": b"}(\x8c\x01aK\x01\x8c\x01aK\x02u",
    "slots": b"N}(\x8c\x01aK\x01\x8c\x01bK\x02u\x86",
    "slots memoised": b"N}\x94(\x8c\x01a\x94K\x01\x8c\x01b\x94K\x02u\x86\x94",
    "slots twice": b"N}(\x8c\x01aK\x01\x8c\x01aK\x02u\x86",
    "both": b"}(\x8c\x01xK\x01\x8c\x01zK\x05u}(\x8c\x01aK\x01\x8c\x01bK\x02u\x86",
    "no such slot": b"N}(\x8c\x04nopeK\x01u\x86",
    "special": b"}(\x8c\x09__class__K\x01\x8c\x08__dict__K\x02u",
    "dunder": b"}(\x8c\x0c__setstate__K\x01u",
    "list": b"](K\x01e",
    "tuple": b"(K\x01K\x02K\x03t",
    "long name": b"}(\x8c\xc8" + b"n" * 200 + b"K\x01u",
    "not ascii": "}(\x8c\x02éK\x01u".encode("latin-1").replace(b"\xe9", "é".encode()),
    "many": b"}(" + b"".join(b"\x8c\x03n%02dK\x01" % i for i in range(60)) + b"u",
}


def name_of(cls):
    module, name = cls.__module__.encode(), cls.__qualname__.encode()
    return b"\x8c%c%b\x8c%c%b\x93" % (len(module), module, len(name), name)


def looks(obj, seen=()):
    """What can be seen of an object, for comparison."""
    if any(obj is one for one in seen):
        return "..."
    seen = (*seen, obj)
    if isinstance(obj, BaseException):
        return type(obj), looks(obj.args, seen), looks(vars(obj), seen)
    if isinstance(obj, dict):
        return type(obj), [(looks(k, seen), looks(v, seen)) for k, v in obj.items()]
    if isinstance(obj, (list, tuple)):
        return type(obj), [looks(item, seen) for item in obj]
    if type(obj) in ODD:
        try:
            own = object.__getattribute__(obj, "__dict__")
        except AttributeError:
            own = None
        slots = [
            (name, looks(getattr(obj, name, "unset"), seen))
            for cls in type(obj).__mro__
            for name in vars(cls).get("__slots__", ())
            if name != "__dict__"
        ]
        return type(obj), looks(own, seen), slots
    return type(obj), obj


UNDERFLOWS = "STACK_GLOBAL requires str", "unexpected MARK found", "unpickling stack underflow"


def outcome(loads, data, **options):
    """The object that comes of it, or the type of the exception and what it says."""
    Property.calls.clear()
    Dict.store.clear()
    try:
        return looks(loads(data, **options)), list(Property.calls), dict(Dict.store)
    except (EOFError, MemoryError):
        return "too short"  # the standard library's takes the memory that a length claims
    except Exception as error:
        if str(error) == "pickle data was truncated":
            return "too short"
        if sys.version_info < (3, 11) and str(error) in UNDERFLOWS:
            return type(error), "stack"  # 3.10 tells them apart in another way
        return type(error), str(error)


def from_file(data, **options):
    return _kin.load(io.BytesIO(data), **options)


def alike(data, **options):
    expected = outcome(_pickle.loads, data, **options)
    assert outcome(_kin.loads, data, **options) == expected
    assert outcome(from_file, data, **options) == expected
    return expected


ZOO = [
    None,
    True,
    [0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**40, -(2**63), 2**64, -(2**2100)],
    [0.0, -1.5, float("inf"), 1e300],
    ["", "a", "é", "\ud800", "x" * 300, "key"],
    [b"", b"b" * 300, bytearray(b"c" * 10)],
    ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    {"a": {"b": [{}, {"c": ()}]}, 1: 2, (1, "x"): frozenset([1, 2])},
    {1, "two", (3,)},
    Plain(a=1, b=[Plain()]),
    collections.OrderedDict(a=1, b=2),
    collections.Counter("abca"),
    range(3),
    ValueError("no"),
    Appender,
    len,
    complex(1, 2),
]
