"""A store with things that nobody else knows, and thieves that take them out of it in mid-dump.

A thief is a thing with a hook that the pickler runs: it calls `steal()`, and what that gives
becomes a part of what is written.  `check` says whether, after loading, the loot is still the
store's own thing.
"""

import collections
import contextlib
import datetime
import decimal
import functools
import io
import pickle
import pickletools

import kinfolk.pickle as kpickle

# -- What is in the store ---------------------------------------------------------


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("slot", "__weakref__")


class MyList(list):
    pass


class MyDict(dict):
    pass


def slotted():
    thing = Slotted()
    thing.slot = [object]
    return thing


def deep():
    return [[[Plain(inner={"key": [1]})]]]


THINGS = {
    "list": lambda: [1],
    "empty list": list,
    "dict": lambda: {1: 2},
    "tuple": lambda: (1, [2]),
    "long tuple": lambda: tuple([i] for i in range(5)),
    "set": lambda: {1},
    "frozenset": lambda: frozenset((1, 2)),
    "bytearray": lambda: bytearray(b"abc"),
    "plain": lambda: Plain(a=[1]),
    "slotted": slotted,
    "MyList": lambda: MyList([1]),
    "MyDict": lambda: MyDict(a=1),
    "OrderedDict": lambda: collections.OrderedDict(a=[1]),
    "deque": lambda: collections.deque([1]),
    "deep": deep,
}

STORES = {
    "list": (lambda thing: [thing, 1], lambda store: store[0]),
    "tuple": (lambda thing: (1, thing), lambda store: store[1]),
    "dict": (lambda thing: {"k": thing}, lambda store: store["k"]),
    "instance": (lambda thing: Plain(a=thing), lambda store: store.a),
    "nested": (lambda thing: [({"k": Plain(a=[thing])},)], lambda store: store[0][0]["k"].a[0]),
    "MyList": (lambda thing: MyList([thing]), lambda store: store[0]),
    "OrderedDict": (lambda thing: collections.OrderedDict(k=thing), lambda store: store["k"]),
    "deque": (lambda thing: collections.deque([thing]), lambda store: store[0]),
    "closure": (lambda thing: lambda: thing, lambda store: store()),
    "default": (lambda thing: functools.partial(id, thing), lambda store: store.args[0]),
}

stolen = None  # what the hooks of this test call to take the thing


def steal():
    return stolen()


def store_of(thing, store):
    put, take = STORES[store]
    held = put(THINGS[thing]())
    globals()["stolen"] = lambda: take(held)
    return held, take


@contextlib.contextmanager
def no_thefts():
    global stolen
    hook, stolen = stolen, None
    yield
    stolen = hook


def check(root, take, *, dumps=kpickle.dumps, **options):
    """root[0] is the store; in what comes back, the loot is the store's thing."""
    written = dumps(root, **options)
    with no_thefts():
        pickletools.dis(written, out=io.StringIO())
        for loads in (pickle.loads, kpickle.loads):
            got = loads(written)
            assert got[1].loot is take(got[0])


# -- The thieves ---------------------------------------------------------------------


class Thief:
    """Carries loot home."""

    def __setstate__(self, loot):
        self.loot = loot[0]

    def __eq__(self, other):
        return self is other

    __hash__ = None


def home(loot):
    thief = Thief()
    thief.loot = loot
    return thief


class ByReduce(Thief):
    def __reduce__(self):
        return home, (stolen(),)


class ByReduceEx(Thief):
    def __reduce_ex__(self, protocol):
        return home, (stolen(),)


class ByState(Thief):
    def __getstate__(self):
        return [stolen()]


class ByReduceState(Thief):
    def __reduce__(self):
        return Thief, (), (stolen(),)


class ByNewargs(Thief):
    def __new__(cls, loot=None):
        self = super().__new__(cls)
        self.loot = loot
        return self

    def __getnewargs__(self):
        return (stolen(),)

    def __getstate__(self):
        return None


class ByNewargsEx(ByNewargs):
    def __getnewargs_ex__(self):
        return (), {"loot": stolen()}


class Bag(list):
    @property
    def loot(self):
        return self[0]

    def __reduce__(self):
        return Bag, (), None, (stolen() for _ in range(1))


class LazyIterator:
    """Steals only when it is asked for its item: after the reduction has been looked at."""

    def __iter__(self):
        return self

    def __next__(self):
        if self.__dict__.setdefault("done", False):
            raise StopIteration
        self.done = True
        return self.item()


class ItemIterator(LazyIterator):
    def item(self):
        return stolen()


class PairIterator(LazyIterator):
    def item(self):
        return "loot", stolen()


class LazyBag(Bag):
    def __reduce__(self):
        return Bag, (), None, ItemIterator()


class Pouch(dict):
    @property
    def loot(self):
        return self["loot"]

    def __reduce__(self):
        return Pouch, (), None, None, PairIterator()


class Items(dict):
    """object.__reduce_ex__ asks a subclass of dict for its items."""

    @property
    def loot(self):
        return self["loot"]

    def items(self):
        return [("loot", stolen())]


class OrderedItems(collections.OrderedDict):
    loot = Items.loot
    items = Items.items


class DefaultItems(collections.defaultdict):
    loot = Items.loot

    def items(self):
        return iter([("loot", stolen())])


class ListIter(list):
    loot = Bag.loot

    def __iter__(self):
        return iter([stolen()])


class SetIter(set):
    """set.__reduce__ lists itself: what it iterates over goes into the arguments."""

    def __init__(self, items=()):
        super().__init__([1])
        self.loot = [*items][0] if items else None

    def __iter__(self):
        return iter([stolen()])

    def __getstate__(self):
        return None

    def __setstate__(self, state):
        pass

    def __reduce__(self):
        constructor, arguments, *_ = super().__reduce__()
        return constructor, arguments


class DequeIter(collections.deque):
    loot = Bag.loot

    def __iter__(self):
        return iter([stolen()])


class CounterIter(collections.Counter):
    """Counter.__reduce__ is the library's, and calls what subclasses define."""

    @property
    def loot(self):
        return self["loot"]

    def keys(self):
        return ["loot"]

    def __iter__(self):
        return iter(["loot"])

    def __getitem__(self, key):
        return stolen() if stolen else super().__getitem__(key)


class SlotProperty:
    """A slot whose value is asked of code that came later."""

    __slots__ = ("loot",)


class SlotPropertyHeir(SlotProperty):
    __slots__ = ()

    @property
    def loot(self):
        return stolen() if stolen else SlotProperty.loot.__get__(self)

    @loot.setter
    def loot(self, loot):
        SlotProperty.loot.__set__(self, loot)


class ClassProperty(Thief):
    """The standard pickler asks an instance for its class."""

    @property
    def __class__(self):
        if stolen:
            KEPT[:] = [stolen()]
        return ClassProperty

    def __setstate__(self, state):
        pass


class ByGetattribute(Thief):
    def __init__(self):
        self.kept = []

    def __getattribute__(self, name):
        if name in ("__reduce_ex__", "__getstate__", "__dict__") and stolen:
            kept = object.__getattribute__(self, "kept")
            kept[:] = [stolen()]
        return object.__getattribute__(self, name)

    def __setstate__(self, state):
        self.__dict__.update(state)

    @property
    def loot(self):
        return self.kept[0]


class ByGetattr(Thief):
    """Asked only for what object does not have, which depends on the interpreter's version."""

    def __init__(self):
        self.kept = []

    def __getattr__(self, name):
        if stolen:
            self.__dict__["kept"][:] = [stolen()]
        raise AttributeError(name)

    def __setstate__(self, state):
        self.__dict__.update(state)

    @property
    def loot(self):
        return self.kept[0] if self.kept else None


class DictProperty(Thief):
    """Asked by some versions of the interpreter."""

    def __init__(self):
        self.mark = 1  # an empty __dict__ is asked for by none

    @property
    def __dict__(self):
        if stolen:
            KEPT[:] = [stolen()]
        return vars(Thief)["__dict__"].__get__(self)

    def __setstate__(self, state):
        self.mark = state["mark"]


class HashingMeta(type):
    """A look into a table of reducers by type asks the metaclass for the hash of it."""

    def __hash__(cls):
        if stolen:
            KEPT[:] = [stolen()]
        return super().__hash__()

    def __eq__(cls, other):
        if stolen:
            KEPT[:] = [stolen()]
        return cls is other


class AskingMeta(type):
    def __getattribute__(cls, name):
        if stolen:
            KEPT[:] = [stolen()]
        return super().__getattribute__(name)


KEPT = []


class Hashing(Thief, metaclass=HashingMeta):
    pass


class Asking(Thief, metaclass=AskingMeta):
    pass


class Number(decimal.Decimal):
    """The library's __reduce__ calls the subclass's __str__."""

    def __str__(self):
        if stolen:
            KEPT[:] = [stolen()]
        return super().__str__()


class Zone(datetime.tzinfo):
    def __getinitargs__(self):
        return (stolen(),)

    def __init__(self, loot=None):
        self.loot = loot

    def __getstate__(self):
        return None


class OnInstance(Thief):
    """The reducer is an attribute of the instance."""

    def __init__(self):
        self.__reduce_ex__ = lambda protocol: (home, (stolen(),))
