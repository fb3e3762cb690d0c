"""Large payloads: what is copied, what is a view, who keeps it, and what deaths leave of it."""

import array
import os
import pickle
import resource
import signal
import threading
import time
import weakref

import pytest
from kin_children import blocks, forked, run_forked, used_queue

from kinfolk import _kin

OUT_OF_BAND = 32768
LARGE = 4 << 20  # from here on others run while bytes are copied
PAGE = resource.getpagesize()
PATIENCE = 60.0


@pytest.fixture
def queue():
    return used_queue()


def until(true):
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def pattern(length):
    return (bytes(range(251)) * (length // 251 + 1))[:length]


class Buffer:
    """Pickles like an array: its bytes go out of band if the pickler wants that."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Buffer, (pickle.PickleBuffer(self.data),)


# -- What arrives ----------------------------------------------------------------------------

SIZES = [OUT_OF_BAND - 1, OUT_OF_BAND, 65535, 65536, LARGE - 1, LARGE, LARGE + 4097]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("type", [bytes, bytearray])
def test_bytes_arrive_as_what_they_are(queue, type, size, balanced):
    payload = type(pattern(size))
    for wrapped in (payload, [payload], {"a": payload, "b": (1, payload)}):
        queue.put(wrapped)
        assert queue.get() == wrapped
    queue.put([payload, payload])
    first, second = queue.get()
    assert first is second
    assert first.__class__ is type


@pytest.mark.parametrize("size", SIZES)
def test_views_arrive_as_views(queue, size, balanced):
    for payload in (pattern(size), bytearray(pattern(size))):
        queue.put(memoryview(payload))
        view = queue.get()
        assert (type(view), view.readonly) == (memoryview, isinstance(payload, bytes))
        assert view == payload
        del view


def test_a_view_keeps_its_format_and_shape(queue, balanced):
    numbers = array.array("d", range(OUT_OF_BAND))
    grid = memoryview(numbers).cast("B").cast("d", (OUT_OF_BAND // 8, 8))
    queue.put(grid)
    view = queue.get()
    assert (view.format, view.shape, view[3, 1]) == ("d", grid.shape, 25.0)
    view[3, 1] = -1.0
    assert grid[3, 1] == 25.0
    del view


def test_a_slice_of_a_view(queue, balanced):
    whole = memoryview(bytearray(pattern(4 * OUT_OF_BAND)))
    for part in (whole[100 : 100 + OUT_OF_BAND], whole[::2], whole[::-1]):
        queue.put(part)
        view = queue.get()
        assert view.tobytes() == part.tobytes()
        del view


def test_numpy_arrays_share_one_blob(queue, balanced):
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.arange(5000.0) + i for i in range(20)]
    queue.put(arrays)
    received = queue.get()
    assert all((ours == theirs).all() for ours, theirs in zip(received, arrays, strict=True))
    assert all(ours.flags.writeable and not ours.flags.owndata for ours in received)
    received[3][:] = -1
    assert received[4][0] == 4.0
    del received


def test_pandas(queue, balanced):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": range(100_000), "b": [i * 0.5 for i in range(100_000)]})
    queue.put(frame)
    received = queue.get()
    assert received.equals(frame)
    received["c"] = received["a"] + 1
    assert received["c"].iloc[-1] == 100_000
    del received


def test_pyarrow(queue, balanced):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": range(100_000), "b": [f"row {i}" for i in range(100_000)]})
    queue.put(table)
    received = queue.get()
    assert received.equals(table)
    del received


# -- Nobody sees what is under way --------------------------------------------------------------


class Meddler:
    """Changes a bytearray when it is pickled."""

    pickled = 0

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        Meddler.pickled += 1
        self.data.clear()
        return str, ("meddled",)


@pytest.mark.parametrize("size", [100, 65536, LARGE])
def test_a_bytearray_is_what_it_was_when_it_was_met(queue, size):
    data = bytearray(pattern(size))
    Meddler.pickled = 0
    queue.put([data, Meddler(data)])
    assert queue.get() == [pattern(size), "meddled"]
    assert Meddler.pickled == 1
    assert not data


def test_a_bytearray_can_change_once_it_was_put(queue):
    data = bytearray(pattern(LARGE))
    queue.put(data)
    data[:5] = b"later"
    data.clear()
    assert queue.get() == pattern(LARGE)


def test_a_put_that_waits_for_room_holds_nothing_of_its_object():
    queue = _kin.Queue(1)
    queue.put(None)

    class Watched(bytearray):
        pass

    plain, watched = bytearray(pattern(LARGE)), Watched(pattern(LARGE))
    gone = weakref.ref(watched)
    buffer = Buffer(watched)
    del watched
    before = _kin.stats()["blocks"]
    thread = threading.Thread(target=queue.put, args=([plain, buffer],))
    thread.start()
    until(lambda: _kin.stats()["blocks"] > before)
    until(lambda: is_resizable(plain) and is_resizable(buffer.data))
    buffer.data = None
    assert gone() is None
    assert queue.get() is None
    first, second = queue.get()
    thread.join()
    assert (first, bytes(second.data)) == (pattern(LARGE), pattern(LARGE))


def is_resizable(data):
    try:
        data.append(0)
    except BufferError:
        return False
    return True


# -- Warm pages -----------------------------------------------------------------------------------


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.parametrize("kind", ["array", "memoryview"])
def test_no_fresh_pages_once_warm(kind):
    """A message in the blocks of earlier ones: no page is fetched or zeroed for it, on either side."""
    there, back, told = _kin.Queue(), _kin.Queue(), _kin.Queue()
    payload = memoryview(bytearray(LARGE))
    if kind == "array":
        payload = pytest.importorskip("numpy").ones(LARGE, "u1")
    rounds, warm_up = 20, 5

    def echo():
        for i in range(warm_up + rounds):
            if i == warm_up:
                before = faults()
            back.put(there.get())
        told.put(faults() - before)

    child = forked(echo)
    for i in range(warm_up + rounds):
        if i == warm_up:
            before = faults()
        there.put(payload)
        back.get()
    pages = rounds * LARGE // PAGE
    assert faults() - before < pages / 10
    assert told.get() < pages / 10
    assert child.exitcode() == 0


# -- Deaths -------------------------------------------------------------------------------------------


def hold_views(queue, ready):
    held = [queue.get() for _ in range(3)]
    assert all(bytes(view.data[:10]) == pattern(10) for view in held)
    ready.put(os.getpid())
    signal.pause()


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    assert child.exitcode() == -signal.SIGKILL


@pytest.mark.parametrize("size", [OUT_OF_BAND, LARGE])
def test_a_killed_receiver_gives_its_views_back(queue, size, balanced):
    ready = used_queue()
    child = forked(hold_views, queue, ready)
    before = blocks()
    for _ in range(3):
        queue.put(Buffer(bytearray(pattern(size))))
    assert ready.get() == child.pid
    assert blocks() >= before + 3
    kill(child)
    until(lambda: blocks() <= before)


def test_views_of_a_killed_parent_live_on_in_its_child(queue, balanced):
    """Both hold them: the death of one takes nothing from the other, nor do its changes show."""
    ready, go, answer = used_queue(), _kin.Event(), used_queue()

    def grandchild(held):
        go.wait()
        answer.put(bytes(held.data))

    def child():
        held = queue.get()
        forked(grandchild, held)
        held.data[:] = bytes(LARGE)
        ready.put(None)
        signal.pause()

    process = forked(child)
    queue.put(Buffer(bytearray(pattern(LARGE))))
    ready.get()
    kill(process)
    _kin.reap()
    queue.put(Buffer(bytearray(LARGE)))  # in a block that is free: not the one that is held
    go.set()
    assert answer.get() == pattern(LARGE)
    queue.get()


def test_a_killed_sender_leaves_what_it_has_put(queue, balanced):
    def child():
        for i in range(3):
            queue.put((i, Buffer(bytearray(pattern(LARGE)))))
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(child).exitcode() == -signal.SIGKILL
    _kin.reap()
    for i in range(3):
        number, received = queue.get()
        assert (number, bytes(received.data)) == (i, pattern(LARGE))
        del received


def test_a_sender_killed_while_it_waits_for_room(balanced):
    """Its blob is in its hands: the burial gives it back."""
    queue = _kin.Queue(1)
    queue.put(None)
    before = blocks()
    child = forked(queue.put, Buffer(bytearray(pattern(LARGE))))
    until(lambda: blocks() > before)
    kill(child)
    until(lambda: blocks() == before)
    assert queue.get() is None
    assert queue.qsize() == 0


def test_many_views_many_children(queue, balanced):
    """Each child keeps some, hands some on, and ends; nothing is left, nothing is mixed up."""
    answers = used_queue()

    def child(number):
        kept = []
        for i in range(10):
            queue.put(Buffer(bytearray(pattern(OUT_OF_BAND + number * 10 + i))))
            kept.append(queue.get())
        for held in kept:
            assert bytes(held.data) == pattern(len(held.data))
        answers.put(kept[number].data)

    children = [forked(child, number) for number in range(4)]
    for _ in children:
        view = answers.get()
        assert bytes(view) == pattern(len(view))
        del view
    assert [child.exitcode() for child in children] == [0] * 4
    run_forked(lambda: None)
