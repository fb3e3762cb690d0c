"""From the pickler's trail to a path that a person would write: kinfolk._culprit."""

import collections
import copyreg
import dataclasses
import enum
import functools
import gc
import io
import pickle
import sys
import threading
import types
import weakref

import pytest

import kinfolk.pickle as kpickle
from kinfolk import _culprit, _parts

LOCK = threading.Lock()


def six(reduced):
    maker, arguments, state, items, entries, setter = (*reduced, *(None,) * (6 - len(reduced)))
    return (
        maker,
        arguments,
        state,
        None if items is None else list(items),
        None if entries is None else list(entries),
        setter,
    )


class Reducer:
    """What the pickler would take for each thing."""

    def __init__(self):
        self._pickler = kpickle.Pickler(io.BytesIO())
        self._known = {}  # id -> (thing, reduction)

    def __call__(self, thing):
        if id(thing) not in self._known:
            self._known[id(thing)] = thing, self._reduce(thing)
        return self._known[id(thing)][1]

    def _reduce(self, thing):
        reduced = self._pickler.reducer_override(thing)
        if reduced is NotImplemented:
            if isinstance(thing, (type, types.FunctionType, *_parts.ATOMS)):
                if getattr(thing, "__self__", sys) is sys or isinstance(thing, type):
                    return None
            reducer = copyreg.dispatch_table.get(type(thing))
            reduced = reducer(thing) if reducer else thing.__reduce_ex__(5)
        if isinstance(reduced, str):
            return None
        if getattr(reduced[0], "__name__", "") == "instance_of":  # class first, then as usual
            reduced = thing.__reduce_ex__(5)
        return six(reduced)


PLAIN = (list, tuple, dict, set, frozenset)


def trail_to(culprit, thing):
    """The trail that a pickler would leave that stopped at `culprit`."""
    reduce, seen = Reducer(), set()

    def search(thing):
        if thing is culprit:
            return [(thing, -1, None)]
        if id(thing) in seen or type(thing) in _parts.ATOMS and not hasattr(thing, "__self__"):
            return None
        seen.add(id(thing))
        if type(thing) in PLAIN:
            steps = _parts.steps_of(thing)
        else:
            reduced = reduce(thing)
            steps = () if reduced is None else _parts.steps_of(thing, reduced)
        for step, key, part in steps:
            found = search(part)
            if found:
                return [(thing, step, key), *found]
        return None

    return search(thing)


def path(thing, culprit=LOCK):
    return "".join(label for label, _, _ in _culprit.path_of(trail_to(culprit, thing)))


class Holder:
    def __init__(self, **names):
        self.__dict__.update(names)


class Slotted:
    __slots__ = ("a", "__b")

    def __init__(self, a=None, b=None):
        self.a, self.__b = a, b


@dataclasses.dataclass
class Data:
    name: str
    sinks: list


class Point(collections.namedtuple("Point", "x y")):
    pass


class Error(Exception):
    pass


class Listed(list):
    pass


class Grouped(set):
    pass


class Pair(tuple):
    __slots__ = ()


class Chatty:
    def __init__(self, *args):
        self.kept = args[0]

    def __reduce__(self):
        return Chatty, ([self.kept], {"x": [self.kept]})


class Filtered:
    def __init__(self, lock):
        self.a = self.b = lock

    def __getstate__(self):
        return {"b": self.b}


class Hidden:
    def __reduce__(self):
        return Hidden, (1, [2, {"deep": LOCK}])


class HiddenState:
    def __reduce__(self):
        return HiddenState, (), {"secret": LOCK}


def function_with(*, default=None, kwdefault=None, closed_over=None, **attributes):
    def function(a=default, *, b=kwdefault):
        return closed_over, LOCK if closed_over == "global" else None

    function.__dict__.update(attributes)
    return function


def class_with(bases=(), **names):
    return types.new_class("Made", bases, {}, lambda body: body.update(names))


def instance(cls):
    return cls()


def keys_of(mapping):
    return mapping.keys()


def module_with(**names):
    module = types.ModuleType("made")
    module.__dict__.update(names)
    return module


def using_a_global():
    namespace = {"__name__": "nowhere", "lock": LOCK}
    exec("def function(): return lock", namespace)
    return namespace["function"]


def cached(function):
    return functools.lru_cache(function)


def abstract_with(registered):
    import abc

    made = abc.ABCMeta("Made", (), {})
    made.register(registered)
    return made


def with_metaclass():
    meta = type("Meta", (type,), {"lock": LOCK})
    return meta("Made", (), {})


PATHS = {
    "[0]": lambda: [LOCK],
    "[2][1]": lambda: (1, 2, [3, LOCK]),
    "['a'][7]": lambda: {"a": {7: LOCK}},
    ".keys()[<lock>]": lambda: {LOCK: 1},
    ".keys()[<tuple>][1]": lambda: {(1, LOCK): 1},
    ".{<lock>}": lambda: {LOCK},
    ".{<Holder>}.x": lambda: {Holder(x=LOCK)},
    ".lock": lambda: Holder(lock=LOCK),
    ".sinks[2]._lock": lambda: Data("x", [1, "x", Holder(_lock=LOCK)]),
    ".a": lambda: Slotted(LOCK, 1),
    "._Slotted__b": lambda: Slotted(1, LOCK),
    ".__closure__['closed_over']": lambda: function_with(closed_over=LOCK),
    ".__closure__['closed_over'][0]": lambda: function_with(closed_over=[LOCK]),
    ".cell_contents": lambda: types.CellType(LOCK),
    ".__defaults__[0]": lambda: function_with(default=LOCK),
    ".__kwdefaults__['b']": lambda: function_with(kwdefault=LOCK),
    ".tag[0]": lambda: function_with(tag=[LOCK]),
    ".__globals__['lock']": using_a_global,
    "._lock": lambda: class_with(_lock=LOCK),
    ".__bases__[0]._lock": lambda: class_with(bases=(class_with(_lock=LOCK),)),
    ".__class__._lock": lambda: instance(class_with(_lock=LOCK)),
    ".__class__.lock": with_metaclass,
    ".method.__closure__['closed_over']": lambda: class_with(
        method=function_with(closed_over=LOCK)
    ),
    ".static.__closure__['closed_over']": lambda: class_with(
        static=staticmethod(function_with(closed_over=LOCK))
    ),
    ".prop.fget.__closure__['closed_over']": lambda: class_with(
        prop=property(function_with(closed_over=LOCK))
    ),
    ".__func__.tag": lambda: staticmethod(function_with(tag=LOCK)),
    ".func.__closure__['closed_over']": lambda: functools.partial(
        function_with(closed_over=LOCK), 1
    ),
    ".args[1]": lambda: functools.partial(print, 1, LOCK),
    ".keywords['sep']": lambda: functools.partial(print, sep=LOCK),
    ".__self__.lock": lambda: types.MethodType(function_with(), Holder(lock=LOCK)),
    ".__self__": lambda: LOCK.acquire,
    ".args[0]": lambda: Error(LOCK, "x"),
    ".args[1][0]": lambda: Error("x", [LOCK]),
    ".y": lambda: Point(1, LOCK),
    "[1]": lambda: Pair((1, LOCK)),
    "[1].z": lambda: Listed([1, Holder(z=LOCK)]),
    ".{<Holder>}.w": lambda: Grouped([Holder(w=LOCK)]),
    "['k']": lambda: collections.OrderedDict(k=LOCK),
    "['k'][0]": lambda: collections.defaultdict(list, k=[LOCK]),
    ".default_factory.tag": lambda: collections.defaultdict(function_with(tag=LOCK)),
    "[3]": lambda: collections.deque([1, 2, 3, LOCK]),
    ".value": lambda: module_with(value=LOCK),
    ".A.value": lambda: enum.Enum("Made", {"A": LOCK}),
    ".A.value[1]": lambda: enum.Enum("Made", {"A": (1, LOCK)}),
    ".__wrapped__.__closure__['closed_over']": lambda: cached(function_with(closed_over=LOCK)),
    ".kept": lambda: Chatty(LOCK),
    ".__reduce__()[1][1][1]['deep']": Hidden,
    ".__reduce__()[2]['secret']": HiddenState,
    "['x']": lambda: types.MappingProxyType({"x": LOCK}),
    ".mapping['x']": lambda: keys_of({"x": LOCK}),
    ".__subclasshook__.lock": lambda: abstract_with(class_with(lock=LOCK)),
}


@pytest.mark.parametrize("expected", PATHS)
def test_the_path(expected):
    assert path(PATHS[expected]()) == expected


def test_weak_containers():
    held = Holder(x=LOCK)
    assert path(weakref.WeakSet([held])) == ".{<Holder>}.x"
    assert path(weakref.WeakValueDictionary(k=held)) == "['k'].x"


def test_a_filtered_state_is_told_by_its_own_names():
    assert path(Filtered(LOCK)) == ".b"


def test_arguments_as_a_whole():
    """The pickler may write all of the arguments as one tuple."""
    function = function_with(closed_over=LOCK)
    trail = trail_to(LOCK, function)
    (_, step, key), rest = trail[0], trail[1:]
    assert (step, key) == (_parts.ARG, 2)
    whole = [(function, _parts.ARGS, None), ((1, 2, 3), _parts.ITEM, 2), *rest]
    assert _culprit.path_of(whole) == _culprit.path_of(trail)


def test_arguments_by_name():
    """Of __getnewargs_ex__: a tuple, and a dict."""
    holder = Holder(kept=LOCK)
    names = {"lock": LOCK}
    trail = [(holder, _parts.ARGS, None), (names, _parts.VALUE, "lock"), (LOCK, -1, None)]
    assert [label for label, _, _ in _culprit.path_of(trail)] == ["", ".kept"]
    holder.__dict__.clear()
    assert [label for label, _, _ in _culprit.path_of(trail)] == [
        "",
        ".__getnewargs_ex__()[1]['lock']",
    ]


def test_instances_written_without_a_reduction():
    holder = Holder(lock=LOCK)
    trail = [([holder], _parts.ITEM, 0), (holder, _parts.ATTRIBUTE, "lock"), (LOCK, -1, None)]
    assert [label for label, _, _ in _culprit.path_of(trail)] == ["", "[0]", ".lock"]
    trail = [(holder, _parts.CLASS, None), (Holder, -1, None)]
    assert [label for label, _, _ in _culprit.path_of(trail)] == ["", ".__class__"]


def refusal():
    try:
        pickle.dumps(LOCK)
    except TypeError as error:
        error.__traceback__ = None  # as it is while the pickler is at work
        return error


def explained(thing, **options):
    return _culprit.explain_trail(refusal(), trail_to(LOCK, thing), **options)


def test_the_text():
    error = explained({"job": Holder(sinks=[LOCK])})
    text, _, hint = str(error).partition("; ")
    assert text == "obj['job'].sinks[0]: cannot pickle '_thread.lock' object"
    assert "kinfolk.Lock()" in hint
    assert str(explained([LOCK], root="jobs")).startswith("jobs[0]: ")
    assert str(explained(Holder(x=LOCK), root=None)).startswith("x: ")
    assert str(explained(LOCK)).startswith("cannot pickle")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_the_note():
    (note,) = explained({"job": Holder(sinks=[LOCK])}).__notes__
    assert note.splitlines()[1:] == [
        "  obj                  dict",
        f"  obj['job']           {__name__}.Holder",
        "  obj['job'].sinks     list",
        "  obj['job'].sinks[0]  _thread.lock",
    ]


def test_a_caller_knows_a_better_name():
    args = (Holder(sinks=[1, LOCK]),)
    task = {"target": print, "args": args}
    error = explained(task)
    assert str(error).startswith("obj['args'][0].sinks[1]: ")
    length = len(error.args)
    for _ in range(2):
        _culprit.rename(error, {"target": print, "args": args})
        assert str(error).startswith("args[0].sinks[1]: cannot pickle '_thread.lock' object; ")
        assert len(error.args) == length
    _culprit.rename(error, {"task": task})
    assert str(error).startswith("task['args'][0].sinks[1]: ")
    if sys.version_info >= (3, 11):
        (note,) = error.__notes__
        assert "obj" not in note.split()
    _culprit.rename(error, {"other": 1})
    assert str(error).startswith("task")


def test_renaming_what_was_never_explained():
    error = ValueError(1)
    assert _culprit.rename(error, {"obj": 1}) is error and error.args == (1,)


def test_the_error_holds_nothing_of_the_users():
    holder = Holder(sinks=[LOCK])
    gone = weakref.ref(holder)
    error = explained([holder])
    del holder
    gc.collect()
    assert gone() is None and "sinks" in str(error)
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error)


def test_other_errors_get_only_the_note():
    def raises():
        raise ValueError("mine", 1)

    try:
        raises()
    except ValueError as caught:
        error = caught
    _culprit.explain_trail(error, trail_to(LOCK, [LOCK]))
    assert error.args == ("mine", 1)
    if sys.version_info >= (3, 11):
        assert "obj[0]" in error.__notes__[0]
    assert _culprit.explain_trail(OSError(1, "x"), trail_to(LOCK, [LOCK])).args == (1, "x")


def test_a_pickling_within_a_pickling():
    inner = explained(Holder(lock=LOCK), root="inner")
    error = _culprit.explain_trail(inner, [([1], _parts.ITEM, 0), (1, -1, None)])
    assert str(error).startswith("obj[0]: inner.lock: cannot pickle")


def test_long_ways_are_shortened():
    thing = LOCK
    for _ in range(300):
        thing = [thing]
    text = str(explained(thing))
    assert text.startswith("obj[0][0]") and "more⟩" in text and len(text) < 400


def test_hostile_things():
    class Nasty:
        __class__ = property(lambda self: 1 / 0)

        def __getattribute__(self, name):
            raise ZeroDivisionError(name)

        def __eq__(self, other):
            raise ZeroDivisionError

        __hash__ = None

    nasty = Nasty()
    for step in range(15):
        trail = [(nasty, step, 0), (LOCK, -1, None)]
        assert _culprit.explain_trail(refusal(), trail) is not None
    for trail in ([], [(LOCK, -1, None)], [(LOCK, 99, object()), (1, -1, None)], None):
        error = refusal()
        assert _culprit.explain_trail(error, trail) is error
