"""Classes of every shape, in a module that can be imported, and graphs made of their instances.

A graph is drawn as a plan (`plans()`) and built afterwards (`build`): what nobody but its container
refers to has one reference, as in a program, and none from a test's own lists.
"""

import abc
import array
import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import types
import typing
import uuid

from hypothesis import strategies as st

__all__ = ["SHAPES", "build", "plans"]


class Plain:
    def __init__(self, *parts):
        for index, part in enumerate(parts):
            setattr(self, f"part{index}", part)


class Heir(Plain):
    pass


class Meta(type):
    pass


class OfMeta(Plain, metaclass=Meta):
    pass


class Abstract(Plain, abc.ABC):
    pass


class Slotted:
    __slots__ = ("first", "second", "__private")

    def __init__(self, *parts):
        names = ("first", "second", "_Slotted__private")
        for name, part in zip(names, parts):
            setattr(self, name, part)


class SlottedHeir(Slotted):
    __slots__ = ("third",)

    def __init__(self, *parts):
        super().__init__(*parts[1:])
        if parts:
            self.third = parts[0]


class SlottedWithDict(Slotted):
    def __init__(self, *parts):
        super().__init__(*parts[:1])
        for index, part in enumerate(parts[1:]):
            setattr(self, f"part{index}", part)


class WithGetstate(Plain):
    def __getstate__(self):
        return self.__dict__.copy()


class WithTupleState:
    def __init__(self, *parts):
        self.parts = parts

    def __getstate__(self):
        return self.parts, "state"

    def __setstate__(self, state):
        self.parts, self.came = state[0], state[1]
        del self.came


class WithFalseState(Plain):
    """A false state is not given to __setstate__; None means that there is none."""

    def __init__(self, *parts):
        pass

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        raise AssertionError("a state that is not there")


class WithNoState(WithFalseState):
    def __getstate__(self):
        return None


class WithSetstate(Plain):
    def __setstate__(self, state):
        self.__dict__.update(state)


class WithNewargs(tuple):
    def __new__(cls, *parts):
        return super().__new__(cls, parts)

    def __getnewargs__(self):
        return tuple(self)


class WithNewargsEx:
    def __new__(cls, *parts, word="none"):
        self = super().__new__(cls)
        self.word = word
        return self

    def __init__(self, *parts, word="some"):
        if parts:
            self.parts = parts

    def __getnewargs_ex__(self):
        return (1, 2), {"word": "other"}


class WithReduce:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return WithReduce, self.parts


class WithReduceAndState(Plain):
    def __reduce__(self):
        return type(self), (), self.__dict__


class WithReduceEx(Plain):
    def __reduce_ex__(self, protocol):
        return type(self), (), dict(self.__dict__, part9=protocol < 0)


class WithItems(list):
    """Reduced to its items: the fourth part of a reduction."""

    def __init__(self, *parts):
        self.extend(parts)

    def __reduce__(self):
        return WithItems, (), None, iter(list(self))


class WithPairs(dict):
    """Reduced to its pairs: the fifth part of a reduction."""

    def __init__(self, *parts):
        self.update(enumerate(parts))

    def __reduce__(self):
        return WithPairs, (), None, None, iter(list(self.items()))


def set_parts(thing, state):
    thing.parts = state


class WithSetter:
    """Reduced with a setter of its state: the sixth part of a reduction."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return WithSetter, (), self.parts, None, None, set_parts


class WithAppend:
    """Takes items, but is no list: each by append, or many by extend."""

    def __init__(self, *parts):
        self.items = list(parts)

    def append(self, item):
        self.items.append(item)

    def extend(self, items):
        self.items.extend(items)

    def __reduce__(self):
        return WithAppend, (), None, iter(list(self.items))


class WithName:
    """Reduced to a name."""

    def __init__(self, *parts):
        pass

    def __reduce__(self):
        return "THE_ONE"


THE_ONE = WithName()


class ByCopyreg:
    def __init__(self, *parts):
        self.parts = parts


copyreg.pickle(ByCopyreg, lambda thing: (ByCopyreg, thing.parts))


class Outer:
    class Inner(Plain):
        pass


class MyList(list):
    def __init__(self, *parts):
        super().__init__(parts)


class MyListWithDict(list):
    def __init__(self, *parts):
        super().__init__(parts[1:])
        if parts:
            self.first = parts[0]


class MyDict(dict):
    def __init__(self, *parts):
        super().__init__(enumerate(parts))


class MyTuple(tuple):
    def __new__(cls, *parts):
        return super().__new__(cls, parts)


class MyOrdered(collections.OrderedDict):
    pass


class MyInt(int):
    pass


class MyStr(str):
    pass


class MyBytes(bytes):
    pass


class MyFloat(float):
    pass


class MyBytearray(bytearray):
    pass


class MySet(set):
    pass


class MyFrozenset(frozenset):
    pass


class MyError(Exception):
    pass


Point = collections.namedtuple("Point", "x y")


class Typed(typing.NamedTuple):
    left: object
    right: object = None


@dataclasses.dataclass
class Data:
    left: object = None
    right: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    left: object = None
    right: object = None


@dataclasses.dataclass
class DataWithSlots:
    __slots__ = ("left", "right")
    left: object
    right: object


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Word(str, enum.Enum):
    YES = "yes"


def a_function():
    pass


def two(kind):
    return lambda *parts: kind(*(parts + (None, None))[:2])


def error_with_attribute(*parts):
    error = MyError(*parts[1:])
    if parts:
        error.first = parts[0]
    return error


def counter(*parts):
    counted = collections.Counter()
    for index, part in enumerate(parts):
        counted[index] = part
    return counted


def default_dict(*parts):
    return collections.defaultdict(list, enumerate(parts))


def two_dicts_in_one(*parts):
    """Two instances with one __dict__ between them."""
    one, other = Plain(*parts), Plain()
    other.__dict__ = one.__dict__
    return [one, other]


def with_its_dict(*parts):
    thing = Plain(*parts)
    return [thing, thing.__dict__]


def object_array(*parts):
    import numpy

    made = numpy.empty(len(parts), dtype=object)
    for index, part in enumerate(parts):
        made[index] = part
    return made


def bound_methods(*parts):
    items = list(parts)
    return [items.append, items]


#: How to make a thing of some parts.  Those of LATE can be given one more part afterwards, so
#: that cycles close through them.
SHAPES = {
    "list": lambda *parts: list(parts),
    "tuple": lambda *parts: tuple(parts),
    "dict": lambda *parts: dict(enumerate(parts)),
    "named dict": lambda *parts: {f"key{i}": part for i, part in enumerate(parts)},
    "OrderedDict": lambda *parts: collections.OrderedDict(enumerate(parts)),
    "MyOrdered": lambda *parts: MyOrdered(enumerate(parts)),
    "deque": lambda *parts: collections.deque(parts),
    "bounded deque": lambda *parts: collections.deque(parts, 2),
    "defaultdict": default_dict,
    "Counter": counter,
    "SimpleNamespace": lambda *parts: types.SimpleNamespace(
        **{f"p{i}": part for i, part in enumerate(parts)}
    ),
    "partial": lambda *parts: functools.partial(print, *parts),
    "Point": two(Point),
    "Typed": two(Typed),
    "Data": two(Data),
    "Frozen": two(Frozen),
    "DataWithSlots": two(DataWithSlots),
    "error": ValueError,
    "MyError": error_with_attribute,
    "two dicts in one": two_dicts_in_one,
    "with its dict": with_its_dict,
    "bound methods": bound_methods,
    "object array": object_array,
    "Outer.Inner": Outer.Inner,
    **{
        kind.__name__: kind
        for kind in (Plain, Heir, OfMeta, Abstract, Slotted, SlottedHeir, SlottedWithDict)
        + (WithGetstate, WithTupleState, WithFalseState, WithNoState, WithSetstate, WithNewargs)
        + (WithNewargsEx, WithReduce, WithReduceAndState, WithReduceEx, WithItems, WithPairs)
        + (WithSetter, WithAppend, ByCopyreg, MyList, MyListWithDict, MyDict, MyTuple)
    },
}

LATE = ("list", "dict", "Plain", "OrderedDict", "MyList", "MyDict", "WithSetter", "Data", "deque")


def close(thing, part):
    """Give `thing` one more part."""
    if isinstance(thing, dict):
        thing[f"late{len(thing)}"] = part
    elif isinstance(thing, (list, collections.deque)):
        thing.append(part)
    elif isinstance(thing, WithSetter):
        thing.parts = (*thing.parts, part)
    else:
        setattr(thing, f"late{len(vars(thing))}", part)


def whole_numbers():
    edges = [0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**63, 2**64, 2**2040, 2**2048]
    return st.one_of(
        st.integers(),
        st.sampled_from(
            [sign * (edge + by) for edge in edges for sign in (1, -1) for by in (-1, 0)]
        ),
    )


def atoms():
    text = st.text(max_size=12)
    zones = st.sampled_from([None, datetime.timezone.utc])
    hashable = st.one_of(
        st.integers(-3, 3), st.text(max_size=3), st.builds(Frozen, st.integers(0, 2))
    )
    return st.one_of(
        st.none() | st.booleans(),
        whole_numbers(),
        st.floats(),
        text
        | st.sampled_from(["x" * 255, "é" * 128, "x" * 256, "\ud800", "a\nb\\u1234", "\x00\x1a"]),
        st.binary(max_size=12) | st.sampled_from([b"y" * 255, b"y" * 256, b"\n\\'"]),
        st.builds(bytearray, st.binary(max_size=8)),
        st.complex_numbers(),
        st.datetimes(timezones=zones) | st.dates() | st.times() | st.timedeltas(),
        st.builds(decimal.Decimal, st.integers()) | st.builds(fractions.Fraction, st.integers()),
        st.sets(hashable, max_size=4) | st.frozensets(hashable, max_size=4),
        st.builds(MySet, st.sets(st.integers(0, 9)))
        | st.builds(MyFrozenset, st.sets(st.text("ab"))),
        st.builds(MyInt, st.integers()) | st.builds(MyFloat, st.floats(allow_nan=False)),
        st.builds(MyStr, text) | st.builds(MyBytes, st.binary()) | st.builds(MyBytearray),
        st.sampled_from([*Color, *Number, *Right, *Word, Right.READ | Right.WRITE]),
        st.sampled_from(
            [Plain, Outer.Inner, Meta, OfMeta, int, len, a_function, print, Color, THE_ONE]
        ),
        st.sampled_from(
            [..., NotImplemented, type(None), type(...), (), [], {}, set(), frozenset()]
        ),
        st.sampled_from([range(3), range(0, 9, 2), slice(1, None, 2)]),
        st.builds(array.array, st.just("d"), st.lists(st.floats(), max_size=3)),
        st.builds(uuid.UUID, int=st.integers(0, 2**128 - 1)),
        st.sampled_from([pathlib.PurePosixPath("/a/b"), [].append, "abc".upper, {}.get]),
    )


ATOMS = atoms()


@st.composite
def plans(draw, size=12):
    """Steps, each of which makes a thing of atoms and of things made before; and the cycles."""
    steps = []
    for index in range(draw(st.integers(1, size))):
        shape = draw(st.sampled_from(sorted(SHAPES)))
        part = ATOMS.map(lambda atom: ("atom", atom))
        if index:
            part |= st.integers(0, index - 1).map(lambda i: ("made", i))
        steps.append((shape, draw(st.lists(part, max_size=4))))
    late = [index for index, (shape, _) in enumerate(steps) if shape in LATE]
    if not late:
        return steps, []
    ties = st.tuples(st.sampled_from(late), st.integers(0, len(steps) - 1))
    return steps, draw(st.lists(ties, max_size=3))


def build(plan):
    """Nothing but the graph itself refers to its parts when this has returned."""
    steps, ties = plan
    made = []
    for shape, parts in steps:
        made.append(SHAPES[shape](*(made[it] if how == "made" else it for how, it in parts)))
    for index, part in ties:
        close(made[index], made[part])
    used = {it for _, parts in steps for how, it in parts if how == "made"}
    return [thing for index, thing in enumerate(made) if index not in used] or made[-1]
