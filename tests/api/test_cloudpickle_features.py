"""What cloudpickle's README, documentation and list of changes name: each works by value here.

One test for each, in their order: first the README's own examples, then what its changes say
that it learnt.  The sender is a program whose definitions the receiver lacks, and the receiver
uses the standard library's `pickle.loads` (pickle_travel).  cloudpickle itself is not needed.
Modules, small things and the pickler are in test_cloudpickle_things.py.
"""

import io
import pickle
import subprocess
import sys
import textwrap

import pickle_travel

import kinfolk.pickle as kpickle

travels = pickle_travel.travels


# -- The README ---------------------------------------------------------------------


def test_lambda(travels):
    travels("sent = lambda x: x ** 2", "assert got(2) == 4")


def test_function_of_main_with_annotations_and_a_global(travels):
    travels(
        """
        CONSTANT = 42
        def my_function(data: int) -> int:
            return data + CONSTANT
        sent = my_function
    """,
        """
        assert got(43) == 85
        assert got.__annotations__ == {"data": int, "return": int}
        assert got.__module__ == "__main__" and got.__qualname__ == "my_function"
    """,
    )


def test_class_of_main(travels):
    travels(
        """
        class Counter:
            "Counts."
            step = 2
            def __init__(self, start): self.n = start
            def up(self): self.n += self.step; return self
        sent = Counter, Counter(3)
    """,
        """
        cls, thing = got
        assert type(thing) is cls and cls.__doc__ == "Counts."
        assert thing.up().n == 5 and cls(1).up().n == 3
    """,
    )


def test_functions_typed_into_a_shell():
    """There is no file that could be read, and `__main__` has no __spec__ and no __file__."""
    typed = """
        import kinfolk.pickle, pickle, subprocess, sys
        CONSTANT = 42
        def my_function(data):
            return data + CONSTANT

        data = kinfolk.pickle.dumps(my_function)
        code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())(43))"
        print(subprocess.run([sys.executable, "-c", code], input=data, capture_output=True))
    """
    env = {"PYTHONPATH": pickle_travel.PACKAGE_ROOT}
    for how in (["-i"], ["-"], ["-c", textwrap.dedent(typed)]):
        done = subprocess.run(
            [sys.executable, "-q", *how],
            input="" if how[0] == "-c" else textwrap.dedent(typed),
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
        )
        assert "stdout=b'85\\n'" in done.stdout, done.stdout + done.stderr


def test_registered_module(travels, tmp_path):
    """Its functions and classes travel to where the module is not."""
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "my_module.py").write_text(
        "factor = 3\n"
        "def my_function(x): return helper(x) * factor\n"
        "def helper(x): return x + 1\n"
        "class MyClass:\n"
        "    def get(self): return my_function(1)\n"
    )
    travels(
        """
        import my_module
        from kinfolk import pickle as kpickle
        import pickle
        assert kpickle.list_registry_pickle_by_value() == set()
        assert kpickle.dumps(my_module.my_function) == pickle.dumps(my_module.my_function, 5)
        kpickle.register_pickle_by_value(my_module)
        assert kpickle.list_registry_pickle_by_value() == {"my_module"}
        data = kpickle.dumps([my_module.my_function, my_module.MyClass, my_module.MyClass()])
        kpickle.unregister_pickle_by_value(my_module)
        assert kpickle.list_registry_pickle_by_value() == set()
        assert kpickle.dumps(my_module.my_function) == pickle.dumps(my_module.my_function, 5)
        sent = data
    """,
        """
        import importlib.util
        assert importlib.util.find_spec("my_module") is None
        function, cls, thing = pickle.loads(got)
        assert function(1) == cls().get() == thing.get() == 6
    """,
    )


def test_registered_package_covers_its_submodules(travels, tmp_path):
    package = tmp_path / "lib" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def f(): return 5\n")
    travels(
        """
        import my_package.inner
        from kinfolk import pickle as kpickle
        kpickle.register_pickle_by_value(my_package)
        sent = my_package.inner.f
    """,
        "assert got() == 5",
    )


def test_what_can_be_imported_goes_by_reference():
    import json.decoder

    for thing in (json.dumps, json.decoder.JSONDecoder, json.decoder.JSONDecoder.decode, print):
        assert kpickle.dumps(thing) == pickle.dumps(thing, 5)


def test_the_names():
    """`import kinfolk.pickle as cloudpickle` is enough."""
    for name in (
        ("dump", "dumps", "load", "loads", "Pickler", "CloudPickler", "DEFAULT_PROTOCOL")
        + ("register_pickle_by_value", "unregister_pickle_by_value")
        + ("list_registry_pickle_by_value",)
    ):
        assert name in kpickle.__all__ and hasattr(kpickle, name)
    assert kpickle.CloudPickler is kpickle.Pickler
    assert kpickle.DEFAULT_PROTOCOL == pickle.HIGHEST_PROTOCOL
    file = io.BytesIO()
    kpickle.dump(lambda: 1, file, protocol=5, buffer_callback=None)
    kpickle.CloudPickler(file, protocol=4).dump(lambda: 2)
    file.seek(0)
    assert kpickle.load(file)() == 1 and pickle.load(file)() == 2
    assert kpickle.loads(kpickle.dumps(lambda: 3, protocol=None, buffer_callback=None))() == 3


# -- Functions ------------------------------------------------------------------------


def test_nested_lambdas_and_closures(travels):
    travels(
        """
        a, b = 1, 2
        f1 = lambda x: x + a
        def outer(n):
            cell = {n}
            def inner(m=3, *, k=4): return n, m, k, cell, f1(m)
            return inner
        sent = lambda x: f1(x) // b, outer(7)
    """,
        "assert got[0](3) == 2 and got[1]() == (7, 3, 4, {7}, 4)",
    )


def test_recursive_functions(travels):
    travels(
        """
        def factorial(n): return 1 if n < 2 else n * factorial(n - 1)
        def local():
            def down(n): return n if n == 0 else down(n - 1)
            return down
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        sent = factorial, local(), even
    """,
        "assert got[0](5) == 120 and got[1](4) == 0 and got[2](6)",
    )


def test_empty_cells(travels):
    travels(
        """
        def outer():
            if False: unbound = None
            def inner(): return unbound
            return inner
        sent = outer()
    """,
        """
        try: got()
        except NameError: pass
        else: raise AssertionError
    """,
    )


def test_generators_and_coroutines(travels):
    travels(
        """
        def generate(n): yield from range(n)
        async def wait(n): return n
        async def several(n):
            for i in range(n): yield i
        sent = generate, wait, several
    """,
        """
        import asyncio
        async def all_of(them): return [one async for one in them]
        assert list(got[0](3)) == [0, 1, 2]
        assert asyncio.run(got[1](4)) == 4
        assert asyncio.run(all_of(got[2](2))) == [0, 1]
    """,
    )


def test_parts_of_a_function(travels):
    travels(
        """
        def make():
            def f(a, b=[1], /, *, c={"k": 2}) -> "str":
                "What it does."
                return a, b, c
            f.note = [3]
            f.__qualname__, f.__module__ = "other.name", "other_module"
            return f
        sent = make()
    """,
        """
        assert got(0) == (0, [1], {"k": 2}) and got.note == [3]
        assert got.__doc__ == "What it does." and got.__annotations__ == {"return": "str"}
        assert got.__qualname__ == "other.name" and got.__module__ == "other_module"
        assert got.__name__ == "f"
    """,
    )


def test_import_in_the_body_and_submodules(travels):
    travels(
        """
        import os.path, xml.etree.ElementTree, concurrent.futures
        def body():
            import json
            from collections import abc
            return json.dumps([1]), abc.Mapping.__name__
        def attribute(): return xml.etree.ElementTree.fromstring("<a/>").tag
        sent = body, attribute, lambda: concurrent.futures.Future.__name__
    """,
        "assert got[0]() == ('[1]', 'Mapping') and got[1]() == 'a' and got[2]() == 'Future'",
    )


def test_globals_are_shared_among_what_was_sent_together(travels):
    travels(
        """
        VARIABLE = "default"
        def change():
            global VARIABLE
            VARIABLE = "changed"
        def look(): return VARIABLE
        sent = change, look, _pickle_under_test.dumps(look)
    """,
        """
        changing, looking, alone = got
        VARIABLE = "the receiver's own"
        assert changing.__globals__ is looking.__globals__ is not globals()
        changing()
        assert looking() == "changed" and VARIABLE == "the receiver's own"
        assert pickle.loads(alone)() == "default"
    """,
    )


def test_builtins_are_there(travels):
    travels(
        "sent = lambda x: (sum(range(x)), eval('len([1])'), __builtins__ is not None)",
        "assert got(3) == (3, 1, True)",
    )


def test_names_that_are_only_attributes_are_not_sent(travels):
    travels(
        """
        import sys, threading
        exit = threading.Lock()
        def f(): return sys.exit
        sent = f
    """,
        "assert got() is sys.exit",
    )


def test_functions_whose_module_is_unknown(travels):
    """And modules in sys.modules that are none, or fail at every question."""
    travels(
        """
        class Faulty:
            def __getattr__(self, name): raise RuntimeError(name)
        sys.modules["_faulty"], sys.modules["_none"], sys.modules["_tuple"] = Faulty(), None, (1,)
        def f(): return "it works"
        f.__module__ = None
        class C:
            __module__ = "_missing_module"
            def f(self): return "it works"
        sent = f, C()
    """,
        "assert got[0]() == got[1].f() == 'it works'",
    )


def test_decorated_functions(travels):
    travels(
        """
        import functools
        def decorate(f):
            @functools.wraps(f)
            def inner(*a): return "decorated", f(*a)
            return inner
        @decorate
        def f(x):
            "Doc."
            return x
        @functools.lru_cache(maxsize=None)
        def cached(x): return x + 1
        sent = f, cached, functools.partial(f, 1), functools.partialmethod(f)
    """,
        """
        assert got[0](1) == ("decorated", 1) and got[0].__doc__ == "Doc."
        assert got[1](1) == 2 and got[2]() == ("decorated", 1) and got[3].func(2)[1] == 2
    """,
    )


# -- Methods and descriptors -------------------------------------------------------------


def test_methods_of_every_kind(travels):
    travels(
        """
        class C:
            def plain(self): return "plain", type(self).__name__
            @classmethod
            def of_class(cls): return "class", cls.__name__
            @staticmethod
            def static(): return "static"
            @property
            def prop(self): "Doc."; return "property"
            @prop.setter
            def prop(self, value): self.value = value
        sent = {
            "bound": C().plain, "unbound": C.plain, "class": C.of_class, "static": C.static,
            "raw class": vars(C)["of_class"], "raw static": vars(C)["static"], "property": C.prop,
            "of instance": C().of_class, "C": C, "builtin": [1].copy, "builtin type": str.upper,
            "slot": str.__add__, "wrapper": "a".__add__, "of type": dict.fromkeys,
        }
    """,
        """
        C = got["C"]
        assert got["bound"]() == ("plain", "C") == got["unbound"](C())
        assert got["class"]() == got["of instance"]() == ("class", "C")
        assert got["raw class"].__get__(None, C)() == ("class", "C")
        assert got["static"]() == got["raw static"].__func__() == "static"
        assert got["property"].__doc__ == C.prop.__doc__ and got["property"].fget(C()) == "property"
        thing = C(); thing.prop = 4; assert thing.value == 4
        assert got["builtin"]() == [1] and got["builtin type"]("a") == "A"
        assert got["slot"]("a", "b") == got["wrapper"]("b") == "ab"
        assert got["of type"]("a") == {"a": None}
    """,
    )


def test_members_and_getsets(travels):
    travels(
        """
        class Slotted:
            __slots__ = "a",
        sent = Slotted.a, Slotted, vars(type)["__dict__"], vars(type(lambda: 1))["__code__"]
    """,
        """
        member, cls, mro, code = got
        thing = cls(); thing.a = 1
        assert member.__get__(thing) == 1 and member is cls.a
        assert mro is vars(type)["__dict__"]
        assert code.__get__(lambda: 1).co_name == "<lambda>"
    """,
    )


# -- Classes --------------------------------------------------------------------------------


def test_super_and_cells_of_a_class(travels):
    travels(
        """
        def make():
            class Base:
                def method(self): return 1
            class Derived(Base):
                "Derived."
                def method(self): return super().method() + 1
                def cls(self): return __class__
            return Derived
        sent = make()
    """,
        "assert got().method() == 2 and got().cls() is got and got.__doc__ == 'Derived.'",
    )


def test_cycles_of_classes(travels):
    travels(
        """
        class C: pass
        C.again, C.instance = C, C()
        C.method = lambda self: C
        sent = C
    """,
        "assert got.again is got and type(got.instance) is got and got().method() is got",
    )


def test_one_class_however_often(travels):
    travels(
        """
        class C: pass
        sent = _pickle_under_test.dumps(C), _pickle_under_test.dumps([C(), C])
    """,
        """
        C = pickle.loads(got[0])
        thing, again = pickle.loads(got[1])
        assert again is C and isinstance(thing, C)
    """,
    )


def test_slots_metaclasses_and_abstract_classes(travels):
    travels(
        """
        import abc
        class Slotted:
            __slots__ = "a", "__b", "__weakref__"
            def set(self): self.a, self.__b = 1, 2; return self
            def get(self): return self.a, self.__b
        class Meta(type):
            def __call__(cls, *args): return "called", super().__call__(*args)
        class WithMeta(metaclass=Meta): pass
        class Abstract(abc.ABC):
            @property
            @abc.abstractmethod
            def value(self): ...
            @classmethod
            @abc.abstractmethod
            def make(cls): ...
        class Concrete(Abstract):
            value = 1
            @classmethod
            def make(cls): return cls()
        Abstract.register(tuple)
        sent = Slotted().set(), WithMeta, Abstract, Concrete
    """,
        """
        slotted, with_meta, Abstract, Concrete = got
        assert slotted.get() == (1, 2) and not hasattr(slotted, "__dict__")
        assert with_meta()[0] == "called"
        assert issubclass(tuple, Abstract) and isinstance(Concrete.make(), Abstract)
        try: Abstract()
        except TypeError: pass
        else: raise AssertionError
    """,
    )


def test_enums(travels):
    travels(
        """
        import enum
        class Color(enum.Enum):
            "Colours."
            RED = 1
            GREEN = 2
            ALSO_RED = 1
            def lower(self): return self.name.lower()
        class Number(enum.IntEnum): ONE = 1
        class Right(enum.Flag): READ = 1; WRITE = 2
        class Empty(enum.Enum): pass
        sent = Color, Color.RED, Number.ONE, Right.READ | Right.WRITE, Empty
    """,
        """
        Color, red, one, both, Empty = got
        assert red is Color.RED is Color(1) is Color.ALSO_RED and red.lower() == "red"
        assert list(Color) == [Color.RED, Color.GREEN] and Color.__doc__ == "Colours."
        assert one == 1 and one.name == "ONE" and both.value == 3 and list(Empty) == []
    """,
    )


def test_dataclasses(travels):
    travels(
        """
        import dataclasses, typing
        @dataclasses.dataclass(order=True)
        class Data:
            x: int
            y: list = dataclasses.field(default_factory=list, compare=False)
            init: dataclasses.InitVar[int] = 0
            shared: typing.ClassVar[int] = 3
        @dataclasses.dataclass(frozen=True)
        class Frozen: z: str = "z"
        sent = Data, Data(1), Frozen()
    """,
        """
        import dataclasses
        Data, thing, frozen = got
        assert [f.name for f in dataclasses.fields(Data)] == ["x", "y"]
        assert thing == Data(1) < Data(2) and dataclasses.asdict(thing) == {"x": 1, "y": []}
        assert dataclasses.replace(thing, x=5, init=1).x == 5 and Data.shared == 3
        try: frozen.z = 1
        except dataclasses.FrozenInstanceError: pass
        else: raise AssertionError
    """,
    )


def test_named_tuples_and_typed_dicts(travels):
    travels(
        """
        import collections, typing
        Point = collections.namedtuple("Point", "x y", defaults=[0])
        class Typed(typing.NamedTuple):
            a: int
            b: str = "b"
            def both(self): return self.a, self.b
        class Dict(typing.TypedDict, total=False): key: int
        sent = Point(1), Point, Typed(1), Typed, Dict
    """,
        """
        assert got[0] == (1, 0) and type(got[0]) is got[1] and got[0]._replace(x=2).x == 2
        assert got[2].both() == (1, "b") and type(got[2]) is got[3] and got[3]._fields == ("a", "b")
        assert got[4](key=1) == {"key": 1} and got[4].__annotations__ == {"key": int}
    """,
    )


def test_generics_and_type_hints(travels):
    travels(
        """
        import typing
        T, U = typing.TypeVar("T"), typing.TypeVar("U", bound=int)
        N = typing.NewType("N", int)
        class Box(typing.Generic[T]):
            item: T
            def get(self) -> "typing.Optional[T]": return self.item
        def f(a: T, b: Box[int], c: typing.Literal[1], d: typing.Final[int] = 1) -> list[T]: ...
        class Proto(typing.Protocol):
            def get(self): ...
        sent = T, U, Box, Box[T], Box[int], f, N, Proto, typing.Callable[[T], U], typing.List[Box]
    """,
        """
        import typing
        T, U, Box, of_t, of_int, f, N, Proto, call, boxes = got
        assert Box.__parameters__ == (T,) and Box[int] == of_int and of_t[int] == of_int
        hints = typing.get_type_hints(f)
        assert hints["a"] is T and hints["b"] == of_int and hints["c"] == typing.Literal[1]
        assert U.__bound__ is int and N(3) == 3 and call.__args__ == (T, U)
        assert boxes.__args__ == (Box,) and Box.__annotations__ == {"item": T}
    """,
    )


def test_classes_of_type_call_and_odd_ones(travels):
    travels(
        """
        class Mixin:
            made = 0
            def __init_subclass__(cls, **kw): cls.made += 1
        class Sub(Mixin): pass
        class Dict(dict):
            def __missing__(self, key): return key
        class Error(ValueError):
            def __init__(self, a, b): super().__init__(a, b)
        class Called:
            def __call__(self): return "called"
        sent = type("Made", (dict,), {"x": 1}), Sub(), Dict(a=1), Error(1, 2), Called()
    """,
        """
        assert got[0].x == 1 and issubclass(got[0], dict) and got[2]["b"] == "b" and got[2]["a"] == 1
        assert got[3].args == (1, 2) and got[4]() == "called" and got[1].made == 1
    """,
    )
