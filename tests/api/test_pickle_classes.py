"""Classes that the receiver cannot import arrive by value, and work there as where they were made."""

import sys

import pickle_travel
import pytest

travels = pickle_travel.travels


def test_class_with_everything(travels):
    travels(
        """
        class Base:
            inherited = 1
            def hello(self): return "base"
        class Meta(type):
            def __call__(cls, *args):
                made = super().__call__(*args)
                made.by_meta = True
                return made
        class C(Base, metaclass=Meta):
            "Doc."
            data: int = 5
            def __init__(self, x): self._x = x
            def hello(self): return "c " + super().hello()
            @property
            def x(self): "The x."; return self._x
            @x.setter
            def x(self, value): self._x = value
            def again(self): return C(self._x)
            def same(self): return __class__
            class Inner:
                y = 2
        C.itself = C
        sent = C(1), C, C.Inner()
    """,
        """
        c, C, inner = got
        assert type(c) is C and c.x == 1 and c.by_meta and c.hello() == "c base"
        c.x = 7
        assert c.again().x == 7 and c.same() is C and C.itself is C
        assert type(inner) is C.Inner and inner.y == 2 and C.Inner.__qualname__ == "C.Inner"
        assert C.__doc__ == "Doc." and C.x.__doc__ == "The x." and C.data == 5
        assert C.__annotations__ == {"data": int} and type(C).__name__ == "Meta"
        assert C.__mro__[1].inherited == 1 and C.__module__ == "__main__"
    """,
    )


def test_slots(travels):
    travels(
        """
        class S:
            __slots__ = ("a", "__private", "__weakref__")
            def __init__(self, a): self.a, self.__private = a, -a
            def private(self): return self.__private
        class T(S):
            __slots__ = {"b": "documented"}
        class U(T):
            __slots__ = iter(["c"])
        t = T(1); t.b = 2
        sent = t, U
    """,
        """
        import weakref
        t, U = got
        u = U(3)
        u.c = 4
        assert (t.a, t.b, t.private()) == (1, 2, -1) and weakref.ref(t)() is t
        assert not hasattr(t, "__dict__") and type(t).__slots__["b"] == "documented"
        assert (u.a, u.c) == (3, 4) and not hasattr(u, "__dict__")
    """,
    )


def test_dataclasses(travels):
    travels(
        """
        from dataclasses import dataclass, field, KW_ONLY
        from typing import ClassVar
        @dataclass(frozen=True, order=True)
        class P:
            x: int
            y: list = field(default_factory=list, compare=False, metadata={"unit": "m"})
            kind: ClassVar[str] = "point"
            _: KW_ONLY
            z: int = 0
        @dataclass(slots=True)
        class Q:
            a: int
            b: str = "b"
        @dataclass(frozen=True, slots=True)
        class R(Q if False else object):
            a: int
        sent = P(1, z=2), Q(3), R(4)
    """,
        """
        import dataclasses
        p, q, r = got
        P, Q = type(p), type(q)
        assert p == P(1, z=2) and P(1) < P(2) and p.y == [] and P(1).y is not P(1).y
        assert [f.name for f in dataclasses.fields(P)] == ["x", "y", "z"]
        assert dataclasses.fields(P)[1].metadata["unit"] == "m"
        assert dataclasses.replace(p, x=9).x == 9 and P.kind == "point"
        assert dataclasses.fields(P)[0].default is dataclasses.MISSING
        assert repr(q) == "Q(a=3, b='b')" and not hasattr(q, "__dict__") and Q(1) == Q(1)
        for frozen in (p, r):
            try:
                frozen.x = 1
            except (dataclasses.FrozenInstanceError, TypeError):
                pass
            else:
                raise AssertionError
    """,
    )


def test_enums(travels):
    travels(
        """
        import enum
        class Colour(enum.Enum):
            RED = 1
            ROSSO = 1
            GREEN = "g"
            def shout(self): return self.name + "!"
            @classmethod
            def default(cls): return cls.GREEN
            @property
            def lower(self): return self.name.lower()
        class Auto(enum.Enum):
            def _generate_next_value_(name, start, count, last_values): return name.lower()
            A = enum.auto()
            B = enum.auto()
        class Planet(enum.Enum):
            EARTH = (5.9, 6.4)
            MARS = (0.6, 3.4)
            def __init__(self, mass, radius): self.mass, self.radius = mass, radius
        class Numbered(enum.Enum):
            def __new__(cls, label):
                made = object.__new__(cls)
                made._value_ = len(cls.__members__) + 1
                made.label = label
                return made
            ONE = "one"
            TWO = "two"
        class Text(str, enum.Enum):
            A = "a"
        class Level(enum.IntEnum):
            LOW = 1
        class Mode(enum.Flag):
            R = 4
            W = 2
            RW = 6
        class Bits(enum.IntFlag):
            X = 1
            Y = 2
        class Pair(tuple, enum.Enum):
            P = (1, 2)
        sent = (Colour.RED, Colour, Auto.B, Planet.MARS, Numbered.TWO, Text.A, Level.LOW,
                Mode.R | Mode.W, Mode.R, Bits.X | Bits.Y, Pair.P)
    """,
        """
        red, Colour, b, mars, two, text, low, rw, r, bits, pair = got
        assert red is Colour.RED is Colour(1) is Colour["ROSSO"] and red.shout() == "RED!"
        assert list(Colour) == [Colour.RED, Colour.GREEN] and list(Colour.__members__)[1] == "ROSSO"
        assert Colour.default() is Colour.GREEN and red.lower == "red"
        assert b.value == "b" and b is type(b)("b")
        assert mars.radius == 3.4 and type(mars).EARTH.mass == 5.9 and mars.value == (0.6, 3.4)
        assert two.value == 2 and two.label == "two" and type(two)(1).label == "one"
        assert text == "a" and isinstance(text, str) and low == 1 and low + 1 == 2
        assert rw is type(rw).RW and r in rw and (~r & type(r).W) == type(r).W
        assert bits == 3 and bits & 1 == 1 and int(bits) == 3
        assert pair == (1, 2) and pair is type(pair).P
        assert repr(red) == "<Colour.RED: 1>"
        import enum
        try:
            Colour.RED = 2
        except AttributeError:
            pass
        else:
            raise AssertionError
    """,
    )


def test_typing(travels):
    travels(
        """
        from typing import (Generic, NamedTuple, NewType, Optional, ParamSpec, Protocol, TypedDict,
                            TypeVar, runtime_checkable)
        T = TypeVar("T", bound=int)
        U = TypeVar("U", int, str)
        P = ParamSpec("P")
        class Box(Generic[T]):
            def __init__(self, x: T): self.x = x
        class IntBox(Box[int]): pass
        class Point(NamedTuple):
            "A point."
            x: int
            y: int = 0
            def norm(self): return self.x + self.y
        class Movie(TypedDict, total=False):
            name: str
        @runtime_checkable
        class Quacks(Protocol):
            def quack(self) -> str: ...
        class Duck(Quacks):
            def quack(self): return "q"
        UserId = NewType("UserId", int)
        def f(x: T, y: Optional[Box[int]]) -> list[U]: return x
        sent = Box(1), IntBox(2), Point(3), Movie, Quacks, Duck(), UserId, f, T, Box, Box[int], P
    """,
        """
        import typing
        box, int_box, point, Movie, Quacks, duck, UserId, f, T, Box, boxed, P = got
        assert type(box) is Box and Box.__parameters__ == (T,) and T.__bound__ is int
        assert T.__name__ == "T" and Box[int] == boxed and boxed(5).x == 5
        assert isinstance(int_box, Box) and int_box.x == 2
        assert typing.get_type_hints(f)["x"] is T
        assert point == (3, 0) and point.norm() == 3 and point._replace(y=2).norm() == 5
        assert type(point).__doc__ == "A point." and type(point)._fields == ("x", "y")
        assert Movie(name="n") == {"name": "n"} and Movie.__optional_keys__ == {"name"}
        assert isinstance(duck, Quacks) and not isinstance(1, Quacks) and duck.quack() == "q"
        assert UserId(3) == 3 and UserId.__supertype__ is int and UserId.__name__ == "UserId"
        assert P.__name__ == "P"
        try:
            Quacks()
        except TypeError:
            pass
        else:
            raise AssertionError
    """,
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
def test_type_parameters(travels):
    travels(
        """
        def first[T](items: list[T]) -> T: return items[0]
        class Stack[T: (int, str)]:
            def __init__(self): self.items: list[T] = []
            def push(self, x: T): self.items.append(x)
        class Node[N: Node]: pass
        type Pair[A] = tuple[A, A]
        s = Stack[int](); s.push(1)
        sent = first, s, Stack, Node, Pair
    """,
        """
        first, s, Stack, Node, Pair = got
        (T,) = first.__type_params__
        assert first([1]) == 1 and first.__annotations__["return"] is T
        assert s.items == [1] and Stack.__type_params__[0].__constraints__ == (int, str)
        assert Node.__type_params__[0].__bound__ is Node
        assert Pair.__name__ == "Pair" and Pair[int].__origin__ is Pair
    """,
    )


def test_namedtuple(travels):
    travels(
        """
        from collections import namedtuple
        P = namedtuple("P", "x y", defaults=[7])
        sent = P(1), P
    """,
        """
        p, P = got
        assert p == (1, 7) and p.y == 7 and type(p) is P
        assert P._make([1, 2])._asdict() == {"x": 1, "y": 2}
        assert repr(p) == "P(x=1, y=7)"
    """,
    )


def test_abstract_classes(travels):
    travels(
        """
        import abc
        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...
            @classmethod
            def __subclasshook__(cls, other): return NotImplemented
        class Square(Shape):
            def __init__(self, a): self.a = a
            def area(self): return self.a ** 2
        class Foreign: pass
        Shape.register(Foreign)
        Shape.register(frozenset)
        sent = Shape, Square(3), Foreign()
    """,
        """
        Shape, square, foreign = got
        assert square.area() == 9 and isinstance(square, Shape)
        assert isinstance(foreign, Shape) and isinstance(frozenset(), Shape)
        assert not isinstance(1, Shape)
        try:
            Shape()
        except TypeError:
            pass
        else:
            raise AssertionError
        class Circle(Shape):
            area = lambda self: 3
        assert Circle().area() == 3
    """,
    )


def test_making_a_class_is_not_repeated(travels):
    travels(
        """
        import sys
        log = []
        class Named:
            def __set_name__(self, owner, name):
                log.append(("set_name", name)); self.name = name
            def __get__(self, obj, cls=None): return self.name
        class Meta(type):
            def __new__(meta, name, bases, body, **options):
                log.append(("new", name)); return super().__new__(meta, name, bases, body, **options)
            def __init__(cls, name, bases, body, **options):
                log.append(("init", name)); super().__init__(name, bases, body)
        class Base(metaclass=Meta):
            registry = []
            def __init_subclass__(cls, *, key, **options):
                log.append(("init_subclass", cls.__name__))
                super().__init_subclass__(**options)
                cls.key = key
                cls.registry.append(cls)
        class Plugin(Base, key="k"):
            field = Named()
        sent = Plugin(), log, Base
    """,
        """
        plugin, log, Base = got
        assert type(plugin).key == "k" and plugin.field == "field"
        assert Base.registry == [type(plugin)]
        assert [each[0] for each in log] == ["new", "init", "new", "set_name", "init_subclass", "init"]
        new_log = Base.__init_subclass__.__func__.__globals__["log"]
        assert new_log is log
        class Later(Base, key="later"):  # and the hook works again
            pass
        assert Base.registry[1] is Later and len(log) == 9
    """,
    )


def test_classes_that_hold_their_own_instances_and_methods(travels):
    travels(
        """
        class C:
            def get(self): return self.n
            @classmethod
            def make(cls): return cls.only
        C.only = C()
        C.only.n = 5
        C.maker, C.getter, C.all = C.make, C.only.get, [C, C.only]
        sent = C.only, C.make, C.getter
    """,
        """
        only, make, getter = got
        C = type(only)
        assert C.only is only and C.all[0] is C and C.all[1] is only
        assert make() is only and C.maker() is only and getter() == 5 and C.getter() == 5
        assert getter.__func__ is C.get
    """,
    )


def test_metaclasses_that_answer_for_their_classes(travels):
    travels(
        """
        class Meta(type):
            def __eq__(cls, other): raise RuntimeError
            def __hash__(cls): raise RuntimeError
            def __getattr__(cls, name): return "anything"
            def __setattr__(cls, name, value): raise RuntimeError
        class C(metaclass=Meta):
            def get(self): return super().__repr__()
        sent = [C, lambda: C()]
    """,
        """
        C, make = got
        assert type(make()) is C and "C object" in make().get() and C.whatever == "anything"
    """,
    )


def test_exceptions_and_builtin_bases(travels):
    travels(
        """
        class Boom(ValueError):
            def __init__(self, code): super().__init__(f"code {code}"); self.code = code
            def __reduce__(self): return type(self), (self.code,)
        class D(dict):
            def __missing__(self, key): return key
        class I(int):
            def twice(self): return I(2 * self)
        sent = Boom(3), D(a=1), I(4)
    """,
        """
        boom, d, i = got
        assert isinstance(boom, ValueError) and boom.code == 3 and str(boom) == "code 3"
        assert d == {"a": 1} and d["zz"] == "zz" and i.twice() == 8
        try:
            raise boom
        except ValueError:
            pass
    """,
    )


def test_ctypes_structures(travels):
    travels(
        """
        import ctypes
        class Pos(ctypes.Structure):
            _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]
            def total(self): return self.x + self.y
        sent = Pos(1, 2.5), Pos
    """,
        """
        pos, Pos = got
        assert pos.total() == 3.5 and Pos(2, 1).total() == 3
    """,
    )
