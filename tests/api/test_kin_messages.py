"""What messages are made of: atoms, plain data, everything else, large buffers; Blob."""

import gc
import pickle
import pickletools
import random
import subprocess
import sys

import pytest
from kin_children import executed, forked, run_forked, used_queue

from kinfolk import _kin

RECORD_MAX = 8192
OUT_OF_BAND = 32768

INTS = [sign * 2**bits + step for bits in range(66) for sign in (1, -1) for step in (-1, 0, 1)]
ATOMS = [
    None,
    True,
    False,
    *INTS[::25],
    10**40,
    0.0,
    -0.0,
    1.5,
    5e-324,
    float("inf"),
    "",
    "a",
    "z" * 255,
    "z" * 256,
    "é",
    "\ud800",
    "漢字" * 5000,
    b"",
    b"\0",
    b"b" * 255,
    b"b" * 256,
    bytearray(b"xyz"),
]
# On both sides of what is copied through the queue, and of what is laid out of band.
EDGES = sorted(
    {edge + step for edge in (255, RECORD_MAX, OUT_OF_BAND, 1 << 20) for step in range(-12, 13)}
)


@pytest.fixture
def queue():
    return used_queue()


def there_and_back(queue, obj):
    queue.put(obj)
    received = queue.get()
    assert type(received) is type(obj)
    return received


@pytest.mark.parametrize("atom", ATOMS, ids=lambda atom: repr(atom)[:20])
def test_atoms(queue, atom):
    received = there_and_back(queue, atom)
    assert received == atom
    assert repr(received) == repr(atom)  # the sign of zero


def test_integers_of_any_size(queue):
    for number in INTS:
        assert there_and_back(queue, number) == number


def test_nan(queue):
    assert str(there_and_back(queue, float("nan"))) == "nan"


@pytest.mark.parametrize("make", [bytes, bytearray, lambda n: "t" * n, lambda n: "ü" * n])
def test_strings_of_any_length(queue, make, balanced):
    for length in EDGES:
        assert there_and_back(queue, make(length)) == make(length)
        assert there_and_back(queue, (1, make(length))) == (1, make(length))


@pytest.mark.parametrize(
    "obj", [atom for atom in ATOMS if type(atom) in (type(None), bool, int, float, str, bytes)]
)
def test_what_is_pickled_by_hand_is_a_pickle(obj):
    """The bytes in the blob, behind its head of 16 bytes, are read by any unpickler."""
    blob = _kin.pack(obj)
    written = bytes(blob)[16:]
    assert repr(pickle.loads(written)) == repr(obj)
    pickletools.dis(written, out=open("/dev/null", "w"))  # noqa: SIM115


class SubInt(int):
    pass


class SubStr(str):
    pass


class SubList(list):
    pass


class SubDict(dict):
    pass


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x


@pytest.mark.parametrize(
    "obj",
    [
        (),
        [],
        {},
        set(),
        frozenset(),
        (1, [2, {3: (4.0, "five", b"six", None)}], {7}, frozenset({8})),
        SubInt(3),
        SubStr("s"),
        SubList([1]),
        SubDict(a=1),
        [SubInt(3), {SubStr("s"): SubList([1])}],
        Point(3),
        {"point": [Point(3)]},
        complex(1, 2),
        range(5),
        Point,
        len,
        ...,
    ],
    ids=repr,
)
def test_objects(queue, obj):
    assert there_and_back(queue, obj) == obj


def test_types_inside_containers_are_kept(queue):
    received = there_and_back(queue, [SubInt(3), {SubStr("s"): SubList([1])}, True])
    assert [type(item) for item in received] == [SubInt, dict, bool]
    assert type(next(iter(received[1]))) is SubStr


def test_identity_inside_a_message(queue):
    inner = [1]
    first, second, third = there_and_back(queue, [inner, inner, {"again": inner}])
    assert first is second is third["again"]


def test_recursion(queue):
    loop = [1]
    loop.append(loop)
    received = there_and_back(queue, loop)
    assert received[1] is received


def test_deep_and_wide_data(queue):
    deep = None
    for _ in range(200):
        deep = [deep, {"k": deep}] if deep is None else [deep]
    assert there_and_back(queue, deep) == deep
    wide = list(range(50_000))
    assert there_and_back(queue, wide) == wide
    assert there_and_back(queue, dict.fromkeys(wide)) == dict.fromkeys(wide)


def test_random_plain_data(queue):
    rng = random.Random(5)

    def tree(depth):
        kind = rng.randrange(9 if depth else 5)
        items = lambda: [tree(depth - 1) for _ in range(rng.randrange(5))]  # noqa: E731
        keys = lambda: [rng.randrange(100) for _ in range(rng.randrange(5))]  # noqa: E731
        makers = [
            lambda: rng.choice([None, True, False]),
            lambda: rng.randrange(-(2 ** rng.randrange(70)), 2 ** rng.randrange(1, 70)),
            lambda: rng.random() * 10 ** rng.randrange(-300, 300),
            lambda: "".join(rng.choices("abcé漢", k=rng.randrange(40))),
            lambda: rng.randbytes(rng.randrange(40)),
            items,
            lambda: tuple(items()),
            lambda: {key: tree(depth - 1) for key in keys()},
            lambda: set(keys()),
        ]
        return makers[kind]()

    for _ in range(500):
        obj = tree(4)
        queue.put(obj)
        assert queue.get() == obj


class Counting:
    pickled = 0

    def __reduce__(self):
        Counting.pickled += 1
        return Counting, ()


def test_user_code_runs_once(queue):
    for padding in (b"", bytes(10_000), bytes(100_000)):
        Counting.pickled = 0
        queue.put([Counting(), padding])
        assert Counting.pickled == 1
        queue.get()


def test_reducers_that_the_program_registered(queue):
    from kinfolk.reduction import ForkingPickler

    class Local:
        pass

    ForkingPickler.register(Local, lambda local: (str, ("registered",)))
    try:
        queue.put([Local()])
        assert queue.get() == ["registered"]
    finally:
        del ForkingPickler._extra_reducers[Local]


# -- Large buffers --------------------------------------------------------------------


class Buffer:
    """Pickles like an array: its bytes go out of band if the pickler wants that."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Buffer, (pickle.PickleBuffer(self.data),)


@pytest.mark.parametrize("length", [0, 10, OUT_OF_BAND - 1, OUT_OF_BAND, OUT_OF_BAND + 7, 1 << 21])
def test_buffers(queue, length, balanced):
    data = bytearray(random.Random(length).randbytes(length))
    queue.put(Buffer(data))
    received = queue.get()
    assert bytes(received.data) == data
    assert not memoryview(received.data).readonly
    del received


def test_a_large_buffer_is_mapped_and_writable(queue, balanced):
    queue.put(Buffer(bytearray(OUT_OF_BAND)))
    view = memoryview(queue.get().data)
    assert isinstance(view.obj, _kin.Blob)
    view[5] = 5
    assert view[5] == 5
    del view


def test_a_read_only_buffer_stays_so(queue, balanced):
    queue.put(Buffer(bytes(OUT_OF_BAND)))
    view = memoryview(queue.get().data)
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    del view


def test_several_buffers_in_one_message(queue, balanced):
    rng = random.Random(1)
    buffers = [Buffer(rng.randbytes(OUT_OF_BAND + rng.randrange(1000))) for _ in range(9)]
    queue.put(("all of them", buffers))
    received = queue.get()[1]
    assert [bytes(buffer.data) for buffer in received] == [buffer.data for buffer in buffers]
    first = received[0]
    del received
    assert bytes(first.data) == buffers[0].data
    del first


def test_a_view_outlives_the_queue_and_the_sender(balanced):
    queue = _kin.Queue()
    run_forked(queue.put, Buffer(bytearray(b"x" * OUT_OF_BAND)))
    view = memoryview(queue.get().data)
    del queue
    gc.collect()
    _kin.reap()
    assert bytes(view) == b"x" * OUT_OF_BAND
    del view


def test_a_forked_child_holds_received_buffers_too(queue):
    queue.put(Buffer(bytearray(b"a" * OUT_OF_BAND)))
    received, go = [queue.get()], _kin.Event()

    def child():
        go.wait()
        assert bytes(received[0].data) == b"a" * OUT_OF_BAND

    process = forked(child)
    received.clear()
    for _ in range(10):
        queue.put(Buffer(bytearray(b"b" * OUT_OF_BAND)))
    go.set()
    assert process.exitcode() == 0


def test_what_parent_and_child_do_to_a_received_buffer_is_their_own_business(queue, balanced):
    size = 3 * OUT_OF_BAND
    queue.put(Buffer(bytearray(b"a" * size)))
    data = memoryview(queue.get().data)
    data[0] = data[-1] = ord("b")
    turn = _kin.Event()

    def grandchild():
        assert bytes(data) == b"b" + b"c" * 100 + b"a" * (size - 102) + b"b"
        data[:] = b"g" * size

    def child():
        turn.wait()
        assert bytes(data) == b"b" + b"a" * (size - 2) + b"b"
        data[1:101] = b"c" * 100
        run_forked(grandchild)
        assert bytes(data) == b"b" + b"c" * 100 + b"a" * (size - 102) + b"b"

    process = forked(child)
    data[5:] = b"p" * (size - 5)
    turn.set()
    assert process.exitcode() == 0
    assert bytes(data) == b"baaaa" + b"p" * (size - 5)
    run_forked(lambda: data[:5] == b"baaaa" or 1 / 0)
    assert bytes(data) == b"baaaa" + b"p" * (size - 5)
    del data, child, grandchild


def test_what_was_split_by_a_fork_is_shared_memory_again_afterwards(queue):
    """The next messages lie in the same blocks, and are seen by the others."""
    echo = used_queue()

    def child():
        kept = queue.get()
        run_forked(lambda: None)  # splits it
        del kept
        for _ in range(20):
            echo.put(queue.get())

    process = forked(child)
    for i in range(21):
        queue.put(Buffer(bytearray([i]) * OUT_OF_BAND))
    for i in range(1, 21):
        assert bytes(echo.get().data) == bytes([i]) * OUT_OF_BAND
    assert process.exitcode() == 0


def test_numpy_arrays(queue):
    numpy = pytest.importorskip("numpy")
    for array in (
        numpy.arange(5),
        numpy.arange(100_000),
        numpy.asfortranarray(numpy.arange(90_000).reshape(300, 300)),
        numpy.arange(100_000)[::2],
        numpy.array(["x", None], dtype=object),
    ):
        queue.put(array)
        received = queue.get()
        assert (received == array).all()
        assert received.flags.writeable
        assert received.strides == array.strides or not array.flags.contiguous


# -- Blob --------------------------------------------------------------------------------


def test_pack_and_load(balanced):
    blob = _kin.pack(("obj", [1, 2]))
    assert len(blob) == len(memoryview(blob)) > 0
    assert isinstance(blob.ref, bytes)
    assert len(blob.ref) < 64
    assert blob.load() == ("obj", [1, 2])
    assert blob.load() == ("obj", [1, 2])
    blob.close()
    blob.close()
    assert len(blob) == 0
    assert "closed" in repr(blob)
    for use in (blob.load, lambda: blob.ref, lambda: memoryview(blob)):
        with pytest.raises(ValueError):
            use()


def test_a_blob_with_views_is_not_closed(balanced):
    blob = _kin.pack(1)
    view = memoryview(blob)
    with pytest.raises(BufferError):
        blob.close()
    view.release()
    blob.close()


def test_a_blob_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        _kin.Blob()


def test_a_child_claims_what_its_parent_packed(balanced):
    blob = _kin.pack({"work": bytes(100_000)})

    def child():
        claimed = _kin.claim(blob.ref)
        assert claimed.load() == {"work": bytes(100_000)}

    run_forked(child)
    with pytest.raises(LookupError):
        _kin.claim(blob.ref)
    blob.close()


def test_claiming_what_is_gone():
    blob = _kin.pack(1)
    ref = blob.ref
    blob.close()
    with pytest.raises(LookupError):
        _kin.claim(ref)
    with pytest.raises(TypeError):
        _kin.claim(ref[:-1])
    with pytest.raises(TypeError):
        _kin.claim(None)
    with pytest.raises(ValueError):
        _kin.claim(_kin.Lock().ref)


def test_a_blob_that_is_no_message():
    blob = _kin.pack("x" * 100)
    memoryview(blob)[:4] = b"????"
    with pytest.raises(ValueError, match="no message"):
        blob.load()


@pytest.mark.parametrize("at, value", [(4, 2**32 - 1), (8, 2**64 - 1), (8, 10**6)])
def test_a_torn_head_is_noticed(at, value):
    blob = _kin.pack(Buffer(bytes(OUT_OF_BAND)))
    memoryview(blob)[at : at + 8] = value.to_bytes(8, "little")
    with pytest.raises(ValueError, match="no message"):
        blob.load()


def test_an_executed_child_joins_and_claims():
    blob = _kin.pack(["hello", _kin.Semaphore(3)])
    code = """if True:
        import sys
        from kinfolk import _kin
        _kin.join_family(int(sys.argv[1]), int(sys.argv[2]))
        word, semaphore = _kin.claim(bytes.fromhex(sys.argv[3])).load()
        semaphore.acquire()
        print(word, semaphore.get_value())
    """
    fds = _kin.family_fds()
    assert executed(code, *fds, blob.ref.hex(), pass_fds=fds) == "hello 2\n"


def test_reducers_that_cannot_be_learnt():
    """A failure before the pickler has begun is an error like any other."""
    program = """
import kinfolk.reduction as reduction
from kinfolk import _kin

def fail():
    raise LookupError("not now")

reduction.late_reducers = {"sys": {}}
reduction.learn_late_reducers = fail
queue = _kin.Queue()
for thing in [1], {2: 3}, object():
    try:
        queue.put(thing)
    except LookupError as error:
        assert str(error) == "not now"
    else:
        raise AssertionError
queue.put(1)
assert queue.get() == 1 and queue.qsize() == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
