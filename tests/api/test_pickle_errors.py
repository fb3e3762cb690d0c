"""What cannot travel raises at the caller, who is told where it is and what to do."""

import enum
import functools
import io
import pickle
import socket
import sys
import threading
import types
import weakref

import pytest

import kinfolk.pickle as kpickle

LOCK = threading.Lock()
REFUSAL = "cannot pickle '_thread.lock' object"


class Holder:
    def __init__(self, **names):
        self.__dict__.update(names)


class Slotted:
    __slots__ = ("a", "b")


def failure(thing, **options):
    with pytest.raises((TypeError, AttributeError, kpickle.PicklingError)) as caught:
        kpickle.dumps(thing, **options)
    return caught.value


def path_in(error):
    path, colon, _ = str(error).partition(": ")
    assert colon
    return path


def slotted(**names):
    made = Slotted()
    for name, value in names.items():
        setattr(made, name, value)
    return made


def function_with(*, default=None, kwdefault=None, closed_over=None, **attributes):
    def function(a=default, *, b=kwdefault):
        return closed_over

    function.__dict__.update(attributes)
    return function


def class_with(bases=(), **names):
    return types.new_class("Made", bases, {}, lambda body: body.update(names))


def instance(cls):
    return cls()


def using_a_global():
    namespace = {"__name__": "nowhere", "lock": LOCK}
    exec("def function(): return lock", namespace)
    return namespace["function"]


def module_with(**names):
    module = types.ModuleType("made")
    module.__dict__.update(names)
    return module


PATHS = {
    "[0]": lambda: [LOCK],
    "[2][1]": lambda: (1, 2, [3, LOCK]),
    "['a'][7]": lambda: {"a": {7: LOCK}},
    "[(1, 'b')]": lambda: {(1, "b"): LOCK},
    "[<Holder>]": lambda: {Holder(): LOCK},
    ".lock": lambda: Holder(lock=LOCK),
    ".sinks[2]._lock": lambda: Holder(sinks=[1, "x", Holder(_lock=LOCK)]),
    ".b": lambda: slotted(a=1, b=LOCK),
    ".a.b": lambda: slotted(a=slotted(b=LOCK)),
    ".__closure__['closed_over']": lambda: function_with(closed_over=LOCK),
    ".__defaults__[0]": lambda: function_with(default=LOCK),
    ".__kwdefaults__['b']": lambda: function_with(kwdefault=LOCK),
    ".tag[0]": lambda: function_with(tag=[LOCK]),
    ".__globals__['lock']": using_a_global,
    "._lock": lambda: class_with(_lock=LOCK),
    ".__bases__[0]._lock": lambda: class_with(bases=(class_with(_lock=LOCK),)),
    ".__class__._lock": lambda: instance(class_with(_lock=LOCK)),
    ".method.__closure__['closed_over']": lambda: class_with(
        method=function_with(closed_over=LOCK)
    ),
    ".func.__closure__['closed_over']": lambda: functools.partial(
        function_with(closed_over=LOCK), 1
    ),
    ".args[1]": lambda: functools.partial(print, 1, LOCK),
    ".keywords['sep']": lambda: functools.partial(print, sep=LOCK),
    ".__self__.lock": lambda: types.MethodType(function_with(), Holder(lock=LOCK)),
    ".lock.__self__": lambda: Holder(lock=LOCK.acquire),
    ".value": lambda: module_with(value=LOCK),
    ".A.value": lambda: enum.Enum("Made", {"A": LOCK}),
}


@pytest.mark.parametrize("path", PATHS)
def test_the_path(path):
    error = failure(PATHS[path]())
    assert type(error) is TypeError
    assert path_in(error) == "obj" + path
    assert REFUSAL in str(error)


def test_the_thing_itself():
    error = failure(LOCK)
    assert type(error) is TypeError
    assert str(error).startswith(REFUSAL + "; ")
    assert "kinfolk.Lock()" in str(error)


@pytest.mark.parametrize(
    "kind, hint",
    [
        (lambda: open("/dev/null"), "open it in the receiver"),
        (lambda: (x for x in ()), "generator"),
        (sys._getframe, "frame"),
        (threading.Condition, "kinfolk.Lock()"),
        (lambda: weakref.ref(Holder), "send the thing"),
    ],
)
def test_the_hint(kind, hint):
    thing = kind()
    error = failure([thing])
    assert "; " in str(error) and hint in str(error).partition("; ")[2]
    if hasattr(thing, "close"):
        thing.close()


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not me")


def test_the_first_culprit_in_the_order_of_pickling():
    assert path_in(failure([1, {"x": LOCK}, LOCK])) == "obj[1]['x']"


def test_cycles_and_shared_things():
    thing = Holder(lock=None)
    thing.itself, thing.others = thing, [thing, {"t": thing}]
    thing.late = LOCK
    assert path_in(failure([thing])) == "obj[0].late"


def test_very_deep():
    thing = LOCK
    for _ in range(200):
        thing = [thing]
    error = failure(thing)
    assert path_in(error).startswith("obj[0][0]") and "more" in path_in(error)
    assert len(path_in(error)) < 200


def test_endless_depth_stays_a_recursion_error():
    thing = None
    for _ in range(100_000):
        thing = [thing]
    with pytest.raises(RecursionError):
        kpickle.dumps(thing)


def test_wide_things_do_not_take_long():
    """The way is noted, not searched for."""
    assert path_in(failure([[Holder(x=i) for i in range(150_000)], LOCK])) == "obj[1]"


def test_errors_of_the_users_own_code_are_left_alone():
    class Custom(Exception):
        pass

    error = Custom("mine", 1)

    class Raises:
        def __reduce__(self):
            raise error

    with pytest.raises(Custom) as caught:
        kpickle.dumps([Raises()])
    assert caught.value is error and error.args == ("mine", 1)
    if sys.version_info >= (3, 11):
        assert "obj[0]" in error.__notes__[0]


def test_a_refusal_by_the_object_itself_gets_the_path():
    assert str(failure([Unpicklable()])) == "obj[0]: not me"
    with socket.socket() as unsendable:
        assert str(failure({"s": unsendable})).startswith("obj['s']: cannot pickle 'socket' object")


def test_bugs_in_the_users_code_keep_their_text():
    class Buggy:
        def __getstate__(self):
            return self.helper()

        def helper(self):
            return len(5)

    error = failure([Buggy()])
    assert error.args == ("object of type 'int' has no len()",)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_the_note_shows_each_step():
    (note,) = failure({"job": Holder(sinks=[LOCK])}).__notes__
    lines = note.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "obj",
        "obj['job']",
        "obj['job'].sinks",
        "obj['job'].sinks[0]",
    ]
    assert lines[-1].endswith("_thread.lock") and lines[1].endswith("Holder")


def test_state_is_what_getstate_gives():
    class State:
        def __init__(self):
            self.plain = 1

        def __getstate__(self):
            return {"lock": LOCK, "plain": self.plain}

    class Other:
        def __getstate__(self):
            return ["x", LOCK]

    assert path_in(failure(State())) == "obj.__getstate__()['lock']"
    assert path_in(failure(Other())) == "obj.__getstate__()[1]"


def test_arguments_of_a_reduction():
    class Reduced:
        def __init__(self, lock):
            self.kept = lock

        def __reduce__(self):
            return Reduced, (self.kept,)

    class Hidden:
        def __reduce__(self):
            return Hidden, (1, LOCK)

    assert path_in(failure([Reduced(LOCK)])) == "obj[0].kept"
    assert path_in(failure([Hidden()])) == "obj[0].__reduce__()[1][1]"


def test_list_and_dict_subclasses():
    class L(list):
        pass

    class D(dict):
        pass

    assert path_in(failure(L([1, LOCK]))) == "obj[1]"
    assert path_in(failure(D(a=L([LOCK])))) == "obj['a'][0]"


def test_wrong_reductions():
    class Wrong:
        def __reduce__(self):
            return 42

    error = failure([0, Wrong()])
    assert type(error) is kpickle.PicklingError and path_in(error) == "obj[1]"


def test_names_that_lead_nowhere():
    class Named:
        def __reduce__(self):
            return "no_such_name"

    error = failure({"a": Named()})
    assert type(error) in (kpickle.PicklingError, AttributeError) and path_in(error) == "obj['a']"


def test_without_by_value():
    def local():
        pass

    error = failure([local], by_value=False)
    with pytest.raises(type(error)):
        pickle.dumps([local])
    assert path_in(error) == "obj[0]" and "by_value=True" in str(error)


def test_streaming():
    file = io.BytesIO()
    with pytest.raises(TypeError, match=r"^obj\.x: cannot pickle"):
        kpickle.dump(Holder(x=LOCK), file)
    with pytest.raises(TypeError, match=r"^obj\.x: cannot pickle"):
        kpickle.Pickler(file).dump(Holder(x=LOCK))


def test_a_pickler_with_reducers_of_its_own():
    class P(kpickle.Pickler):
        dispatch_table = {Slotted: lambda thing: (Slotted, (), (None, {"a": thing.b}))}

        def persistent_id(self, obj):
            return "lock" if obj is LOCK else None

    other = threading.Lock()
    with pytest.raises(TypeError, match=r"^obj\[1\]\.b: cannot pickle"):
        P(io.BytesIO()).dump([LOCK, slotted(b=other)])


def test_another_root():
    """Whoever calls `dumps` knows better what the object is called there."""
    thing = (Holder(sinks=[1, LOCK]),)
    error = failure(thing)
    before = error.args
    assert kpickle.explain_failure(error, thing, "args") is error
    assert path_in(error) == "args[0].sinks[1]"
    kpickle.explain_failure(error, None, parts={"target": print, "args": thing})
    assert path_in(error) == "args[0].sinks[1]" and str(error).count(REFUSAL) == 1
    assert len(error.args) == len(before)
    if sys.version_info >= (3, 11):
        (note,) = error.__notes__
        assert "obj" not in note.split()


def test_explaining_never_raises():
    class Nasty:
        __class__ = property(lambda self: 1 / 0)

        def __reduce__(self):
            raise TypeError("no")

        def __getattr__(self, name):
            raise ZeroDivisionError(name)

    with pytest.raises(TypeError, match="no"):
        kpickle.dumps({"nasty": Nasty()})
    stranger = ValueError()
    assert kpickle.explain_failure(stranger, [1, 2, 3]) is stranger and stranger.args == ()


def test_a_failed_dump_leaves_nothing_broken():
    pickler = kpickle.Pickler(io.BytesIO())
    with pytest.raises(TypeError):
        pickler.dump([LOCK])
    assert kpickle.loads(kpickle.dumps([function_with(default=3)]))[0].__defaults__ == (3,)
