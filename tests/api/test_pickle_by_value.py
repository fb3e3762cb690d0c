"""Functions that the receiver cannot import arrive by value, with what they use and no more."""

from importlib.util import MAGIC_NUMBER

import pickle_travel
import pytest

import kinfolk.pickle as kpickle

travels = pickle_travel.travels


def test_function_of_main(travels):
    travels(
        """
        K = 2
        def times(x: int, y=3, *, z=4) -> int:
            "Multiply."
            return x * y * z * K
        times.tag = [1]
        sent = times
    """,
        """
        assert got(1) == 24 and got(1, 1, z=1) == 2
        assert got.__name__ == got.__qualname__ == "times" and got.__module__ == "__main__"
        assert got.__doc__ == "Multiply." and got.tag == [1]
        assert got.__annotations__ == {"x": int, "return": int}
    """,
    )


def test_lambdas_nested_in_each_other(travels):
    travels("sent = lambda x: lambda y: lambda z: (x, y, z)", "assert got(1)(2)(3) == (1, 2, 3)")


def test_closures_share_their_cells(travels):
    travels(
        """
        def make():
            count = 0
            def up():
                nonlocal count
                count += 1
            def now():
                return count
            return up, now
        sent = make()
    """,
        """
        up, now = got
        up(); up()
        assert now() == 2
        assert up.__closure__[0] is now.__closure__[0]
    """,
    )


def test_closure_over_itself(travels):
    travels(
        """
        def make():
            def fact(n):
                return n * fact(n - 1) if n else 1
            return fact
        sent = make()
    """,
        """
        assert got(5) == 120
        assert got.__closure__[0].cell_contents is got
    """,
    )


def test_closures_over_each_other(travels):
    travels(
        """
        def make():
            def even(n): return n == 0 or odd(n - 1)
            def odd(n): return n != 0 and even(n - 1)
            return [even, odd]
        sent = make()
    """,
        """
        even, odd = got
        assert even(10) and odd(7) and not odd(10)
        assert odd.__closure__[0].cell_contents is even
    """,
    )


def test_empty_cell_stays_empty(travels):
    travels(
        """
        def make():
            def f(): return later
            if False:
                later = 1
            return f
        sent = make()
    """,
        """
        try:
            got()
        except NameError:
            pass
        else:
            raise AssertionError
    """,
    )


def test_recursion_through_globals(travels):
    travels(
        """
        def ping(n): return "end" if n == 0 else pong(n - 1)
        def pong(n): return "end" if n == 0 else ping(n - 1)
        sent = ping
    """,
        """
        assert got(9) == "end"
        assert got.__globals__["pong"].__globals__["ping"] is got
    """,
    )


def test_globals_of_one_sending_are_shared(travels):
    travels(
        """
        count = 0
        def up():
            global count
            count += 1
        def now(): return count
        sent = {"up": up, "now": now}
    """,
        """
        got["up"](); got["up"]()
        assert got["now"]() == 2
    """,
    )


def test_sendings_do_not_meddle_with_each_other(travels):
    travels(
        """
        sent = []
        for n in range(3):
            sent.append(_pickle_under_test.dumps(lambda: n))
    """,
        "assert [pickle.loads(each)() for each in got] == [0, 1, 2]",
    )


def test_only_the_globals_that_are_used(travels):
    travels(
        """
        import threading
        used, unused = 1, threading.Lock()   # a lock cannot travel
        path = "an attribute has this name"
        def f(thing):
            def inner():
                return [used for _ in "x"]
            class C:
                value = used
            return inner(), C.value, thing.path
        sent = f
    """,
        """
        import types
        assert got(types.SimpleNamespace(path="p")) == ([1], 1, "p")
        assert "unused" not in got.__globals__ and "path" not in got.__globals__
    """,
    )


def test_submodules_reached_through_a_package(travels):
    travels(
        """
        import os.path, xml.dom.minidom
        def f():
            return os.path.join("a", "b"), xml.dom.minidom.parseString("<a/>").documentElement.tagName
        def make():
            import concurrent.futures
            return lambda: concurrent.futures.Future
        sent = f, make()
    """,
        """
        import os
        f, g = got
        assert f() == (os.path.join("a", "b"), "a")
        assert g().__name__ == "Future"
    """,
    )


def test_generator_and_async_functions(travels):
    travels(
        """
        def count(n):
            yield from range(n)
        async def answer():
            return 42
        async def stream():
            yield await answer()
        sent = count, answer, stream
    """,
        """
        import asyncio
        count, answer, stream = got
        async def first():
            async for each in stream():
                return each
        assert list(count(3)) == [0, 1, 2]
        assert asyncio.run(answer()) == 42 and asyncio.run(first()) == 42
    """,
    )


def test_methods(travels):
    travels(
        """
        import types
        class A:
            def __init__(self, n): self.n = n
            def get(self): return self.n
            @classmethod
            def make(cls, n): return cls(n)
            @staticmethod
            def double(n): return 2 * n
        a = A(3)
        sent = a, a.get, A.make, A.double, types.MethodType(lambda self: self.n + 1, a), [].append
    """,
        """
        a, get, make, double, bound, append = got
        assert get() == 3 and get.__self__ is a
        assert make(4).n == 4 and type(make(4)) is type(a)
        assert double(4) == 8 and bound() == 4 and bound.__self__ is a
        append(1)
    """,
    )


def test_decorators_of_functools(travels):
    travels(
        """
        import functools
        def logged(f):
            @functools.wraps(f)
            def wrapper(*args):
                return "logged", f(*args)
            return wrapper
        @logged
        def f(x): return x
        @functools.lru_cache(maxsize=8)
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        @functools.singledispatch
        def kind(x): return "any"
        @kind.register
        def _(x: int): return "int"
        class Cached:
            @functools.cached_property
            def slow(self): return [1]
            @functools.singledispatchmethod
            def show(self, x): return "any"
            @show.register
            def _(self, x: str): return "str"
        sent = f, fib, kind, Cached, functools.partial(f, 5)
    """,
        """
        f, fib, kind, Cached, five = got
        assert f(1) == ("logged", 1) and f.__wrapped__(1) == 1 and five() == ("logged", 5)
        assert fib(30) == 832040 and fib.cache_info().maxsize == 8
        assert kind(1) == "int" and kind("") == "any"
        kind.register(list, lambda x: "list")
        assert kind([]) == "list"
        c = Cached()
        assert c.slow is c.slow and c.show("") == "str" and c.show(1) == "any"
    """,
    )


def test_function_that_imports_relatively(travels, tmp_path):
    package = tmp_path / "lib" / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "def make():\n    return lambda: helper()\n"
        "def helper():\n    from . import other\n    return other.X\n"
    )
    (package / "other.py").write_text("X = 5\n")
    travels("import pkg; sent = pkg.make()", "assert got() == 5", path=[tmp_path / "lib"])


def test_lambda_of_an_importable_module_lives_in_it(travels, tmp_path):
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "mod.py").write_text("""
import threading
lock, calls = threading.Lock(), 0
def make():
    def call():
        global calls
        with lock:
            calls += 1
    return call
""")
    travels(
        "import mod; sent = mod.make()", "got(); import mod; assert mod.calls == 1", path=[folder]
    )


def test_code_of_another_python_is_refused():
    function = kpickle.dumps(lambda: None)
    with pytest.raises(kpickle.UnpicklingError, match="another version of Python"):
        kpickle.loads(function.replace(MAGIC_NUMBER, b"\x01\x02\r\n"))
