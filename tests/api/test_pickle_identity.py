"""Identity is never lost, whoever hands an object out once more in the middle of a dump.

The pickler leaves out of its memo what only its container refers to.  Here, in every way that we
know of, something reaches into what was written already, takes a thing to which nothing
else referred, and has it written once more.  After loading, the two must be one.

Each test has a *store*, which is written first, and holds things nobody else knows; and a
*thief*, written later, in whose pickling a hook runs that takes a thing out of the store.
"""

import collections
import copyreg
import decimal
import enum
import gc
import io
import pickle
import signal
import sys
import threading
import uuid
import weakref

import pickle_thieves as thieves
import pytest

import kinfolk.pickle as kpickle


@pytest.fixture(autouse=True)
def nothing_stolen():
    yield
    thieves.stolen = None
    thieves.KEPT.clear()


THIEVES = (
    (
        thieves.ByReduce,
        thieves.ByReduceEx,
        thieves.ByState,
        thieves.ByReduceState,
        thieves.ByNewargs,
        thieves.ByNewargsEx,
        thieves.Bag,
        thieves.LazyBag,
        thieves.Pouch,
        thieves.Items,
    )
    + (
        thieves.OrderedItems,
        thieves.DefaultItems,
        thieves.DequeIter,
        thieves.CounterIter,
        thieves.SlotPropertyHeir,
    )
    + (thieves.ByGetattribute, thieves.OnInstance, thieves.Zone, thieves.SetIter)
)


@pytest.mark.parametrize("thief", THIEVES, ids=lambda thief: thief.__name__)
def test_hooks(thief):
    for store in thieves.STORES:
        held, take = thieves.store_of("plain", store)
        thieves.check([held, thief()], take)


@pytest.mark.parametrize(
    "thief",
    [thieves.ByReduce, thieves.ByState, thieves.LazyBag, thieves.Items],
)
@pytest.mark.parametrize("thing", thieves.THINGS)
def test_things(thing, thief):
    for store in thieves.STORES:
        held, take = thieves.store_of(thing, store)
        thieves.check([held, thief()], take)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("thief", [thieves.ByReduce, thieves.LazyBag, thieves.Pouch])
def test_protocols(thief, protocol):
    for store in thieves.STORES:
        held, take = thieves.store_of("plain", store)
        thieves.check([held, thief()], take, protocol=protocol)
        if store != "closure":
            thieves.check([held, thief()], take, protocol=protocol, by_value=False)


@pytest.mark.parametrize(
    "kind",
    [
        thieves.Hashing,
        thieves.ClassProperty,
        thieves.Asking,
        thieves.Number,
        thieves.DictProperty,
        thieves.ByGetattr,
    ],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.parametrize("store", thieves.STORES)
def test_hooks_that_put_it_elsewhere(store, kind):
    """The hook puts the thing where it will be met later in the same dump."""
    held, take = thieves.store_of("list", store)
    thief = kind()
    later = thief.kept if kind is thieves.ByGetattr else thieves.KEPT
    later[:] = []
    written = kpickle.dumps([held, thief, later])
    with thieves.no_thefts():
        for loads in (pickle.loads, kpickle.loads):
            got = loads(written)
            assert got[2] == [] or got[2][0] is take(got[0])


def reduce_thief(thief):
    return thieves.home, (thieves.steal(),)


class Registered(thieves.Thief):
    pass


@pytest.mark.parametrize("store", thieves.STORES)
def test_reducers_of_copyreg(store):
    held, take = thieves.store_of("plain", store)
    copyreg.pickle(Registered, reduce_thief)
    try:
        thieves.check([held, Registered()], take)
    finally:
        del copyreg.dispatch_table[Registered]


def dumper(kind):
    def dumps(thing):
        file = io.BytesIO()
        kind(file).dump(thing)
        return file.getvalue()

    return dumps


class WithTable(kpickle.Pickler):
    dispatch_table = {Registered: reduce_thief}


class WithChainTable(kpickle.Pickler):
    dispatch_table = collections.ChainMap({Registered: reduce_thief}, copyreg.dispatch_table)


class WithOverride(kpickle.Pickler):
    def reducer_override(self, obj):
        return reduce_thief(obj) if isinstance(obj, Registered) else NotImplemented


class WithPersistentId(kpickle.Pickler):
    """Looks at everything; at the sight of a thief it fills the thief's bag."""

    def persistent_id(self, obj):
        if type(obj) is thieves.Plain and hasattr(obj, "loot"):
            obj.loot = thieves.steal()


@pytest.mark.parametrize("kind", [WithTable, WithChainTable, WithOverride])
@pytest.mark.parametrize("store", thieves.STORES)
def test_reducers_of_a_pickler(store, kind):
    held, take = thieves.store_of("plain", store)
    thieves.check([held, Registered()], take, dumps=dumper(kind))


@pytest.mark.parametrize("store", thieves.STORES)
def test_persistent_ids(store):
    held, take = thieves.store_of("list", store)
    thieves.check([held, thieves.Plain(loot=None)], take, dumps=dumper(WithPersistentId))


def test_persistent_ids_that_are_the_thing():
    class Pickler(kpickle.Pickler):
        def persistent_id(self, obj):
            return (held[0], "id") if obj == "thief" else None

    class Unpickler(kpickle.Unpickler):
        def persistent_load(self, pid):
            return pid

    held = [[1], 2]
    file = io.BytesIO()
    Pickler(file).dump([held, "thief"])
    file.seek(0)
    got = Unpickler(file).load()
    assert got[1][0] is got[0][0]


@pytest.mark.parametrize("store", thieves.STORES)
def test_buffer_callbacks(store):
    held, take = thieves.store_of("list", store)

    def callback(buffer):
        given.append(buffer)
        later.append(thieves.steal())

    later, given = [], []
    written = kpickle.dumps([held, kpickle.PickleBuffer(b"abc"), later], 5, callback)
    for loads in (pickle.loads, kpickle.loads):
        got = loads(written, buffers=given)
        assert got[2][0] is take(got[0])


class File(io.BytesIO):
    """Runs code when it is written to, which for large things is in the middle of a dump."""

    def write(self, data):
        if thieves.stolen and not self.later:
            self.later.append(thieves.steal())
        return super().write(data)


@pytest.mark.parametrize("dump", [kpickle.dump, lambda obj, file: kpickle.Pickler(file).dump(obj)])
@pytest.mark.parametrize("store", thieves.STORES)
def test_files(store, dump):
    held, take = thieves.store_of("list", store)
    for big in (b"x" * 100_000, "x" * 100_000, [b"x" * 1000 for _ in range(100)]):
        file, later = File(), []
        file.later = later
        dump([held, big, later], file)
        got = pickle.loads(file.getvalue())
        assert later and (got[2] == [] or got[2][0] is take(got[0]))


def test_two_dumps_of_one_pickler():
    """What the first wrote, the second may refer to."""
    root = [[1], thieves.Plain(a=[2])]
    file = io.BytesIO()
    pickler = kpickle.Pickler(file)
    pickler.dump(root)
    pickler.dump([root[0], root[1].a])
    for unpickler in (pickle.Unpickler, kpickle.Unpickler):
        file.seek(0)
        loading = unpickler(file)
        first, second = loading.load(), loading.load()
        assert second[0] is first[0] and second[1] is first[1].a


def test_the_memo_is_whole():
    root = [[1], {"k": (1, [2])}]
    ours, theirs = kpickle.Pickler(io.BytesIO()), pickle.Pickler(io.BytesIO())
    ours.dump(root)
    theirs.dump(root)
    assert ours.memo.copy().keys() == theirs.memo.copy().keys()


# -- Code that runs beside the pickler -----------------------------------------------


class Colour(enum.Enum):
    """Its __reduce_ex__ is Python code of the library's."""

    RED = 1


def library_code(count):
    """Things in whose pickling the interpreter runs Python code, though none of the user's."""
    return [
        [Colour.RED, Point(i, [i]), decimal.Decimal(i), uuid.UUID(int=i), collections.Counter(a=i)]
        for i in range(count)
    ]


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize("store", thieves.STORES)
def test_callbacks_of_the_collector(store):
    held, take = thieves.store_of("list", store)
    later = []

    def callback(phase, info):
        if not later:
            later.append(thieves.steal())

    threshold = gc.get_threshold()
    root = [held, library_code(300), [{} for _ in range(300)], later]
    gc.callbacks.append(callback)
    gc.set_threshold(1)
    try:
        written = kpickle.dumps(root)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)
    got = pickle.loads(written)
    assert got[-1] == [] or got[-1][0] is take(got[0])


class Garbage:
    def __init__(self, act):
        self.itself, self.act = self, act

    def __del__(self):
        self.act()


@pytest.mark.parametrize("how", ["finalizer", "weakref"])
@pytest.mark.parametrize("store", thieves.STORES)
def test_finalizers(store, how):
    """Garbage that was there before is collected in the middle of the dump."""
    held, take = thieves.store_of("list", store)
    later = []
    steal = lambda *_: later or later.append(thieves.steal())  # noqa: E731
    root = [held, library_code(300), later]
    gc.collect()
    threshold = gc.get_threshold()
    gc.set_threshold(200)
    refs = []
    try:
        for _ in range(10):
            garbage = Garbage(steal if how == "finalizer" else int)
            if how == "weakref":
                refs.append(weakref.ref(garbage, steal))
            del garbage
        written = kpickle.dumps(root)
    finally:
        gc.set_threshold(*threshold)
    got = pickle.loads(written)
    assert got[-1] == [] or got[-1][0] is take(got[0])


class DiesInMid:
    """Its reduction is the only one that knows the thing which dies once it was written."""

    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        return list, ((),), None, iter([Dies(self.act)])


class Dies:
    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        return int, ()

    def __del__(self):
        self.act()


def test_what_dies_in_the_middle():
    held, take = thieves.store_of("list", "list")
    later = []
    got = pickle.loads(
        kpickle.dumps([held, DiesInMid(lambda: later.append(thieves.steal())), later])
    )
    assert got[2] == [] or got[2][0] is take(got[0])


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals")
def test_signal_handlers():
    held, take = thieves.store_of("list", "list")

    def handler(*_):
        if not later:
            later.append(thieves.steal())

    old = signal.signal(signal.SIGALRM, handler)
    middle = library_code(300)
    try:
        for attempt in range(60):
            later = []
            signal.setitimer(signal.ITIMER_REAL, 1e-5 * (attempt + 1))
            written = kpickle.dumps([held, middle, later])
            signal.setitimer(signal.ITIMER_REAL, 0)
            got = pickle.loads(written)
            assert got[2] == [] or got[2][0] is take(got[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_threads():
    held, take = thieves.store_of("list", "list")
    middle = library_code(300)
    interval = sys.getswitchinterval()
    done, go = threading.Event(), threading.Semaphore(0)
    later = []

    def run():
        while go.acquire() and not done.is_set():
            later.append(thieves.steal())

    thread = threading.Thread(target=run)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(60):
            later = []
            go.release()
            got = pickle.loads(kpickle.dumps([held, middle, later]))
            assert all(loot is take(got[0]) for loot in got[2])
    finally:
        done.set()
        go.release()
        thread.join()
        sys.setswitchinterval(interval)


# -- Weak references: they count for nothing --------------------------------------------


class Key(thieves.Plain):
    pass


def test_weak_sets():
    held = [Key(a=[1])]
    weak = weakref.WeakSet(held)
    for loads in (pickle.loads, kpickle.loads):
        got = loads(kpickle.dumps([held, weak]))
        assert list(got[1]) == [got[0][0]] and next(iter(got[1])) is got[0][0]


@pytest.mark.parametrize("by_value", [True, False])
def test_weak_references_of_the_users(by_value):
    copyreg.pickle(weakref.ref, lambda ref: (thieves.home, (ref(),)))
    try:
        held = [Key(a=[1])]
        root = [held, weakref.ref(held[0])]
        thieves.check(root, lambda store: store[0], by_value=by_value)
    finally:
        del copyreg.dispatch_table[weakref.ref]


class ByWeakValues(thieves.Thief):
    def __init__(self, thing):
        self.values = weakref.WeakValueDictionary(key=thing)

    def __getstate__(self):
        return [self.values["key"]]


def test_weak_values():
    held = [Key(a=[1])]
    thieves.check([held, ByWeakValues(held[0])], lambda store: store[0])


class ByCollector(thieves.Thief):
    def __getstate__(self):
        return [next(one for one in gc.get_objects() if type(one) is Key)]


def test_the_collectors_own_list():
    gc.collect()
    held = [Key(a=[1])]
    thieves.check([held, ByCollector()], lambda store: store[0])
