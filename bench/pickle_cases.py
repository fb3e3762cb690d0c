"""What bench/pickling.py pickles: name -> how to make it.

A module, so that what is defined here can be imported, as the classes of a program can.
PLAIN are those that MessagePack knows, too.
"""

import collections
import dataclasses
import datetime
import enum
import random
import types
import typing

__all__ = ["BY_VALUE", "CASES", "PLAIN"]

CASES: dict[str, typing.Callable] = {}
PLAIN: set[str] = set()
BY_VALUE: dict[str, typing.Callable] = {}


def case(name, plain=False):
    def add(make):
        CASES[name] = make
        if plain:
            PLAIN.add(name)
        return make

    return add


def by_value(name):
    def add(make):
        BY_VALUE[name] = make
        return make

    return add


# -- Plain data ---------------------------------------------------------------------


@case("records of nested dicts", plain=True)
def records():
    return [
        {
            "id": i,
            "name": f"name {i}",
            "tags": ["red", "green", f"tag {i}"],
            "position": {"x": i * 0.5, "y": -i * 0.25, "layer": {"depth": i % 7, "visible": True}},
            "parent": None,
        }
        for i in range(300)
    ]


@case("mixed, as from JSON", plain=True)
def like_json():
    return {
        "total": 120,
        "next": None,
        "items": [
            {"id": f"{i:08x}", "price": i * 1.25, "stock": i, "sizes": [1, 2, 3], "new": i % 2 == 0}
            for i in range(120)
        ],
        "facets": {
            f"facet {i}": {"count": i, "terms": [f"term {j}" for j in range(5)]} for i in range(20)
        },
    }


@case("list of 10,000 ints", plain=True)
def ints():
    rng = random.Random(1)
    return [rng.randrange(2 ** rng.choice([4, 12, 20, 31, 50])) for _ in range(10_000)]


@case("list of 10,000 floats", plain=True)
def floats():
    rng = random.Random(2)
    return [rng.random() for _ in range(10_000)]


@case("list of 5,000 strings", plain=True)
def strings():
    return [f"some string number {i}" for i in range(5_000)]


@case("list of 5,000 non-ASCII strings", plain=True)
def non_ascii():
    return [f"größe {i} — 漢字" for i in range(5_000)]


@case("dict of 5,000 strings to ints", plain=True)
def big_dict():
    return {f"key {i}": i for i in range(5_000)}


@case("5,000 small tuples", plain=True)
def small_tuples():
    return [(i, float(i), "same") for i in range(5_000)]


@case("200 deep", plain=True)
def deep():
    thing = []
    for i in range(100):
        thing = [{"level": i, "inner": thing}]
    return thing


@case("one small dict", plain=True)
def one_small_dict():
    return {"id": 12345, "name": "some name", "value": 1.5, "ok": True}


@case("one int", plain=True)
def one_int():
    return 7


@case("one string", plain=True)
def one_string():
    return "hello, world"


@case("20 bytes", plain=True)
def small_bytes():
    return b"x" * 20


@case("1 MB of bytes", plain=True)
def large_bytes():
    return b"x" * 1_000_000


@case("sets and frozensets")
def sets():
    return [{i, i + 1, i + 2} for i in range(1000)] + [frozenset((i, "a")) for i in range(1000)]


@case("list of one shared list, 5,000 times")
def shared():
    inner = [1, 2, 3]
    return [inner] * 5_000


# -- Instances ------------------------------------------------------------------------


class WithDict:
    def __init__(self, i):
        self.number, self.name, self.ratio, self.parts = i, f"name {i}", i / 3, [i]


class WithSlots:
    __slots__ = ("name", "number", "parts", "ratio")

    def __init__(self, i):
        self.number, self.name, self.ratio, self.parts = i, f"name {i}", i / 3, [i]


@dataclasses.dataclass
class Data:
    number: int
    name: str
    ratio: float
    parts: list


class Reduced:
    def __init__(self, number, name):
        self.number, self.name = number, name

    def __reduce__(self):
        return Reduced, (self.number, self.name)


class WithState:
    def __init__(self, i):
        self.number, self.name, self.cache = i, f"name {i}", [i]

    def __getstate__(self):
        state = self.__dict__.copy()
        del state["cache"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.cache = []


class Point(typing.NamedTuple):
    x: float
    y: float


class Colour(enum.Enum):
    RED = 1
    GREEN = 2
    BLUE = 3


class Node:
    def __init__(self, depth):
        self.children = [Node(depth - 1), Node(depth - 1)] if depth else []
        self.depth = depth


@case("1,000 instances with __dict__")
def with_dict():
    return [WithDict(i) for i in range(1000)]


@case("1,000 instances with __slots__")
def with_slots():
    return [WithSlots(i) for i in range(1000)]


@case("1,000 dataclasses")
def dataclass():
    return [Data(i, f"name {i}", i / 3, [i]) for i in range(1000)]


@case("one instance")
def one_instance():
    return WithDict(1)


@case("a tree of instances")
def tree():
    return Node(8)


@case("1,000 with __reduce__")
def reduced():
    return [Reduced(i, f"name {i}") for i in range(1000)]


@case("1,000 with __getstate__ and __setstate__")
def with_state():
    return [WithState(i) for i in range(1000)]


@case("1,000 named tuples")
def named_tuples():
    return [Point(i / 3, -i / 3) for i in range(1000)]


@case("1,000 datetimes")
def datetimes():
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    return [start + datetime.timedelta(seconds=i) for i in range(1000)]


@case("1,000 members of an enum")
def enums():
    return [list(Colour)[i % 3] for i in range(1000)]


@case("500 ordered, default and counting dicts")
def dict_kinds():
    return [
        kind
        for i in range(170)
        for kind in (
            collections.OrderedDict(a=i, b=2),
            collections.defaultdict(list, a=[i]),
            collections.Counter("abca"),
        )
    ]


# -- Arrays ----------------------------------------------------------------------------


@case("100 small numpy arrays")
def small_arrays():
    import numpy

    return [numpy.arange(10.0) + i for i in range(100)]


@case("a numpy array of 1 MB")
def large_array():
    import numpy

    return numpy.ones(131_072)


# -- By value: beside cloudpickle -------------------------------------------------------


@by_value("lambda")
def simple_lambda():
    return eval("lambda x: x + 1", {"__name__": "__main__"})


@by_value("closure over two cells, with a default")
def closure():
    return in_dynamic_module(
        """
        def make(a, b):
            def inner(x, y=1):
                return a + b + x + y
            return inner
        made = make(1, [2])
    """
    )


@by_value("function with globals and an import")
def with_globals():
    return in_dynamic_module(
        """
        import math
        table = {"a": 1, "b": 2}
        def helper(x): return math.sqrt(x) + table["a"]
        def made(x): return helper(x) + len(table)
    """
    )


@by_value("class with four methods")
def dynamic_class():
    return in_dynamic_module(CLASS)


@by_value("instance of such a class")
def dynamic_instance():
    return in_dynamic_module(CLASS)()


@by_value("dataclass")
def dynamic_dataclass():
    return in_dynamic_module(
        """
        import dataclasses
        @dataclasses.dataclass
        class made:
            left: int = 0
            right: str = "x"
    """
    )


@by_value("100 lambdas of one kind")
def hundred_lambdas():
    return in_dynamic_module("made = [lambda x, i=i: x + i for i in range(100)]")


CLASS = """
    class made:
        '''What it is for.'''
        limit = 3
        def __init__(self, a=1): self.a = a
        def get(self): return self.a
        @property
        def twice(self): return self.a * 2
        @classmethod
        def of(cls, a): return cls(a)
"""


def in_dynamic_module(text):
    """`made`, as the text makes it in a module that nobody can import."""
    import textwrap

    module = types.ModuleType("made_while_running")
    exec(textwrap.dedent(text), vars(module))
    return module.made
