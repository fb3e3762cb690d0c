"""The rest of what cloudpickle's documents name: modules, small things, and the pickler itself.

test_cloudpickle_features.py has functions and classes.
"""

import io
import pickle
import weakref

import pickle_travel
import pytest

import kinfolk.pickle as kpickle

travels = pickle_travel.travels


# -- Modules --------------------------------------------------------------------------------


def test_dynamic_modules(travels):
    travels(
        """
        import types
        module = types.ModuleType("dynamic", "Its doc.")
        exec('''
        x = 1
        def f(y): return x + y
        class C:
            def method(self): return f(1)
        def set_x(value):
            global x
            x = value
        '''.replace("\\n        ", "\\n"), vars(module))
        sent = module, module.f, module.C, module.set_x
    """,
        """
        module, f, C, set_x = got
        assert module.__name__ == "dynamic" and module.__doc__ == "Its doc."
        assert module.f is f and f(2) == 3 and C().method() == 2
        set_x(10)
        assert module.x == 10 and f(1) == 11 and "dynamic" not in sys.modules
    """,
    )


def test_modules_by_name(travels):
    travels(
        "import os.path, xml.dom; sent = os.path, xml.dom, sys",
        "import os.path, xml.dom; assert got == (os.path, xml.dom, sys)",
    )


# -- Small things ---------------------------------------------------------------------------


def test_loggers(travels):
    travels(
        """
        import logging
        log = logging.getLogger("a.name")
        def f(): return log.name
        sent = log, logging.getLogger(), logging.root, f
    """,
        """
        import logging
        assert got[0] is logging.getLogger("a.name") and got[1] is got[2] is logging.getLogger()
        assert got[3]() == "a.name"
    """,
    )


def test_singletons_and_their_types(travels):
    travels(
        "sent = ..., NotImplemented, None, type(...), type(NotImplemented), type(None)",
        "assert got == (..., NotImplemented, None, type(...), type(NotImplemented), type(None))",
    )


def test_types_without_a_name_of_their_own(travels):
    travels(
        """
        import types
        sent = [getattr(types, name) for name in ("FunctionType", "CodeType", "MethodType",
            "GeneratorType", "CellType", "ModuleType", "MappingProxyType", "BuiltinFunctionType",
            "GetSetDescriptorType", "MemberDescriptorType", "MethodWrapperType")]
    """,
        "import types; assert got[0] is types.FunctionType and got[4] is types.CellType",
    )


def test_code_cells_and_memoryviews(travels):
    travels(
        """
        def outer(x): return lambda: x
        sent = outer(3).__closure__[0], outer.__code__, memoryview(b"Hello"), \\
            memoryview(b"Hello!" * 3)[2:15:2]
    """,
        """
        cell, code, view, strided = got
        assert cell.cell_contents == 3 and code.co_name == "outer"
        assert bytes(view) == b"Hello" and bytes(strided) == (b"Hello!" * 3)[2:15:2]
    """,
    )


def test_getters_and_partials(travels):
    travels(
        """
        import functools, operator
        sent = (operator.itemgetter(1), operator.itemgetter(0, 2), operator.attrgetter("real"),
            operator.attrgetter("a.b", "c"), operator.methodcaller("upper"),
            functools.partial(min, 1), functools.partial(lambda x, y: x - y, y=1))
    """,
        """
        items, two, real, attributes, upper, least, less = got
        assert items("abc") == "b" and two("abc") == ("a", "c") and real(3j) == 0
        assert upper("a") == "A" and least(5) == 1 and less(3) == 2
    """,
    )


def test_views_of_dicts(travels):
    travels(
        """
        import collections, types
        d = {"a": 1, "b": 2}
        sent = d.keys(), d.values(), d.items(), types.MappingProxyType(d)
    """,
        """
        import types
        keys, values, items, proxy = got
        d = {"a": 1, "b": 2}
        assert type(keys) is type(d.keys()) and keys == d.keys()
        assert type(values) is type(d.values()) and list(values) == [1, 2]
        assert type(items) is type(d.items()) and items == d.items()
        assert type(proxy) is types.MappingProxyType and proxy == d
    """,
    )


def test_views_of_ordered_dicts(travels):
    travels(
        """
        import collections
        d = collections.OrderedDict(a=1, b=2)
        sent = d.keys(), d.values(), d.items()
    """,
        """
        import collections
        d = collections.OrderedDict(a=1, b=2)
        assert [type(view) for view in got] == [type(d.keys()), type(d.values()), type(d.items())]
        assert got[0] == d.keys() and list(got[1]) == [1, 2] and got[2] == d.items()
        assert list(reversed(got[0])) == ["b", "a"]
    """,
    )


def test_weak_sets(travels):
    travels(
        """
        import weakref
        class C:
            def __init__(self, x): self.x = x
        one, two, three = C(1), C(2), C(3)
        sent = weakref.WeakSet([one, two]), one, two, three
    """,
        "weak, one, two, three = got; assert set(weak) == {one, two} and three.x == 3",
    )


def test_standard_streams(travels):
    travels(
        """
        def f(text, file=sys.stderr): return file
        sent = sys.stdout, sys.stderr, f
    """,
        "assert got[0] is sys.stdout and got[1] is sys.stderr is got[2]('')",
    )


def test_open_files_are_refused(tmp_path):
    """cloudpickle sends the content of a text file; here, what to do instead is said."""
    with open(tmp_path / "file", "w+") as file:
        for one in (file, file.buffer, file.buffer.raw):
            with pytest.raises(TypeError, match="send its name"):
                kpickle.dumps(one)


def test_property_setters_on_instances(travels):
    travels(
        """
        import functools
        class C:
            @functools.cached_property
            def once(self): return [1]
            @functools.singledispatchmethod
            def kind(self, arg): return "other"
            @kind.register
            def _(self, arg: int): return "int"
        sent = C()
    """,
        "assert got.once is got.once and got.kind(1) == 'int' and got.kind('') == 'other'",
    )


# -- The pickler --------------------------------------------------------------------------------


def test_subclass_with_reducer_override():
    class Pickler(kpickle.CloudPickler):
        def reducer_override(self, obj):
            if type(obj) is complex:
                return str, ("overridden",)
            return super().reducer_override(obj)

    class Other(kpickle.CloudPickler):
        def reducer_override(self, obj):
            return (str, ("overridden",)) if type(obj) is complex else NotImplemented

    for kind in (Pickler, Other):
        file = io.BytesIO()
        kind(file).dump([1j, lambda: 5])
        got = pickle.loads(file.getvalue())
        assert got[0] == "overridden" and got[1]() == 5


def test_subclass_with_dispatch_table():
    import collections
    import copyreg

    class Pickler(kpickle.CloudPickler):
        dispatch_table = collections.ChainMap(
            {complex: lambda c: (str, ("from the table",))}, copyreg.dispatch_table
        )

    file = io.BytesIO()
    Pickler(file).dump([1j, lambda: 5])
    got = pickle.loads(file.getvalue())
    assert got[0] == "from the table" and got[1]() == 5


def test_nothing_is_kept_alive():
    class Local:
        pass

    things = [Local(), lambda: things]
    seen = [weakref.ref(thing) for thing in things]
    kpickle.dumps(things)
    things.clear()
    assert [ref() for ref in seen] == [None, None]


def test_errors_of_the_thing_itself_come_through():
    class Raises:
        def __init__(self, error):
            self.error = error

        def __reduce__(self):
            raise self.error

    for error in (ValueError("its own"), RuntimeError("its own"), KeyError("its own")):
        with pytest.raises(type(error), match="its own"):
            kpickle.dumps([lambda: 1, Raises(error)])


def test_what_is_too_deep_is_a_pickling_error_or_recursion_error():
    deep = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises((RecursionError, pickle.PicklingError)):
        kpickle.dumps([lambda: 1, deep])


def test_the_same_bytes_each_time(travels):
    """So that they can be hashed, as cloudpickle's users do."""
    travels(
        """
        def make():
            class C:
                x: int = 1
                def f(self): return self.x
            return lambda a={"k": 1}: (C, a)
        sent = make()
        _pickle_under_test.dumps(sent)  # the first time it is given its token
        assert _pickle_under_test.dumps(sent) == _pickle_under_test.dumps(sent)
    """,
        "assert got()[0].x == 1",
    )
