"""Library code that leads to the user's: identity is not lost there either.

The pickler trusts the interpreter's own code, and its library's, to hand out nothing that was
written already.  Here that code calls back: through an attribute of an instance, a method of
a subclass, an import, a name that is looked up.  See test_pickle_identity.py.
"""

import collections
import fractions
import io
import ipaddress
import pathlib
import pickle
import random
import sys
import types

import pickle_thieves as thieves
import pytest

import kinfolk.pickle as kpickle


@pytest.fixture(autouse=True)
def nothing_stolen():
    yield
    thieves.stolen = None
    thieves.KEPT.clear()


def steals(give):
    """A function that has a thing written once more, later, and gives something harmless."""

    def hook(*_):
        if thieves.stolen and not thieves.KEPT:
            thieves.KEPT.append(thieves.steal())
        return give

    return hook


def check(thing, protocols=(5,), must_steal=True):
    """What runs while `thing` is pickled puts the store's thing into KEPT, which comes later."""
    for store in thieves.STORES:
        for protocol in protocols:
            if store == "closure" and protocol < 2:
                continue
            thieves.KEPT.clear()
            held, take = thieves.store_of("list", store)
            written = kpickle.dumps([held, thing(), thieves.KEPT], protocol)
            assert thieves.KEPT or not must_steal
            with thieves.no_thefts():
                for loads in (pickle.loads, kpickle.loads):
                    got = loads(written)
                    assert got[2] == [] or got[2][0] is take(got[0])


# -- Instances of library classes, with an attribute of their own ----------------------------


def test_attributes_of_instances():
    def generator():
        made = random.Random(1)
        state = made.getstate()
        made.getstate = steals(state)
        return made

    check(generator)


# -- Subclasses: the library's reducer calls what they define -----------------------------------


class MyRandom(random.Random):
    def getstate(self):
        steals(None)()
        return super().getstate()


class MyFraction(fractions.Fraction):
    def __str__(self):
        steals(None)()
        return super().__str__()


class MyAddress(ipaddress.IPv4Address):
    def __str__(self):
        steals(None)()
        return super().__str__()


class MyPath(pathlib.PurePosixPath):
    @property
    def parts(self):
        steals(None)()
        return super().parts


class MyCounter(collections.Counter):
    def keys(self):
        steals(None)()
        return super().keys()

    def __iter__(self):
        steals(None)()
        return super().__iter__()


class MyStr(str):
    def __str__(self):
        steals(None)()
        return str.__str__(self)


class MyInt(int):
    def __int__(self):
        steals(None)()
        return int.__int__(self)


class MyFloat(float):
    def __float__(self):
        steals(None)()
        return float.__float__(self)


class MyList(list):
    def __iter__(self):
        steals(None)()
        return super().__iter__()


class MyDict(dict):
    def keys(self):
        steals(None)()
        return super().keys()

    def items(self):
        steals(None)()
        return super().items()


class MyTuple(tuple):
    def __iter__(self):
        steals(None)()
        return super().__iter__()


SUBCLASSES = {
    "Random": lambda: MyRandom(1),
    "Fraction": lambda: MyFraction(1, 3),
    "IPv4Address": lambda: MyAddress("127.0.0.1"),
    "PurePath": lambda: MyPath("a/b"),
    "Counter": lambda: MyCounter("abc"),
    "str": lambda: MyStr("abc"),
    "int": lambda: MyInt(3),
    "float": lambda: MyFloat(3.5),
    "list": lambda: MyList([1]),
    "dict": lambda: MyDict(a=1),
    "tuple": lambda: MyTuple((1, 2)),
}


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_subclasses(kind):
    """In old protocols `copyreg` calls str(), list() and the like."""
    check(SUBCLASSES[kind], protocols=range(6), must_steal=False)


@pytest.mark.parametrize("kind", [MyRandom, MyStr, MyList, MyDict, MyCounter])
def test_subclasses_that_claim_to_be_the_librarys(kind, monkeypatch):
    """Classes may say of themselves that they are from anywhere."""
    monkeypatch.setattr(kind, "__module__", "collections")
    monkeypatch.setattr(collections, kind.__name__, kind, raising=False)
    check(
        lambda: kind(1) if kind is MyRandom else kind("" if kind is MyStr else ()), range(6), False
    )


# -- Modules of the user's with a name of the library's ------------------------------------------


@pytest.mark.parametrize("name", ["code", "this", "enum"])
def test_modules_that_shadow_the_librarys(name, monkeypatch):
    """A program's own code.py, say, beside its script."""
    module = types.ModuleType(name)
    text = """
    class Thing:
        def __init__(self, loot=None): self.loot = loot
        def __reduce__(self): return Thing, (steal(),)
    """
    vars(module)["steal"] = thieves.steal
    exec(text.replace("\n    ", "\n"), vars(module))
    held, take = thieves.store_of("list", "list")
    monkeypatch.setitem(sys.modules, name, module)
    thieves.check([held, module.Thing()], take, by_value=False)


# -- Names that are looked up ---------------------------------------------------------------------


class Callable:
    @property
    def __name__(self):
        steals(None)()
        return "append"

    def __call__(self):
        pass


def test_bound_methods_of_odd_callables():
    check(lambda: types.MethodType(Callable(), [1]))


class LazyModule(types.ModuleType):
    def __getattribute__(self, name):
        if name == "function":
            steals(None)()
        return super().__getattribute__(name)


def function():
    pass


def test_modules_that_make_their_attributes(monkeypatch):
    monkeypatch.setitem(sys.modules, "lazy_module", LazyModule("lazy_module"))
    sys.modules["lazy_module"].function = function
    monkeypatch.setattr(function, "__module__", "lazy_module")
    check(lambda: function)


def test_modules_with_getattr(monkeypatch):
    module = types.ModuleType("module_with_getattr")

    def module_getattr(name):
        steals(None)()
        if name == "function":
            return function
        raise AttributeError(name)

    module.__getattr__ = module_getattr
    monkeypatch.setitem(sys.modules, "module_with_getattr", module)
    monkeypatch.setattr(function, "__module__", "module_with_getattr")
    check(lambda: function)


class Anywhere:
    """Without a module of its own, it is looked for in all of them."""

    def __reduce__(self):
        return "ANYWHERE"


ANYWHERE = Anywhere()


def test_looking_through_all_modules(monkeypatch):
    monkeypatch.setitem(sys.modules, "lazy_module", LazyModule("lazy_module"))
    monkeypatch.setattr(function, "__module__", None)
    check(lambda: function, must_steal=False)
    monkeypatch.setattr(Anywhere, "__module__", None)
    check(lambda: ANYWHERE, must_steal=False)


def test_imports(tmp_path, monkeypatch):
    """The module is not there yet; importing it runs it."""
    (tmp_path / "imported_in_mid_dump.py").write_text(
        "import test_pickle_library_code as tests\n"
        "tests.steals(None)()\n"
        "function = tests.function\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(function, "__module__", "imported_in_mid_dump")
    for store in ("list", "dict", "instance", "nested"):
        sys.modules.pop("imported_in_mid_dump", None)
        thieves.KEPT.clear()
        held, take = thieves.store_of("list", store)
        written = kpickle.dumps([held, function, thieves.KEPT])
        got = pickle.loads(written)
        assert got[2] == [] or got[2][0] is take(got[0])
    sys.modules.pop("imported_in_mid_dump", None)


class OddStr(str):
    """A name that answers for itself when it is looked up in a table."""

    def __hash__(self):
        steals(None)()
        return str.__hash__(self)

    def __eq__(self, other):
        steals(None)()
        return str.__eq__(self, other)


class NamedOddly:
    pass


def test_names_that_are_no_plain_strings(monkeypatch):
    # no pickle of later protocols with such a name can be loaded
    monkeypatch.setattr(function, "__qualname__", OddStr("function"))
    check(lambda: function, range(4), must_steal=False)
    monkeypatch.setattr(NamedOddly, "__module__", OddStr(__name__))
    check(NamedOddly, range(4), must_steal=False)
    check(lambda: NamedOddly, range(4), must_steal=False)


class Keyed:
    def __init__(self):
        vars(self)[OddStr("attribute")] = 1


def test_attribute_names_that_are_no_plain_strings():
    check(Keyed, range(6), must_steal=False)


class Mapping(collections.abc.Mapping):
    def __getitem__(self, key):
        steals(None)()
        return key

    def __iter__(self):
        steals(None)()
        return iter("ab")

    def __len__(self):
        return 2


def test_proxies_of_mappings():
    check(lambda: types.MappingProxyType(Mapping()), must_steal=False)


# -- The standard library's answer where an instance has an answer of its own -----------------------


class Answers:
    """Some of what pickling asks for is looked up on the instance."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("__reduce_ex__", lambda protocol: (str, ("changed",))),
        ("__reduce__", lambda: (str, ("changed",))),
        ("__getstate__", lambda: {"changed": True}),
        ("__getnewargs__", lambda: ()),
        ("__getnewargs_ex__", lambda: ((), {})),
        ("__class__", int),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_answers_of_the_instance(name, value):
    for protocol in range(6):
        thing = Answers()
        vars(thing)[name] = value

        def answer(pickler, thing=thing, protocol=protocol):
            file = io.BytesIO()
            try:
                pickler(file, protocol).dump(thing)
            except Exception as error:
                return type(error)
            got = pickle.loads(file.getvalue())
            return got if isinstance(got, str) else vars(got)

        assert answer(by_name_only) == answer(pickle.Pickler)


def by_name_only(file, protocol):
    return kpickle.Pickler(file, protocol, by_value=False)
