"""Value, Array and the raw kinds: any ctypes type, the same memory for every process and pickle."""

import copy
import ctypes
import pickle

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
