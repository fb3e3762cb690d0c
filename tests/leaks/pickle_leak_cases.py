"""What is done over and over to see whether anything stays: name -> function of no arguments."""

import collections
import copyreg
import dataclasses
import enum
import io
import pickle
import types
import weakref

import kinfolk.pickle as kpickle

try:
    import numpy
except ImportError:
    numpy = None

__all__ = ["CASES"]

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("a", "b", "__weakref__")


class WithReduce:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return WithReduce, self.args, {"state": [1]}, None, None


class WithItems(list):
    def __reduce__(self):
        return WithItems, (), None, iter([1, [2]])


class WithPairs(dict):
    def __reduce__(self):
        return WithPairs, (), None, None, iter([(1, [2])])


class WithState:
    def __getstate__(self):
        return {"a": [1]}

    def __setstate__(self, state):
        self.__dict__.update(state)


class WithNewargs:
    def __new__(cls, *args, **options):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return ([1],), {"key": [2]}


class Refuses:
    def __reduce__(self):
        raise ValueError("no")


class RefusesState:
    def __setstate__(self, state):
        raise ValueError("no")

    def __getstate__(self):
        return [1]


@dataclasses.dataclass
class Data:
    a: object
    b: object = None


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


def everything():
    cycle = []
    cycle.append((cycle, {"cycle": cycle}))
    slotted = Slotted()
    slotted.a = [1]
    shared = ["shared"]
    return [
        *(None, True, 1, 2**80, -(2**2100), 1.5, 2j, "abc", "é" * 200, b"abc", b"x" * 70_000),
        *(bytearray(b"abc"), (), (1, [2]), [1], {1: [2]}, {1, 2}, frozenset("ab"), cycle),
        *(slotted, Plain(a=[1], b=shared), [shared, shared], Data([1]), Colour.RED, Point(1, [2])),
        *(WithReduce([1]), WithItems(), WithPairs(), WithState(), WithNewargs(), Plain, len),
        *(collections.OrderedDict(a=[1]), collections.deque([[1]], 3), ValueError([1])),
        *(
            types.SimpleNamespace(a=[1]),
            list(range(1100)),
            dict.fromkeys(map(str, range(1100))),
        ),
    ]


def fails(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception:
        return
    raise AssertionError("should have failed")


def protocol_case(protocol):
    things = everything()
    if protocol < 2:
        things = [thing for thing in things if type(thing) not in (Slotted, WithNewargs)]

    def there_and_back():
        kpickle.loads(kpickle.dumps(things, protocol))

    CASES[f"protocol {protocol}"] = there_and_back


for number in range(6):
    protocol_case(number)

THINGS = everything()
PICKLE = pickle.dumps(THINGS, 5)


@case
def dump_alone():
    kpickle.dumps(THINGS)


@case
def load_alone():
    kpickle.loads(PICKLE)


@case
def files():
    file = io.BytesIO()
    kpickle.dump(THINGS, file)
    file.seek(0)
    kpickle.load(file)
    file.seek(0)
    kpickle.load(io.BufferedReader(file, 100))


@case
def one_pickler_many_dumps():
    file = io.BytesIO()
    pickler = kpickle.Pickler(file)
    for _ in range(3):
        pickler.dump(THINGS)
        pickler.memo = pickler.memo.copy()
    pickler.clear_memo()
    pickler.dump([1])
    file.seek(0)
    unpickler = kpickle.Unpickler(file)
    for _ in range(4):
        unpickler.load()
        unpickler.memo = unpickler.memo.copy()


@case
def picklers_that_are_not_used():
    pickler = kpickle.Pickler(io.BytesIO())
    assert pickler.memo.copy() == {}
    kpickle.Unpickler(io.BytesIO())
    fails(kpickle.Pickler, None)
    fails(kpickle.Unpickler, None)
    fails(kpickle.Pickler, io.BytesIO(), 99)


def closure_over(thing):
    return lambda: thing


@case
def failing_dumps():
    for bad in (Refuses(), (i for i in ())):
        fails(kpickle.dumps, [THINGS, {"key": (1, [bad])}], by_value=False)
        fails(kpickle.dumps, [THINGS, Plain(a=bad)])
        fails(kpickle.dumps, [THINGS, closure_over(bad)])


@case
def failing_loads():
    for end in range(len(SHORT)):
        fails(kpickle.loads, SHORT[:end])
    for bad in (b"", b"0.", b"K\x01e.", b"c_no_module\nx\n.", b"\x80\x09.", b"(((((](", b"g7\n."):
        fails(kpickle.loads, bad)
    fails(kpickle.loads, pickle.dumps([1, [RefusesState()]]))


SHORT = pickle.dumps([Plain(a=(1, [2])), {"k": {1}}, WithReduce([1]), "abc", 2**70], 5)


@case
def failing_files():
    class Bad:
        def write(self, data):
            raise OSError

        def read(self, size):
            raise OSError

        readline = read

    fails(kpickle.dump, [b"x" * 100_000], Bad())
    fails(kpickle.load, Bad())


@case
def too_deep():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    fails(kpickle.dumps, deep)


class Override(kpickle.Pickler):
    dispatch_table = collections.ChainMap(
        {complex: lambda c: (str, ("c",))}, copyreg.dispatch_table
    )

    def reducer_override(self, obj):
        return (list, ((1, 2),)) if type(obj) is Plain else NotImplemented

    def persistent_id(self, obj):
        return ["id", obj] if obj == "persistent" and type(obj) is str else None


class Persistent(kpickle.Unpickler):
    def persistent_load(self, pid):
        return pid

    def find_class(self, module, name):
        return super().find_class(module, name)


@case
def subclasses():
    file = io.BytesIO()
    pickler = Override(file)
    pickler.me = pickler
    fails(pickler.dump, [*THINGS, Refuses()])
    file = io.BytesIO()
    for protocol in (1, 2, 5):
        Override(file, protocol).dump([1j, Plain(), Point(1, 2), lambda: 1, [1]])
    file.seek(0)
    for _ in range(3):
        unpickler = Persistent(file)
        unpickler.me = unpickler
        unpickler.load()


@case
def out_of_band():
    given = []
    buffer = bytearray(b"abc" * 1000)
    things = [kpickle.PickleBuffer(buffer), kpickle.PickleBuffer(b"abc"), [given]]
    data = kpickle.dumps(things[:2], buffer_callback=given.append)
    kpickle.loads(data, buffers=given)
    fails(kpickle.loads, data, buffers=given[:1])
    fails(kpickle.loads, data)
    kpickle.dumps(things[:2])
    fails(kpickle.dumps, things[:2], buffer_callback=lambda buffer: 1 / 0)


@case
def arrays():
    if numpy is None:
        return
    given = []
    array = numpy.arange(1000)
    kpickle.loads(kpickle.dumps([array, array[::2]]))
    kpickle.loads(kpickle.dumps(array, buffer_callback=given.append), buffers=given)


@case
def functions_by_value():
    kept = [1]

    def outer(a, b=kept, *, c=kept):
        def inner():
            return a, b, c, kept, collections

        return inner

    outer.note = outer
    got = kpickle.loads(kpickle.dumps([outer, outer(1), lambda: kept, THINGS[0]]))
    assert got[1]()[3] == [1]


@case
def failing_by_value():
    bad = (i for i in ())
    fails(kpickle.dumps, lambda: bad)
    data = kpickle.dumps(lambda: THINGS)
    for end in range(min(300, len(data) - 1)):
        fails(kpickle.loads, data[:end])


@case
def modules_by_value():
    module = types.ModuleType("made_for_leaks")
    exec("x = [1]\ndef f(): return x\ndef g(): return f()", vars(module))
    got = kpickle.loads(kpickle.dumps([module, module.f, module.g]))
    assert got[0].x is got[1]() is got[2]()


class KeptLocal:
    """Known to the sender from the first sending on, so that it is the same one that comes back."""


def make_local():
    class Local(KeptLocal):
        kept = [1]

        def get(self):
            return self.kept, __class__

        @property
        def twice(self):
            return 2

    return Local


LOCAL = make_local()


@case
def one_class_by_value():
    assert type(kpickle.loads(kpickle.dumps([LOCAL, LOCAL()]))[1]) is LOCAL


@case
def new_classes_by_value():
    """Sender and receiver forget a class when nothing else knows it."""
    kpickle.loads(kpickle.dumps([(local := make_local()), local()]))


@case
def weak_sets_and_views():
    things = [Plain(a=1), Plain(a=2)]
    d = {"a": [1]}
    kpickle.loads(kpickle.dumps([things, weakref.WeakSet(things), d.keys(), d.values(), d.items()]))


@case
def explained_failures():
    fails(kpickle.dumps, {"job": [Plain(callbacks=[1, (lambda: THINGS[:1], (i for i in ()))])]})


@case
def extension_codes():
    copyreg.add_extension(Plain.__module__, "Plain", 240)
    try:
        kpickle.loads(kpickle.dumps([Plain(), Plain]))
        kpickle.loads(b"\x82\xf0.")
    finally:
        copyreg.remove_extension(Plain.__module__, "Plain", 240)
        copyreg._extension_cache.clear()
