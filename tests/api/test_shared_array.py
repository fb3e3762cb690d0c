"""numpy arrays in shared memory: the same memory for every view, pickle and process."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref

import pytest

import kinfolk
from kinfolk import _kin

numpy = pytest.importorskip("numpy")

from kinfolk._shared_array import SharedArray  # noqa: E402

METHODS = ("fork", "spawn", "forkserver")

VIEWS = {
    "whole": lambda a: a,
    "row": lambda a: a[1],
    "column": lambda a: a[:, 2],
    "transposed": lambda a: a.T,
    "backwards": lambda a: a[::-1, ::-2],
    "reshaped": lambda a: a.reshape(-1),
    "of_another_type": lambda a: a.view("i8"),
    "part_of_a_part": lambda a: a[1:][:, 1:].T[::2],
    "of_no_items": lambda a: a[2:2],
    "of_one_item": lambda a: a[1, 2:3].reshape(()),
    "repeated": lambda a: numpy.broadcast_to(a, (2, *a.shape), subok=True),
    "diagonal": lambda a: a.diagonal(),
}

ORDINARY = {
    "copy": lambda a: a.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "sum": lambda a: a + 1,
    "sum on the right": lambda a: 1 + a,
    "sum of two": lambda a: a + a,
    "function": numpy.sin,
    "comparison": lambda a: a == 1,
    "negative": lambda a: -a,
    "product": lambda a: a @ a.T,
    "dot": lambda a: a.dot(a.T),
    "numpy.dot": lambda a: numpy.dot(a, a.T),
    "reduced": lambda a: a.sum(axis=0),
    "accumulated": lambda a: a.cumsum(),
    "mean": lambda a: a.mean(axis=1),
    "clip": lambda a: a.clip(1, 2),
    "astype": lambda a: a.astype("f4"),
    "flatten": lambda a: a.flatten(),
    "take": lambda a: a.take([1, 2]),
    "sorted": numpy.sort,
    "argsort": lambda a: a.argsort(),
    "joined": lambda a: numpy.concatenate([a, a]),
    "like": numpy.zeros_like,
    "rolled": lambda a: numpy.roll(a, 1),
    "where": lambda a: numpy.where(a > 1, a, 0),
    "out": lambda a: numpy.add(a, 1, out=numpy.empty(a.shape)),
    "asarray": numpy.asarray,
}


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


@pytest.fixture
def array():
    made = kinfolk.shared_array((3, 4))
    made[:] = numpy.arange(12).reshape(3, 4)
    return made


def twin(obj, protocol=None):
    return pickle.loads(pickle.dumps(obj, protocol))


def same_place(a, b):
    return a.__array_interface__ == b.__array_interface__


def run(ctx, target, *args):
    child = ctx.Process(target=target, args=args)
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    assert code == 0


# -- Pickles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("pickler", [pickle, kinfolk.pickle], ids=["pickle", "kinfolk.pickle"])
def test_each_view_is_the_same_memory(array, view, pickler):
    there = view(array)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        other = pickler.loads(pickler.dumps(there, protocol))
        assert type(other) is SharedArray
        assert same_place(other, there)


@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_what_is_new_is_ordinary(array, make):
    new = make(array)
    assert type(new) is numpy.ndarray
    assert type(twin(new)) is numpy.ndarray
    before = array.copy()
    twin(new)[...] = 0
    assert (array == before).all()


@pytest.mark.parametrize("index", [[0, 1], (slice(None), [2])], ids=str)
def test_an_index_by_a_list_makes_an_ordinary_one(array, index):
    new = array[index]
    assert repr(new).startswith("array(")
    for other in (twin(new), kinfolk.pickle.loads(kinfolk.pickle.dumps(new))):
        assert type(other) is numpy.ndarray
        assert (other == new).all()


def test_scalars_are_scalars(array):
    for scalar in (array[1, 1], array.sum(), array.max(), numpy.sin(array[0]).sum(), array.std()):
        assert isinstance(scalar, numpy.float64)
    point = kinfolk.shared_array(())
    assert isinstance(point + 1, numpy.float64)


def test_in_place_it_stays_shared(array):
    whole = array
    whole += 1
    assert whole is array
    assert numpy.add(array, 1, out=array) is array
    row = array[0]
    row *= 2
    assert same_place(row, array[0])
    assert twin(array)[0].tolist() == [4, 6, 8, 10]
    assert array.astype(float, copy=False) is array
    assert "SharedArray" in repr(array)


def test_read_only_stays_so(array):
    array.flags.writeable = False
    for other in (twin(array), twin(array[1:].T)):
        with pytest.raises(ValueError, match="read-only"):
            other[0] = 1


def test_pickles_are_short():
    assert len(pickle.dumps(kinfolk.shared_array(1_000_000))) < 250


def test_a_derived_class(array):
    other = twin(array.view(Derived))
    assert type(other) is Derived
    assert same_place(other, array)


class Derived(SharedArray):
    pass


def test_a_place_outside_of_the_memory_is_refused(array):
    _, (memory, offset, shape, strides, dtype, writeable) = array.__reduce__()
    from kinfolk._shared_array import _open

    for bad in (
        (memory, 8, shape, strides, dtype, writeable),
        (memory, -8, shape, strides, dtype, writeable),
        (memory, offset, (4, 4), strides, dtype, writeable),
        (memory, offset, shape, (64, 8), dtype, writeable),
    ):
        with pytest.raises((ValueError, TypeError)):
            _open(*bad)


# -- Making them --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", ">i4", "f2", "g", "c16", "M8[us]", "m8[D]", "S3", "U4", "S", "U", "V5", "i4,f8",
     [("a", "i4"), ("b", "f8", (2,))]],
    ids=str,
)  # fmt: skip
def test_types(dtype):
    made = kinfolk.shared_array(3, dtype)
    like = numpy.zeros(3, dtype)
    assert (made.dtype, made.shape) == (like.dtype, like.shape)
    assert made.tobytes() == like.tobytes()
    other = twin(made[::-1])
    assert other.dtype == like.dtype
    assert same_place(other, made[::-1])
    shared = kinfolk.share(like)
    assert (shared.dtype, shared.tobytes()) == (like.dtype, like.tobytes())


def test_metadata_is_kept():
    dtype = numpy.dtype("i4", metadata={"unit": "mm"})
    assert twin(kinfolk.shared_array(3, dtype)).dtype.metadata == {"unit": "mm"}


@pytest.mark.parametrize("shape", [(), 0, 3, (2, 3), [4], (0, 3), (3, 0), numpy.int64(2)], ids=repr)
@pytest.mark.parametrize("order", "CF")
def test_shapes(shape, order):
    made, like = kinfolk.shared_array(shape, order=order), numpy.zeros(shape, order=order)
    assert (made.shape, made.dtype) == (like.shape, like.dtype)
    assert made.strides == like.strides or made.size == 0
    assert not made.any()
    assert same_place(twin(made), made)


@pytest.mark.parametrize(
    "like",
    [
        numpy.arange(6.0).reshape(2, 3),
        numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)),
        numpy.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)[:, :, ::2],
        numpy.arange(5)[::-1],
        numpy.array(5),
        numpy.zeros((0, 3)),
        numpy.array(["2020-01-01"], "M8[D]"),
        numpy.array([(1, "x")], [("a", "i4"), ("b", "U3")]),
        [1, 2, 3],
        5.0,
    ],
    ids=range(10),
)
def test_share_copies_once(like):
    shared = kinfolk.share(like)
    like = numpy.asarray(like)
    assert type(shared) is SharedArray
    assert shared.dtype == like.dtype
    assert shared.strides == numpy.copy(like, "K").strides or like.size == 0
    assert (shared == like).all()
    assert not numpy.shares_memory(shared, like)
    assert same_place(twin(shared), shared)
    assert kinfolk.share(shared) is shared
    again = kinfolk.share(numpy.asarray(shared))
    assert type(again) is SharedArray
    assert same_place(again, shared)


def test_what_cannot_be_shared():
    for dtype in ("O", [("a", "i4"), ("b", "O")]):
        with pytest.raises(TypeError, match="addresses of Python objects"):
            kinfolk.shared_array(3, dtype)
        with pytest.raises(TypeError, match="addresses of Python objects"):
            kinfolk.share(numpy.zeros(3, dtype))
    with pytest.raises(TypeError, match=r"\.mask"):
        kinfolk.share(numpy.ma.array([1, 2]))
    with pytest.raises(ValueError, match="negative"):
        kinfolk.shared_array((3, -1))
    with pytest.raises(ValueError, match="larger than"):
        kinfolk.shared_array((2**40, 2**40))
    with pytest.raises(ValueError, match="order"):
        kinfolk.shared_array(3, order="K")
    with pytest.raises(TypeError):
        kinfolk.shared_array(1.5)


# -- Processes ----------------------------------------------------------------------------------------


class Holder:
    def __init__(self, array):
        self.array = array
        self.column = array[:, 1]


def fill(holder, views):
    assert numpy.shares_memory(holder.array, holder.column)
    holder.array[0] = 7
    holder.column[2] = 8
    views[0][:] = 9


def swap(queue, answers):
    array = queue.get()
    array[0] = 5
    answers.put(array[1:])


def set_item(array, i):
    array[i] = i
    return array[i : i + 1]


def test_children_have_the_same_memory(ctx, array):
    run(ctx, fill, Holder(array), [array[1].view("f8")])
    assert array.tolist() == [[7, 7, 7, 7], [9, 9, 9, 9], [8, 8, 10, 11]]


def test_over_queues(ctx):
    array, queue, answers = kinfolk.shared_array(3), ctx.Queue(), ctx.Queue()
    queue.put(array)
    child = ctx.Process(target=swap, args=(queue, answers))
    child.start()
    rest = answers.get()
    child.join()
    child.close()
    rest[0] = 6
    assert array.tolist() == [5, 6, 0]
    queue.close()
    answers.close()


def test_what_came_by_a_queue_stays_shared_through_a_fork():
    # Otherwise than a large array that is sent: each process has that to itself.
    ctx = kinfolk.get_context("fork")
    queue = ctx.SimpleQueue()
    queue.put(kinfolk.shared_array(100_000))
    array = queue.get()
    run(ctx, set_item, array, 5)
    assert array[5] == 5
    queue.close()


def test_pools(ctx):
    array = kinfolk.shared_array(8, "i4")
    with ctx.Pool(2) as pool:
        parts = pool.starmap(set_item, [(array, i) for i in range(8)])
    assert array.tolist() == list(range(8))
    assert all(same_place(part, array[i : i + 1]) for i, part in enumerate(parts))


FOREIGNER = """
import pickle, sys, kinfolk
kinfolk.Lock()
try:
    pickle.loads(bytes.fromhex(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_another_family_cannot_load_it(array):
    command = [sys.executable, "-c", FOREIGNER, pickle.dumps(array).hex()]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "family" in said


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
import kinfolk
try:
    kinfolk.shared_array(3)
except ImportError as error:
    print(error, error.name)
"""


def test_without_numpy():
    command = [sys.executable, "-c", WITHOUT_NUMPY]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "kinfolk's shared arrays need numpy numpy\n"
    command[-1] = "import sys, kinfolk.context; print('numpy' in sys.modules)"
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"


# -- Memory -------------------------------------------------------------------------------------------


def test_memory_is_given_back():
    kinfolk.shared_array(3)
    gc.collect()
    gc.disable()
    try:
        before = _kin.stats()["in_use"]
        array = kinfolk.shared_array((100, 100))
        view = twin(array[::2].T)
        gone = weakref.ref(array)
        del array
        assert gone() is None
        assert _kin.stats()["in_use"] > before
        assert not view.any()
        del view
        assert _kin.stats()["in_use"] == before
    finally:
        gc.enable()


def test_a_pickle_alone_keeps_nothing():
    data = pickle.dumps(kinfolk.shared_array(3))
    with pytest.raises(_kin.StaleReference, match="gone"):
        pickle.loads(data)


def test_a_message_keeps_it():
    queue = kinfolk.Queue()
    queue.put(kinfolk.share([1, 2, 3]))
    assert queue.get().tolist() == [1, 2, 3]
    queue.close()


def test_it_is_explained(array):
    explanation = kinfolk.explain({"array": array, "row": array[1], "new": array[[1]]})
    hows = {part.label: part.how for part in explanation.root.parts}
    assert hows == {"['array']": "by ref", "['row']": "by ref", "['new']": "copied"}
    assert "3 × 4" in explanation.root.parts[0].what
