"""Lock, RLock, Semaphore and Event of kinfolk._kin: in threads, in forked children, after a kill."""

import os
import signal
import threading
import time

import pytest
from kin_children import forked, run_forked

from kinfolk import _kin

LOCKS = {"Lock": _kin.Lock, "RLock": _kin.RLock, "Semaphore": lambda: _kin.Semaphore(1, 1)}


@pytest.fixture(params=LOCKS)
def lock(request):
    return LOCKS[request.param]()


def in_thread(function, *args):
    """The result of function(*args) in another thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    thread.join()
    return results[0]


def test_acquire_and_release(lock):
    assert lock.acquire() is True
    assert lock.locked()
    assert lock.get_value() == lock._get_value() == 0
    assert lock._is_zero()
    assert lock.release() is None
    assert not lock.locked()
    assert lock.get_value() == 1


def test_a_held_lock_is_refused_to_others(lock):
    lock.acquire()
    assert in_thread(lock.acquire, False) is False
    assert in_thread(lock.acquire, True, 0) is False
    assert in_thread(lock.acquire, True, -5) is False
    assert in_thread(lambda: lock.acquire(timeout=0.01)) is False
    assert in_thread(lambda: lock.acquire(block=False, timeout=100)) is False
    lock.release()


def test_with(lock):
    with lock as entered:
        assert entered is True
        assert lock.locked()
    assert not lock.locked()
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert not lock.locked()


@pytest.mark.parametrize(
    "args, kwds",
    [
        ((1, 2, 3), {}),
        ((), {"blocking": True}),
        ((True,), {"block": True}),
        ((True, "soon"), {}),
    ],
)
def test_wrong_arguments(lock, args, kwds):
    with pytest.raises(TypeError):
        lock.acquire(*args, **kwds)
    assert not lock.locked()


def test_a_timeout_that_is_no_number(lock):
    with pytest.raises(ValueError):
        lock.acquire(timeout=float("nan"))
    assert lock.acquire(timeout=float("inf"))


def test_a_class_takes_no_surplus_arguments():
    for make in (_kin.Lock, _kin.RLock, _kin.Event):
        with pytest.raises(TypeError):
            make(1)


def test_a_waiting_thread_gets_the_lock(lock):
    lock.acquire()
    got = []
    thread = threading.Thread(target=lambda: got.append(lock.acquire() and lock.release()))
    thread.start()
    lock.release()
    thread.join()
    assert got == [None]


def test_a_waiting_child_gets_the_lock(lock):
    ready = _kin.Event()
    lock.acquire()

    def child():
        ready.set()
        assert lock.acquire()
        lock.release()

    process = forked(child)
    ready.wait()
    lock.release()
    assert process.exitcode() == 0


def test_mutual_exclusion_between_processes(lock):
    counter = _kin.Memory(8)
    view = memoryview(counter).cast("q")

    def count():
        for _ in range(2000):
            with lock:
                view[0] = view[0] + 1

    children = [forked(count) for _ in range(3)]
    assert [child.exitcode() for child in children] == [0, 0, 0]
    assert view[0] == 6000


def test_a_signal_handler_interrupts_the_wait(lock):
    class Rang(Exception):
        pass

    def ring(signum, frame):
        raise Rang

    in_thread(lock.acquire)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Rang):
            # Again and again: one that comes before the wait began does not count.
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            lock.acquire()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert lock.locked()


def test_a_signal_handler_that_returns_does_not_end_the_wait(lock):
    rung = []
    in_thread(lock.acquire)
    before = signal.signal(signal.SIGALRM, lambda signum, frame: rung.append(signum))
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert lock.acquire(timeout=0.1) is False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung
    assert time.monotonic() - start >= 0.1


# -- Each kind's own ---------------------------------------------------------------


def test_anyone_may_release_a_lock():
    lock = _kin.Lock()
    lock.acquire()
    in_thread(lock.release)
    lock.acquire()
    run_forked(lock.release)
    assert lock.acquire(False)


def test_a_lock_released_too_often():
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        _kin.Lock().release()


def test_an_rlock_may_be_taken_again_by_its_thread_only():
    lock = _kin.RLock()
    assert lock.acquire()
    assert lock.acquire(False)
    assert lock._count() == 2
    assert lock._is_mine()
    assert not in_thread(lock._is_mine)
    assert not in_thread(lock.acquire, False)
    lock.release()
    assert not in_thread(lock.acquire, False)
    lock.release()
    assert in_thread(lock.acquire, False)


def test_an_rlock_released_by_another():
    lock = _kin.RLock()
    text = "attempt to release recursive lock not owned by thread"
    with pytest.raises(AssertionError, match=text):
        lock.release()
    in_thread(lock.acquire)
    with pytest.raises(AssertionError, match=text):
        lock.release()


def test_a_forked_child_does_not_own_its_parents_rlock():
    lock = _kin.RLock()

    def child():
        assert not lock._is_mine()
        assert not lock.acquire(False)
        with pytest.raises(AssertionError):
            lock.release()

    with lock:
        run_forked(child)


def test_a_semaphore_counts():
    semaphore = _kin.Semaphore(2)
    assert semaphore.maxvalue == _kin.SEM_VALUE_MAX
    assert [semaphore.acquire(False) for _ in range(3)] == [True, True, False]
    assert semaphore._count() == 2
    semaphore.release()
    semaphore.release()
    semaphore.release()
    assert semaphore.get_value() == 3


def test_a_semaphore_with_a_bound():
    semaphore = _kin.Semaphore(1, 2)
    assert semaphore.maxvalue == 2
    semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    assert semaphore.get_value() == 2


@pytest.mark.parametrize("args", [(-1,), (2, 1), (1, 2**31), (2**40,)])
def test_a_semaphore_that_cannot_be(args):
    with pytest.raises(ValueError):
        _kin.Semaphore(*args)


def test_a_semaphores_count_is_this_process_own():
    semaphore = _kin.Semaphore(3)
    semaphore.acquire()

    def child():
        assert semaphore._count() == 0
        semaphore.acquire()
        assert semaphore._count() == 1

    run_forked(child)
    assert semaphore._count() == 1
    assert semaphore.get_value() == 1


def test_an_event():
    event = _kin.Event()
    assert not event.is_set()
    assert event.wait(0) is False
    assert event.wait(timeout=0.01) is False
    event.set()
    event.set()
    assert event.is_set()
    assert event.wait() is True
    event.clear()
    assert event.wait(-1) is False


def test_an_event_lets_all_go_who_wait():
    event, ready = _kin.Event(), _kin.Semaphore(0)

    def child():
        ready.release()
        assert event.wait()

    children = [forked(child) for _ in range(3)]
    for _ in children:
        ready.acquire()
    event.set()
    assert [process.exitcode() for process in children] == [0, 0, 0]


def test_what_was_never_initialised_says_so():
    for cls in (_kin.Lock, _kin.RLock, _kin.Semaphore, _kin.Event, _kin.Queue):
        bare = cls.__new__(cls)
        assert "not initialised" in repr(bare)
        with pytest.raises(RuntimeError, match="__init__"):
            bare.__reduce__()
    with pytest.raises(RuntimeError, match="__init__"):
        _kin.Lock.__new__(_kin.Lock).acquire()
    with pytest.raises(RuntimeError, match="already"):
        _kin.Lock().__init__()


@pytest.mark.parametrize("make", [_kin.Lock, _kin.RLock])
def test_the_lock_of_a_killed_process_is_handed_on_marked(make):
    lock, taken = make(), _kin.Event()
    assert lock.owner_died is None

    def child():
        lock.acquire()
        taken.set()
        signal.pause()

    process = forked(child)
    taken.wait()
    assert lock.acquire(False) is False
    os.kill(process.pid, signal.SIGKILL)
    assert process.exitcode() == -signal.SIGKILL
    told = rf"process {process.pid} \(.*test_kin_sync.py:\d+ in child\) was killed while it held"
    with pytest.warns(RuntimeWarning, match=told):
        assert lock.acquire(timeout=60) is True
    assert lock.owner_died == process.pid
    lock.release()
    assert lock.acquire(False) is True
    lock.release()


@pytest.mark.filterwarnings("error")
def test_where_the_warning_is_an_error_the_lock_is_not_taken():
    lock = _kin.Lock()
    assert forked(lambda: (lock.acquire(), os.kill(os.getpid(), signal.SIGKILL))).exitcode() == -9
    with pytest.raises(RuntimeWarning):
        lock.acquire()
    assert not lock.locked()
    assert lock.acquire(False) is True


def test_reprs():
    lock = _kin.Lock()
    assert repr(lock) == "<Lock(owner=None)>"
    lock.acquire()
    assert repr(lock) == "<Lock(owner=MainProcess)>"
    assert repr(_kin.Lock.__new__(_kin.Lock)).endswith("not initialised>")
    run_forked(lambda: repr(lock).index("SomeOtherProcess"))
    assert "value=3" in repr(_kin.Semaphore(3))
    assert "unset" in repr(_kin.Event())
