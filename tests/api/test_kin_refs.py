"""Refs: shared objects pickle at any time, travel inside anything, and are kept while they do."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref

import pytest
from kin_children import blocks, executed, forked, run_forked, used_queue

from kinfolk import _kin

MAKERS = {
    "Lock": _kin.Lock,
    "RLock": _kin.RLock,
    "Semaphore": lambda: _kin.Semaphore(3, 7),
    "Event": _kin.Event,
    "Queue": lambda: _kin.Queue(5),
    "Memory": lambda: _kin.Memory(100),
}


@pytest.fixture(params=MAKERS)
def shared(request):
    return MAKERS[request.param]()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_any_pickle_at_any_time(shared, protocol):
    loaded = pickle.loads(pickle.dumps([shared, shared], protocol))
    assert loaded[0] is loaded[1]
    assert loaded[0] is not shared
    assert type(loaded[0]) is type(shared)
    assert loaded[0].ref == shared.ref


def test_the_python_pickler_and_copy(shared):
    assert pickle._loads(pickle._dumps(shared)).ref == shared.ref
    assert copy.copy(shared).ref == shared.ref
    assert copy.deepcopy([shared])[0].ref == shared.ref


def test_what_is_loaded_is_the_same_object():
    lock = _kin.Lock()
    again = pickle.loads(pickle.dumps(lock))
    lock.acquire()
    assert again.locked()
    again.release()
    assert not lock.locked()
    queue = _kin.Queue()
    pickle.loads(pickle.dumps(queue)).put("hello")
    assert queue.get_nowait() == "hello"


class Named(_kin.Queue):
    """As the Python face does it: another signature, attributes of its own."""

    def __init__(self, name, *, maxsize=0):
        super().__init__(maxsize)
        self.name = name


class Slotted(_kin.Lock):
    __slots__ = ("where",)


class Choosy(_kin.Lock):
    def __getstate__(self):
        return {"kept": self.kept}


def test_subclasses_come_back_as_such():
    original = Named("letters", maxsize=2)
    queue = pickle.loads(pickle.dumps(original))
    assert type(queue) is Named
    assert queue.name == "letters"
    assert queue.maxsize == 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="object.__getstate__ is of 3.11")
def test_slots_travel():
    lock = Slotted()
    lock.where = "here"
    assert pickle.loads(pickle.dumps(lock)).where == "here"


def test_getstate_is_asked():
    lock = Choosy()
    lock.kept, lock.dropped = 1, threading.Lock()
    again = pickle.loads(pickle.dumps(lock))
    assert again.kept == 1
    assert not hasattr(again, "dropped")


def test_a_subclass_may_be_collected(shared):
    cls = type("Sub", (type(shared),), {})
    args = {"Semaphore": (1,), "Memory": (8,)}.get(type(shared).__name__, ())
    sub = cls(*args)
    sub.itself = sub
    alive = weakref.ref(sub)
    before = blocks()
    del sub
    assert blocks() == before - 1
    assert alive() is None


def test_weak_references(shared):
    gone = []
    weak = weakref.ref(shared, gone.append)
    assert weak() is shared
    del shared
    gc.collect()


def test_a_weak_reference_is_told():
    lock, gone = _kin.Lock(), []
    weak = weakref.ref(lock, gone.append)
    del lock
    assert gone == [weak]


# -- In flight -----------------------------------------------------------------------------


def test_through_a_queue(shared):
    queue = _kin.Queue()
    ref = shared.ref
    queue.put({"deep": [shared]})
    del shared
    gc.collect()
    assert queue.get()["deep"][0].ref == ref


def test_a_message_keeps_what_it_mentions():
    queue = used_queue()
    before = blocks()
    queue.put([_kin.Lock() for _ in range(20)])
    assert _kin.stats()["objects"] >= 20
    locks = queue.get()
    assert all(lock.acquire(False) for lock in locks)
    del locks
    assert blocks() == before


def test_a_message_that_is_dropped_lets_go():
    before = blocks()
    queue = _kin.Queue()
    queue.put(_kin.Queue())
    del queue
    assert blocks() == before


def test_pack_keeps_what_it_mentions():
    before = blocks()
    blob = _kin.pack((_kin.Event(), "x"))
    assert blob.load()[0].is_set() is False
    blob.close()
    assert blocks() == before


def test_a_queue_through_a_queue_to_a_process_that_was_there_before():
    letters, results = _kin.Queue(), _kin.Queue()

    def child():
        queue = letters.get()
        results.put(queue.get())

    process = forked(child)
    late = _kin.Queue()
    letters.put(late)
    late.put("made after the process was")
    assert results.get() == "made after the process was"
    assert process.exitcode() == 0


def test_the_sender_may_be_gone():
    queue = _kin.Queue()

    def child():
        inner = _kin.Queue()
        inner.put(42)
        queue.put(inner)

    run_forked(child)
    _kin.reap()
    assert queue.get().get_nowait() == 42


class PutsWhilePickled:
    """Its __reduce__ sends a message of its own, with an object of its own."""

    def __init__(self, queue):
        self.queue = queue

    def __reduce__(self):
        self.queue.put([_kin.Semaphore(2)])
        return str, ("reduced",)


def test_messages_inside_messages():
    outer, inner = used_queue(), used_queue()
    before = blocks()
    outer.put([PutsWhilePickled(inner), _kin.Semaphore(1)])
    gc.collect()
    assert inner.get()[0].get_value() == 2
    word, semaphore = outer.get()
    assert (word, semaphore.get_value()) == ("reduced", 1)
    del semaphore
    assert blocks() == before


def test_threads_do_not_mix_up_what_their_messages_mention():
    queues = [used_queue() for _ in range(4)]
    before = blocks()

    def send(queue, value):
        for _ in range(200):
            queue.put([_kin.Semaphore(value), Named(str(value))])
            semaphore, named = queue.get()
            assert (semaphore.get_value(), named.name) == (value, str(value))

    failures = []
    threads = [
        threading.Thread(target=lambda *args: failures.append(send(*args)), args=(queue, value))
        for value, queue in enumerate(queues, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [None] * 4
    assert blocks() == before


class Refuses:
    def __reduce__(self):
        raise KeyError("refused")


def test_a_failed_put_keeps_nothing():
    queue = used_queue()
    before = blocks()
    with pytest.raises(KeyError):
        queue.put([_kin.Lock(), Refuses()])
    assert blocks() == before
    # and what is pickled outside of a put is not noted anywhere
    pickle.dumps(_kin.Lock())
    assert blocks() == before


# -- What is refused ---------------------------------------------------------------------------


def test_a_stale_reference():
    pickled = pickle.dumps(_kin.Lock())
    gc.collect()
    with pytest.raises(_kin.StaleReference, match="gone"):
        pickle.loads(pickled)
    assert issubclass(_kin.StaleReference, (LookupError, RuntimeError))
    assert issubclass(_kin.StaleReference, LookupError)


def test_a_stale_reference_never_names_a_new_object():
    pickled = pickle.dumps(_kin.Lock())
    locks = [_kin.Lock() for _ in range(100)]
    with pytest.raises(_kin.StaleReference):
        pickle.loads(pickled)
    del locks


def test_a_process_that_is_no_member():
    code = """if True:
        import pickle, sys
        from kinfolk import _kin
        pickled = bytes.fromhex(sys.argv[1])
        for _ in range(2):
            try:
                pickle.loads(pickled)
            except RuntimeError as error:
                print(error)
            _kin.Lock()     # founds a family of its own
    """
    queue = _kin.Queue()
    pickled = pickle.dumps(queue)
    none, other = executed(code, pickled.hex()).splitlines()
    family = _kin.family_id().hex()[:8]
    for text in (none, other):
        assert "this kinfolk._kin.Queue" in text
        assert family in text
        assert "os.fork()" in text
    assert "is a member of none" in none
    assert "belongs to another one" in other


def test_wrong_calls_of_open():
    ref = _kin.Lock().ref
    lock = _kin.Lock()
    for args in ((), (_kin.Lock,), (int, ref), (_kin.Lock, "text"), (_kin.Lock, b"short")):
        with pytest.raises(TypeError):
            _kin._open(*args)
    with pytest.raises(ValueError, match="does not name"):
        _kin._open(_kin.Queue, lock.ref)
    with pytest.raises(ValueError, match="does not name"):
        _kin._open(_kin.Shared, lock.ref)


def test_shared_is_only_a_base(shared):
    assert isinstance(shared, _kin.Shared)
    with pytest.raises(TypeError):
        _kin.Shared()


def test_types_cannot_be_changed():
    with pytest.raises(TypeError):
        _kin.Lock.acquire = None


def test_the_module_in_a_second_interpreter():
    """State is the module's, not the process's: a second copy of it works beside the first."""
    code = """if True:
        import importlib.util, sys
        from kinfolk import _kin
        spec = importlib.util.spec_from_file_location("kinfolk._kin", _kin.__file__)
        second = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(second)
        assert second is not _kin and second.Lock is not _kin.Lock
        assert second.family_id() == _kin.family_id()
        lock = second.Lock()
        with lock:
            assert _kin._open(_kin.Lock, lock.ref).locked()
        print("both")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "both\n", done.stderr
