"""Value, Array and the raw kinds: any ctypes type, the same memory for every process and pickle."""

import copy
import ctypes
import gc
import os
import pickle
import signal
import threading
import warnings
import weakref

import pytest

import kinfolk
from kinfolk import heap, sharedctypes

METHODS = ("fork", "spawn", "forkserver")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double * 3)]


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


def run(ctx, target, *args):
    child = ctx.Process(target=target, args=args)
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    assert code == 0


def twin(obj, protocol=None):
    return pickle.loads(pickle.dumps(obj, protocol))


def double(*values):
    for value in values:
        value.value *= 2


def write_everywhere(value, array, point, points, text):
    value.value = 2**40
    array[3] = 30
    point.x = 7
    points[1].y[2] = 2.5
    text.value = b"written"


def set_part(point):
    point.y[0] = 1.25


def put_twin(queue):
    value = queue.get()
    with value.get_lock():
        value.value += 1


@pytest.mark.parametrize("lock", [True, False])
def test_child_writes_are_seen(ctx, lock):
    value = ctx.Value("q", 1, lock=lock)
    array = ctx.Array("i", range(5), lock=lock)
    point = ctx.Value(Point, 1, lock=lock)
    points = ctx.RawArray(Point, 2)
    text = ctx.Array("c", 20, lock=lock)
    run(ctx, write_everywhere, value, array, point, points, text)
    assert value.value == 2**40
    assert array[:] == [0, 1, 2, 30, 4]
    assert point.x == 7
    assert points[1].y[2] == 2.5
    assert text.value == b"written"


@pytest.mark.parametrize("typecode", sharedctypes.typecode_to_type)
def test_typecodes(typecode):
    raw = kinfolk.RawValue(typecode)
    assert type(raw) is sharedctypes.typecode_to_type[typecode]
    assert not raw.value or raw.value in ("\0", b"\0")
    raw.value = {"c": b"x", "u": "x"}.get(typecode, 7)
    assert twin(raw).value == raw.value


def test_travels_over_a_queue(ctx):
    queue = ctx.Queue()
    value = ctx.Value("i", 5)
    queue.put(value)
    run(ctx, put_twin, queue)
    assert value.value == 6
    queue.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_pickle_at_any_time(protocol):
    for make in (
        lambda: kinfolk.RawValue("i", 3),
        lambda: kinfolk.Value("i", 3),
        lambda: kinfolk.Value("i", 3, lock=kinfolk.Lock()),
    ):
        value = make()
        other = twin(value, protocol)
        assert type(other) is type(value)
        other.value = 4
        assert value.value == 4


def test_arrays_of_any_shape():
    matrix = kinfolk.RawArray(ctypes.c_int * 3, 2)
    other = twin(matrix)
    assert type(other) is type(matrix)
    other[1][2] = 8
    assert matrix[1][2] == 8
    assert len(twin(kinfolk.RawArray("i", 0))) == 0


def test_a_part_is_as_shared_as_the_whole(ctx):
    points = kinfolk.RawArray(Point, 4)
    twin(points[2]).y[1] = 7.5
    assert points[2].y[1] == 7.5
    twin(twin(points[3].y))[2] = 3
    assert points[3].y[2] == 3
    run(ctx, set_part, points[1])
    assert points[1].y[0] == 1.25


def test_unshared_objects_pickle_by_value():
    kinfolk.RawValue(Point)
    point = Point(3)
    other = twin(point)
    other.x = 4
    assert point.x == 3


def test_copies_are_separate():
    raw = kinfolk.RawArray(Point, 2)
    raw[1].x = 5
    for separate in (copy.copy(raw), copy.deepcopy(raw), sharedctypes.copy(raw)):
        assert separate[1].x == 5
        separate[1].x = 6
        assert raw[1].x == 5
    shared = sharedctypes.copy(Point(9))
    twin(shared).x = 1
    assert shared.x == 1


def test_new_memory_is_zeroed():
    for _ in range(3):
        array = kinfolk.RawArray("i", 1000)
        assert not any(array)
        array[:] = range(1000)
        del array


def test_locks():
    lock = kinfolk.Lock()
    assert kinfolk.Value("i", lock=lock).get_lock() is lock
    value = kinfolk.Value("i", 5, lock=None)
    with value.get_lock(), value:  # recursive, by default
        assert value.get_obj().value == 5
    value.acquire()
    value.release()
    assert not hasattr(kinfolk.Value("i", lock=False), "get_lock")
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        kinfolk.Array("i", 3, lock="no lock")


def test_synchronized_kinds():
    assert type(kinfolk.Value("i")) is sharedctypes.Synchronized
    assert type(kinfolk.Array("i", 2)) is sharedctypes.SynchronizedArray
    text = kinfolk.Array("c", b"word")
    assert type(text) is sharedctypes.SynchronizedString
    assert (text.value, text.raw, len(text)) == (b"word", b"word", 4)
    point = kinfolk.Value(Point, 3)
    assert type(point).__name__ == "SynchronizedPoint"
    assert type(point) is type(kinfolk.Value(Point))
    assert "SynchronizedPoint wrapper for" in repr(point)
    array = kinfolk.Array("i", range(5))
    array[1:3] = [10, 20]
    assert array[:4] == [0, 10, 20, 3]
    with pytest.raises(AssertionError):
        sharedctypes.synchronized(array)


def test_values_hold_under_contention(ctx):
    values = ctx.Value("d", 1.5), ctx.Value("i", 4)
    run(ctx, double, *values)
    assert [value.value for value in values] == [3.0, 8]


def test_buffer_wrapper():
    wrapper = heap.BufferWrapper(10)
    view = wrapper.create_memoryview()
    assert bytes(view) == bytes(10)
    view[3] = 4
    assert twin(wrapper).create_memoryview()[3] == 4
    separate = copy.deepcopy(wrapper)
    separate.create_memoryview()[3] = 5
    assert view[3] == 4
    with pytest.raises(ValueError):
        heap.BufferWrapper(-1)
    with pytest.raises(OverflowError):
        heap.BufferWrapper(2**70)


def test_heap_blocks():
    pieces = heap.Heap()
    arena, start, stop = block = pieces.malloc(13)
    assert stop - start >= 13
    assert arena.size >= stop
    memoryview(twin(arena).buffer)[start] = 9
    assert memoryview(arena.buffer)[start] == 9
    pieces.free(block)


def test_memory_is_given_back():
    from kinfolk import _kin

    kinfolk.RawArray("d", 1000)  # types and tables are made once
    before = _kin.stats()["in_use"]
    for _ in range(50):
        twin(kinfolk.RawArray("d", 1000))
    assert _kin.stats()["in_use"] == before


# -- Each access inside the lock ------------------------------------------------------------


class Counting:
    """A lock of somebody else's."""

    def __init__(self):
        self.held = self.taken = 0

    def acquire(self):
        self.held += 1
        self.taken += 1

    def release(self):
        self.held -= 1

    def __enter__(self):
        self.acquire()
        return "entered"

    def __exit__(self, *args):
        self.release()
        return "left"


class CountingLock(type(kinfolk.Lock())):
    """A lock of ours, with methods of somebody else's."""

    taken = 0

    def acquire(self, *args):
        self.taken += 1
        return super().acquire(*args)


class CountingValue(sharedctypes.Synchronized):
    taken = 0

    def acquire(self, *args):
        self.taken += 1
        return super().acquire(*args)


class Both(ctypes.Union):
    _fields_ = [("i", ctypes.c_int), ("f", ctypes.c_float)]


class Bits(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint, 3), ("high", ctypes.c_uint, 29)]


class Big(ctypes.BigEndianStructure):
    _fields_ = [("x", ctypes.c_int), ("both", ctypes.c_short * 2)]


ASSIGNED = (
    0, 1, -1, 127, 128, 255, 256, 2**31, 2**63, 2**64 + 5, -(2**70), True, False, 1.5, -0.0, 1e300,
    float("inf"), 10**400, "x", "xy", "", b"x", b"xy", b"", bytearray(b"x"), None, [1], object,
)  # fmt: skip


def outcome(call, *args):
    try:
        return repr(call(*args))
    except Exception as error:
        return type(error), str(error)


def set_and_get(obj, value):
    obj.value = value
    return obj.value


@pytest.mark.parametrize("type_", {*sharedctypes.typecode_to_type.values(), ctypes.c_bool})
def test_values_are_converted_as_ctypes_has_it(type_):
    bare, value = type_(), kinfolk.Value(type_)
    for assigned in ASSIGNED:
        expected = outcome(set_and_get, bare, assigned)
        assert outcome(set_and_get, value, assigned) == expected, assigned
        assert bytes(value.get_obj()) == bytes(bare)
        assert not value.get_lock()._is_mine()


@pytest.mark.parametrize("type_", [ctypes.c_int.__ctype_be__, ctypes.c_longdouble, ctypes.c_void_p])
def test_other_simple_types(type_):
    value = kinfolk.Value(type_, 5)
    value.value += 1
    assert value.value == value.get_obj().value == 6


def test_a_type_derived_from_a_simple_one():
    class Doubled(ctypes.c_int):
        @property
        def value(self):
            return 2 * ctypes.c_int.value.__get__(self)

    value = sharedctypes.synchronized(Doubled(4))
    assert type(value) is sharedctypes.Synchronized
    assert value.value == 8


def test_an_object_that_moves():
    obj = ctypes.c_int(5)
    value = sharedctypes.synchronized(obj)
    ctypes.resize(obj, 100_000)  # ctypes reads nonsense from then on: the same, at least
    assert value.value == obj.value
    ctypes.memset(ctypes.byref(obj), 7, 100_000)
    assert value.value == obj.value


def test_another_object():
    value = kinfolk.Value("i", 5)
    value._obj = kinfolk.RawValue("d", 2.5)
    assert value.value == 2.5
    value._lock = lock = Counting()
    assert value.value == 2.5
    assert lock.taken == 1
    with pytest.raises(AttributeError):
        del value._obj


def test_locks_of_others():
    lock = Counting()
    value = kinfolk.Value("i", 5, lock=lock)
    value.value += 1
    array = kinfolk.Array("c", b"word", lock=lock)
    array[1] = array[0]
    array[2:] = array[:2]
    array.value = array.raw
    point = kinfolk.Value(Point, 3, lock=lock)
    point.x += 1
    assert (lock.taken, lock.held) == (10, 0)
    with value as entered:
        assert (entered, lock.held) == ("entered", 1)
    value.acquire()
    value.release()
    assert value.__exit__(None, None, None) == "left"
    guarded = kinfolk.Value("i", lock=threading.RLock())
    with guarded:
        guarded.value += 1
    assert guarded.value == 1


def test_methods_of_others():
    value = kinfolk.Value("i", 5, lock=CountingLock())
    value.value += 1
    assert value.get_lock().taken == 2
    derived = CountingValue(kinfolk.RawValue("i", 1))
    derived.value += 1
    assert derived.taken == 2
    value = kinfolk.Value("i", 5)
    calls = []
    value.acquire, value.release = lambda: calls.append("acquire"), lambda: calls.append("release")
    assert value.value == 5
    assert calls == ["acquire", "release"]


def test_the_lock_is_given_back_after_errors():
    value, array = kinfolk.Value("i"), kinfolk.Array("i", 3)
    for bad in (
        lambda: setattr(value, "value", "word"),
        lambda: setattr(array, "x", array[3]),
        lambda: array.__setitem__(0, "word"),
        lambda: array.__setitem__(slice(2), [1, 2, 3]),
        lambda: array["word"],
    ):
        with pytest.raises((TypeError, IndexError, ValueError)):
            bad()
        assert value.get_lock()._is_mine() is array.get_lock()._is_mine() is False


def test_a_release_that_fails():
    class Failing(Counting):
        def release(self):
            raise OSError("release")

    value = kinfolk.Value("i", lock=Failing())
    with pytest.raises(OSError, match="release") as caught:
        value.value = "word"
    assert type(caught.value.__context__) is TypeError
    with pytest.raises(OSError, match="release"):
        value.value = 5


def test_a_structure_refuses_what_it_has_not():
    value = kinfolk.Value(Point)
    with pytest.raises(TypeError):
        value.x = "word"
    with pytest.raises(AttributeError, match="no deleter"):
        del value.x
    with pytest.raises(AttributeError):
        del kinfolk.Value("i").value


def test_own_classes():
    class Pair(sharedctypes.SynchronizedBase):
        x = sharedctypes.make_property("x")

    pair = Pair(kinfolk.RawValue(Point, 4))
    pair.x += 1
    assert pair.get_obj().x == 5
    assert "locked" in repr(Pair.x)
    with pytest.raises(TypeError, match="synchronized objects"):
        Pair.x.__get__(5)
    for cls in (sharedctypes.Synchronized, sharedctypes.SynchronizedArray, Pair):
        empty = cls.__new__(cls)
        for use in (repr, lambda v: v.get_obj(), lambda v: v.acquire(), lambda v: v.__reduce__()):
            assert use is repr or outcome(use, empty)[0] is RuntimeError
    with pytest.raises(TypeError):
        sharedctypes.Synchronized()
    assert pickle.loads(pickle.dumps(Pair.x)).__name__ == "x"


def test_arrays_are_sequences():
    array = kinfolk.Array("i", range(4))
    assert list(array) == [0, 1, 2, 3]
    assert list(reversed(array)) == [3, 2, 1, 0]
    assert 3 in array and 4 not in array
    assert array[-1] == 3
    with pytest.raises(IndexError):
        array[4]
    with pytest.raises((AttributeError, TypeError)):
        del array[0]
    assert list(kinfolk.Array("i", 0)) == []
    with pytest.raises(ValueError, match="must be >= 0"):
        kinfolk.Array("i", -1)


def test_who_holds_the_lock_is_waited_for():
    value = kinfolk.Value("i", lock=kinfolk.Lock())
    seen = []

    def look():
        seen.append(value.value)
        value.value = 3

    with value.get_lock():
        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            value.get_obj().value += 1
            thread.start()
        value.get_obj().value = 2
    for thread in threads:
        thread.join()
    assert set(seen) <= {2, 3} and len(seen) == 4


def add(value, count):
    for _ in range(count):
        with value.get_lock():
            value.value += 1


def test_nothing_is_lost(ctx):
    value, count = ctx.Value("l"), 2000
    children = [ctx.Process(target=add, args=(value, count)) for _ in range(3)]
    for child in children:
        child.start()
    add(value, count)
    for child in children:
        child.join()
        child.close()
    assert value.value == 4 * count


def die_holding(value):
    value.acquire()
    value.get_obj().value = 7
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("lock", ["Lock", "RLock"])
def test_the_death_of_a_holder_is_told(ctx, lock):
    value = ctx.Value("i", lock=getattr(ctx, lock)())

    def kill_one():
        child = ctx.Process(target=die_holding, args=(value,))
        child.start()
        child.join()
        child.close()

    kill_one()
    with pytest.warns(RuntimeWarning, match="was killed while it held"):
        assert value.value == 7
    assert value.value == 7
    kill_one()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            value.value = 8
        assert value.value == 7
    assert value.get_lock().acquire(block=False)
    value.get_lock().release()


# -- Types of every kind ------------------------------------------------------------------------


def test_unions_bits_and_foreign_order():
    both = kinfolk.Value(Both, 5)
    assert twin(both).i == 5
    bits = kinfolk.Value(Bits, 9, 1000)
    assert (twin(bits).low, bits.high) == (1, 1000)
    big = kinfolk.Value(Big, 258)
    twin(big).both[1] = 3
    assert bytes(big.get_obj()) == b"\0\0\1\2\0\0\0\3"
    pair = kinfolk.RawArray(Big, 2)
    twin(pair[1].both)[0] = 1
    assert pair[1].both[:] == [1, 0]
    number = kinfolk.RawValue(ctypes.c_int.__ctype_be__, 5)
    twin(number).value += 1
    assert bytes(number) == b"\0\0\0\6"


def test_alignment():
    held = [kinfolk.RawValue(ctypes.c_byte)]
    for type_ in (ctypes.c_longdouble, ctypes.c_double, ctypes.c_int, Point):
        held.append(kinfolk.RawValue(type_))
        assert ctypes.addressof(held[-1]) % ctypes.alignment(type_) == 0
        assert ctypes.addressof(held[-1]) % 16 == 0


def test_wide_text():
    text = kinfolk.Array("u", "zwölf")
    assert twin(text)[:] == "zwölf"
    text[0] = "Z"
    assert text.get_obj().value == "Zwölf"


def test_copies_of_synchronized():
    value = kinfolk.Value("i", 5)
    copy.copy(value).value = 6
    assert value.value == 6
    copy.deepcopy(value).value = 7
    assert value.value == 6


def test_memory_lives_as_long_as_a_view():
    numpy = pytest.importorskip("numpy")
    view = numpy.frombuffer(kinfolk.Array("d", [1, 2, 3]).get_obj())
    others = [kinfolk.RawArray("d", [9, 9, 9]) for _ in range(10)]
    assert view.tolist() == [1, 2, 3]
    del others


# -- Memory --------------------------------------------------------------------------------------


def test_what_is_dropped_is_gone_at_once():
    from kinfolk import _kin

    def make():
        yield kinfolk.Value("i")
        yield kinfolk.Array("c", 100)
        yield kinfolk.Value(Point)
        yield twin(kinfolk.Value("d"))
        yield kinfolk.Value("i", lock=kinfolk.Lock())

    list(make())
    gc.collect()
    gc.disable()
    try:
        before = _kin.stats()["in_use"]
        for value in make():
            value.note = "an attribute"
            obj, lock, whole = map(weakref.ref, (value.get_obj(), value.get_lock(), value))
            del value
        del obj, lock
        assert whole() is None
        assert _kin.stats()["in_use"] == before
    finally:
        gc.enable()


def test_many_leave_nothing():
    from kinfolk import _kin

    kinfolk.Value("i")
    before = _kin.stats()
    for _ in range(int(os.environ.get("KINFOLK_VALUES", 5000))):
        kinfolk.Value("i", 1).value += 1
    after = _kin.stats()
    assert after["in_use"] == before["in_use"]
    assert after["committed"] <= before["committed"] + (1 << 20)
