"""The family as kinfolk._kin shows it; Memory; the arena's limit; nothing leaks."""

import fcntl
import gc
import itertools
import os
import signal
import sys

import pytest
from kin_children import executed, forked, run_forked

from kinfolk import _kin


def fresh(code, **env):
    """What `code` prints in a new interpreter with these environment variables."""
    assignments = "".join(f"os.environ[{name!r}] = {value!r}\n" for name, value in env.items())
    return executed(f"import os\n{assignments}from kinfolk import _kin\n{code}")


def test_no_family_before_something_is_made():
    assert fresh("print(_kin.family_id(), _kin.member(), _kin.reap(), _kin.leave())") == (
        "None 0 0 None\n"
    )
    assert fresh("print(set(_kin.stats().values()))") == "{0}\n"
    assert fresh("_kin.Lock(); print(len(_kin.family_id()), _kin.member() > 0)") == "16 True\n"
    assert fresh("print(min(_kin.family_fds()) > 2, len(_kin.family_id()))") == "True 16\n"


def test_the_familys_descriptors_are_close_on_exec():
    fds = _kin.family_fds()
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
    assert _kin.family_fds() == fds


def test_objects_need_no_descriptors():
    _kin.Lock()
    before = len(os.listdir("/proc/self/fd"))
    objects = [cls() for cls in (_kin.Lock, _kin.RLock, _kin.Queue, _kin.Event) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    del objects


def test_a_forked_child_is_a_member_of_its_own():
    _kin.Lock()
    queue, parent, family = _kin.Queue(), _kin.member(), _kin.family_id()

    def child():
        assert _kin.family_id() == family
        assert _kin.member() != parent
        assert _kin.is_member_alive(parent)
        assert _kin.member_pid(parent) == os.getppid()
        queue.put(_kin.member())
        signal.pause()

    process = forked(child)
    token = queue.get()
    assert _kin.is_member_alive(token)
    assert _kin.member_pid(token) == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.exitcode()
    assert not _kin.is_member_alive(token)
    _kin.reap()
    assert _kin.member_pid(token) == 0


def test_tokens_that_never_were():
    assert not _kin.is_member_alive(0)
    assert not _kin.is_member_alive(2**40)
    assert _kin.member_pid(0) == 0
    for wrong in (-1, "1"):
        with pytest.raises((TypeError, OverflowError)):
            _kin.is_member_alive(wrong)


def test_joining_what_cannot_be_joined():
    code = """if True:
        read, write = os.pipe()
        for fd in (read, 1_000_000):
            try:
                _kin.join_family(fd, fd)
            except (RuntimeError, OSError) as error:
                print(type(error).__name__)
        _kin.Lock()
        try:
            _kin.join_family(*_kin.family_fds())
        except RuntimeError as error:
            print("member" in str(error))
    """
    first, second, third = fresh(code).splitlines()
    assert first == "RuntimeError"
    assert second in ("RuntimeError", "OSError")
    assert third == "True"


def test_after_leaving_what_is_held_can_be_used_but_nothing_made():
    def child():
        lock, queue = _kin.Lock(), _kin.Queue()
        _kin.leave()
        _kin.leave()
        assert lock.acquire()
        assert queue.empty()
        for make in (_kin.Lock, lambda: _kin.pack(1)):
            with pytest.raises(RuntimeError):
                make()

    run_forked(child)


def test_a_lock_that_is_held_at_the_end_stays_held():
    lock = _kin.Lock()

    def child():
        lock.acquire()
        _kin.leave()

    run_forked(child)
    assert lock.acquire(False) is False
    lock.release()


def test_what_the_dead_held_is_given_back():
    gc.collect()
    _kin.Lock()
    before = _kin.stats()

    def child():
        held = [_kin.Lock() for _ in range(50)], _kin.pack(bytes(100_000)), _kin.Queue()
        held[2].put(bytes(200_000))
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(child).exitcode() == -signal.SIGKILL
    assert _kin.reap() >= 0
    after = _kin.stats()
    assert (after["in_use"], after["blocks"]) == (before["in_use"], before["blocks"])
    assert after["members"] == before["members"]


# -- Memory ---------------------------------------------------------------------------------


def test_memory_is_a_zeroed_writable_buffer():
    memory = _kin.Memory(1000)
    assert len(memory) == 1000
    view = memoryview(memory)
    assert (view.nbytes, view.readonly, view.format) == (1000, False, "B")
    assert bytes(view) == bytes(1000)
    view[999] = 9

    def child():
        assert memoryview(memory)[999] == 9
        memoryview(memory)[0] = 7

    run_forked(child)
    assert view[0] == 7
    assert "len=1000" in repr(memory)


def test_a_view_keeps_the_memory():
    view = memoryview(_kin.Memory(100))
    gc.collect()
    others = [memoryview(_kin.Memory(100)) for _ in range(50)]
    for other in others:
        other[:] = b"o" * 100
    assert bytes(view) == bytes(100)


@pytest.mark.parametrize("args", [(), ("4",), (4, 4)])
def test_memory_of_no_length(args):
    with pytest.raises(TypeError):
        _kin.Memory(*args)


def test_memory_of_negative_length():
    with pytest.raises(ValueError):
        _kin.Memory(-1)
    with pytest.raises(BufferError):
        memoryview(_kin.Memory.__new__(_kin.Memory))


# -- The limit ---------------------------------------------------------------------------------


def test_a_put_that_does_not_fit_raises_and_the_queue_goes_on():
    code = """if True:
        queue = _kin.Queue()
        queue.put("first")
        count = 0
        try:
            while True:
                queue.put(bytes(1 << 20))
                count += 1
        except MemoryError as error:
            assert "KINFOLK_ARENA_LIMIT" in str(error), error
            assert "64.0 MiB" in str(error), error
        assert 40 <= count < 64, count
        assert queue.get() == "first"
        assert sum(len(queue.get()) for _ in range(count)) == count << 20
        queue.put(bytes(1 << 20))
        assert len(queue.get()) == 1 << 20
        try:
            _kin.Memory(1 << 50)
        except MemoryError:
            print("went on")
    """
    assert fresh(code, KINFOLK_ARENA_LIMIT="64M") == "went on\n"


# -- Leaks ---------------------------------------------------------------------------------------


class Thing:
    pass


def a_put_and_get(queue):
    for obj in (
        1,
        2**70,
        "text",
        "ü" * 20_000,
        (1, [2]),
        Thing(),
        bytes(70_000),
        bytearray(90_000),
    ):
        queue.put(obj)
        queue.get()


def refs_there_and_back(queue):
    queue.put([_kin.Lock(), _kin.Queue(), Thing()])
    queue.get()


def failures(queue):
    for call in (
        lambda: queue.get(False),
        lambda: queue.put(1, 2, 3, 4),
        lambda: queue.put([_kin.Lock(), (nothing for nothing in ())]),
        lambda: _kin.Lock().release(),
        lambda: _kin.claim(b""),
    ):
        with pytest.raises(Exception):  # noqa: B017
            call()


def made_and_dropped(queue):
    for cls in (_kin.Lock, _kin.RLock, _kin.Semaphore, _kin.Event, _kin.Queue):
        cls().__reduce__()
    memoryview(_kin.Memory(100))
    _kin.pack([queue, bytes(100_000)]).load()
    _kin.stats()


@pytest.mark.parametrize("case", [a_put_and_get, refs_there_and_back, failures, made_and_dropped])
def test_nothing_leaks(case):
    """Neither Python's blocks of memory nor the arena's grow with the number of calls."""
    queue = _kin.Queue()

    def run():
        for _ in range(100):
            case(queue)
        gc.collect()
        return sys.getallocatedblocks(), _kin.stats()["blocks"]

    run()
    sizes = [run() for _ in range(8)]
    # Free lists and caches fill up at first; a block for each call would be in every round.
    grown = [after[0] - before[0] for before, after in itertools.pairwise(sizes)]
    assert min(grown) < 100, grown
    assert sizes[-1][1] == sizes[0][1]
