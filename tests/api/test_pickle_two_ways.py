"""Things with more than one way to them, addresses used again, and classes that change.

No hook runs here in the middle of a dump: the pickler itself comes twice to what has
one reference, by two ways.  Or it must notice that what it knew of a class is true no longer.
"""

import collections
import copyreg
import functools
import itertools
import pickle
import sys
import types

import pickle_travel
import pytest
from pickle_same import same
from pickle_thieves import MyList, Plain, slotted

import kinfolk.pickle as kpickle

travels = pickle_travel.travels


def shared_dict():
    one, other = Plain(a=[1]), Plain()
    other.__dict__ = one.__dict__
    return [one, other], lambda got: (got[0].a, got[1].a)


def partial_and_keywords():
    partial = functools.partial(id, [1], key=[2])
    return [partial, partial.keywords, partial.args], lambda got: (
        [got[0].keywords["key"], got[0].args[0]],
        [got[1]["key"], got[2][0]],
    )


def error_and_arguments():
    error = ValueError([1])
    error.note = [2]
    return [error, error.args, error.__dict__], lambda got: (
        [got[0].args[0], got[0].note],
        [got[1][0], got[2]["note"]],
    )


def iterators():
    items = [[1]]
    return [iter(items), iter(items)], lambda got: (next(got[0]), next(got[1]))


def views():
    things = {"k": [1]}
    return [things.values(), things.items()], lambda got: (
        next(iter(got[0])),
        next(iter(got[1]))[1],
    )


def proxies():
    things = {"k": [1]}
    proxy = types.MappingProxyType
    return [proxy(things), proxy(things)], lambda got: (got[0]["k"], got[1]["k"])


def methods():
    thing = Plain(a=[1])
    return [Plain.__init__.__get__(thing), thing.__init__], lambda got: (
        got[0].__self__.a,
        got[1].__self__.a,
    )


def cells():
    kept = [1]
    return [lambda: kept, lambda: [kept]], lambda got: (got[0](), got[1]()[0])


def function_attributes():
    def function(a=[1], *, b=[2]):  # noqa: B006
        return a, b

    function.note = [3]
    return [
        function,
        function.__defaults__,
        function.__kwdefaults__,
        function.__dict__,
    ], lambda got: (
        [*got[0](), got[0].note],
        [got[1][0], got[2]["b"], got[3]["note"]],
    )


def global_of_two_functions():
    module = types.ModuleType("made_here")
    exec("kept = [1]\ndef f(): return kept\ndef g(): return kept, 1", vars(module))
    return [module.f, module.g], lambda got: (got[0](), got[1]()[0])


def global_and_module():
    module = types.ModuleType("made_here_too")
    exec("kept = [1]\ndef f(): return kept", vars(module))
    return [module.f, module], lambda got: (got[0](), got[1].kept)


def module_and_function():
    module = types.ModuleType("made_here_as_well")
    exec("kept = [1]\ndef f(): return kept", vars(module))
    return [module, module.f], lambda got: (got[0].kept, got[1]())


def property_and_function():
    kept = [1]
    made = property(lambda self: kept)
    return [made, made.fget], lambda got: (got[0].fget(None), got[1](None))


def chained():
    items = [[1]]
    return [itertools.chain(items), items], lambda got: (next(got[0]), got[1][0])


def deque_and_iterator():
    items = collections.deque([[1]])
    return [items, tuple(items)], lambda got: (got[0][0], got[1][0])


def slot_state():
    thing = slotted()
    return [thing, thing.slot], lambda got: (got[0].slot, got[1])


def numpy_objects():
    numpy = pytest.importorskip("numpy")
    array = numpy.empty(1, object)
    array[0] = [1]
    return [array, array[:1]], lambda got: (got[0][0], got[1][0])


def generic_aliases():
    held = [list[int], dict[str, list[int]]]
    return [held, held[1].__args__[1]], lambda got: (got[1], got[1])


def simple_namespace():
    thing = types.SimpleNamespace(a=[1])
    return [thing, thing.__dict__], lambda got: (got[0].a, got[1]["a"])


def instance_and_its_dict():
    thing = Plain(a=[1])
    return [thing, thing.__dict__], lambda got: (got[0].a, got[1]["a"])


def dict_then_instance():
    thing = Plain(a=[1])
    return [thing.__dict__, thing], lambda got: (got[0]["a"], got[1].a)


def instance_of_list_and_its_dict():
    thing = MyList([[1]])
    thing.a = [2]
    return [thing, thing.__dict__], lambda got: (got[0].a, got[1]["a"])


TWO_WAYS = (
    (
        shared_dict,
        partial_and_keywords,
        error_and_arguments,
        iterators,
        views,
        proxies,
        methods,
        cells,
    )
    + (function_attributes, global_of_two_functions, global_and_module, module_and_function)
    + (property_and_function, deque_and_iterator, slot_state)
    + (numpy_objects, generic_aliases, simple_namespace, instance_and_its_dict, dict_then_instance)
    + (instance_of_list_and_its_dict,)
)


@pytest.mark.parametrize("loads", [pickle.loads, kpickle.loads], ids=["pickle", "kinfolk"])
@pytest.mark.parametrize("make", TWO_WAYS, ids=lambda make: make.__name__)
def test_two_ways_to_one_thing(make, loads):
    root, pair = make()
    one, other = pair(loads(kpickle.dumps(root)))
    assert type(one) is type(other)
    for mine, its in zip(one, other) if isinstance(one, list) and len(one) > 1 else [(one, other)]:
        assert mine is its


def test_a_class_and_its_parts(travels):
    """In another process: in this one the class that comes back is the one that was sent."""
    travels(
        """
        def make():
            class Local:
                kept = [1]
                def method(self, default=kept):
                    return default
            return Local
        class Other:
            kept = [2]
        sent = [(cls := make()), cls.method, vars(cls)["kept"], Other.kept, Other]
    """,
        """
        assert got[0].kept is got[1](None) is got[2]
        assert got[3] is got[4].kept
    """,
    )


# -- And the other way: what is not one must not become one -------------------------------------


class Home:
    def __init__(self, loot):
        self.loot = loot


class MakesAnew:
    """Each time asked, something new, which may lie at the address of something that has died."""

    def __reduce__(self):
        return Home, ([object.__new__(Plain)],)


class StateAnew:
    def __getstate__(self):
        return {"a": [1], "b": (2, [3])}


def test_addresses_used_again():
    things = [kind() for _ in range(500) for kind in (MakesAnew, StateAnew)]
    for loads in (pickle.loads, kpickle.loads):
        got = loads(kpickle.dumps(things))
        assert len({id(thief.loot) for thief in got[::2]}) == 500
        assert len({id(thing.a) for thing in got[1::2]}) == 500
        assert len({id(thing.b[1]) for thing in got[1::2]}) == 500


# -- Classes that change while, and between ------------------------------------------------


class Changes:
    def __reduce__(self):
        change()
        return int, ()


def change():
    raise NotImplementedError


@pytest.mark.parametrize(
    "changed",
    [
        {"__reduce_ex__": lambda self, protocol: (str, ("changed",))},
        {"__reduce__": lambda self: (str, ("changed",))},
        {"__getstate__": lambda self: {"changed": True}},
        {"__getnewargs__": lambda self: ()},
        {"__setstate__": lambda self, state: self.__dict__.update(changed=True)},
        {"__slots__": ("a",)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_classes_that_change(changed, monkeypatch):
    """As the standard library sees it: in the middle of a dump, and between two dumps."""

    class Local:
        def __init__(self):
            self.a = [1]

    Local.__qualname__ = "Local"
    monkeypatch.setattr(sys.modules[__name__], "Local", Local, raising=False)

    def change_it():
        for name, value in changed.items():
            setattr(Local, name, value)

    def restore():
        for name in changed:
            if name in vars(Local):
                delattr(Local, name)

    monkeypatch.setattr(sys.modules[__name__], "change", change_it)
    root = [Local(), Changes(), Local(), Local()]
    results = []
    for dumps in (pickle.dumps, kpickle.dumps, kpickle.dumps):
        restore()
        written = dumps(root)
        results.append(pickle.loads(written))
        results.append(pickle.loads(dumps(root[2:])))
        restore()
        results.append(pickle.loads(dumps(root[2:])))
    for ours, theirs in zip(results[3:], results[:3] * 2):
        same(theirs, ours)


def test_reducers_registered_in_the_middle(monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__], "change", lambda: copyreg.pickle(Plain, lambda it: (str, ("new",)))
    )
    root = [Plain(), Changes(), Plain()]
    try:
        theirs = pickle.loads(pickle.dumps(root))
        del copyreg.dispatch_table[Plain]
        ours = pickle.loads(kpickle.dumps(root))
        same(theirs, ours)
        assert ours[2] == "new" == pickle.loads(kpickle.dumps(Plain()))
    finally:
        copyreg.dispatch_table.pop(Plain, None)
    assert type(pickle.loads(kpickle.dumps(Plain()))) is Plain


class Kind:
    pass


class OtherKind:
    def __getstate__(self):
        return {"other": True}


def test_instances_that_change_their_class(monkeypatch):
    for dumps in (pickle.dumps, kpickle.dumps):
        thing = Kind()
        monkeypatch.setattr(
            sys.modules[__name__], "change", lambda it=thing: setattr(it, "__class__", OtherKind)
        )
        got = pickle.loads(dumps([Kind(), Changes(), thing]))
        assert type(got[2]) is OtherKind and got[2].other
