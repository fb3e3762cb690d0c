"""The face of the locks: what multiprocessing says of them, and conditions and barriers."""

import gc
import pickle
import signal
import sys
import threading
import time
import weakref

import pytest

import kinfolk
from kinfolk import _kin, synchronize
from kinfolk.connection import wait

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


def copy(thing):
    return pickle.loads(pickle.dumps(thing))


def test_what_repr_says():
    lock, rlock = kinfolk.Lock(), kinfolk.RLock()
    assert (repr(lock), repr(rlock)) == ("<Lock(owner=None)>", "<RLock(None, 0)>")
    with lock, rlock, rlock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
        assert repr(rlock) == "<RLock(MainProcess, 2)>"
        said = []
        thread = threading.Thread(target=lambda: said.extend((repr(lock), repr(rlock))))
        thread.start()
        thread.join()
        assert said == ["<Lock(owner=SomeOtherThread)>", "<RLock(SomeOtherThread, nonzero)>"]
        queue = kinfolk.Queue()
        child = kinfolk.Process(target=put_reprs, args=(queue, lock, rlock))
        child.start()
        child.join()
        assert queue.get() == [
            "<Lock(owner=SomeOtherProcess)>",
            "<RLock(SomeOtherProcess, nonzero)>",
        ]
    assert repr(kinfolk.Semaphore(3)) == "<Semaphore(value=3)>"
    assert repr(kinfolk.BoundedSemaphore(2)) == "<BoundedSemaphore(value=2, maxvalue=2)>"
    event = kinfolk.Event()
    assert repr(event).startswith("<Event at 0x") and repr(event).endswith(" unset>")
    event.set()
    assert repr(event).endswith(" set>")
    assert repr(kinfolk.Condition()) == "<Condition(<RLock(None, 0)>, 0)>"


def put_reprs(queue, *things):
    queue.put([repr(thing) for thing in things])


def test_a_lock_of_another_thread_has_its_name():
    lock, said = kinfolk.Lock(), []

    def hold():
        with lock:
            said.append(repr(lock))

    thread = threading.Thread(target=hold, name="Ida")
    thread.start()
    thread.join()
    assert said == ["<Lock(owner=MainProcess|Ida)>"]


def test_the_semlock_inside():
    for lock in (kinfolk.Lock(), kinfolk.RLock(), kinfolk.BoundedSemaphore(1)):
        inside = lock._semlock
        assert (inside._get_value(), inside._is_zero(), inside.maxvalue) == (1, False, 1)
        with lock:
            assert inside._is_mine() and inside._count() == 1 and inside._is_zero()
        assert isinstance(lock, synchronize.SemLock)
    assert kinfolk.Semaphore()._semlock.maxvalue == synchronize.SEM_VALUE_MAX


class Named(synchronize.Lock):
    def __init__(self, name):
        super().__init__(ctx=kinfolk.get_context())
        self.name = name


def test_a_subclass_travels_with_what_it_has():
    lock = Named("Ida")
    with lock:
        other = copy(lock)
        assert other.name == "Ida" and not other.acquire(False)


def test_event_across_processes(ctx):
    ready, go = ctx.Event(), ctx.Event()
    child = ctx.Process(target=answer, args=(ready, go))
    child.start()
    assert ready.wait(60)
    go.set()
    child.join()
    assert child.exitcode == 0


def answer(ready, go):
    ready.set()
    sys.exit(not go.wait(60))


# Conditions


def test_notify_wakes_as_many_as_it_says_in_their_order():
    condition, woken = kinfolk.Condition(), []
    threads = []
    for n in range(4):
        entered = threading.Event()

        def wait(n=n, entered=entered):
            with condition:
                entered.set()
                condition.wait()
                woken.append(n)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        entered.wait()
    with condition:
        condition.notify(2)
    for thread in threads[:2]:
        thread.join()
    assert sorted(woken) == [0, 1]
    with condition:
        condition.notify_all()
        condition.notify(5)  # there is nobody left
    for thread in threads:
        thread.join()
    assert sorted(woken) == [0, 1, 2, 3]


def test_a_condition_between_processes(ctx):
    condition, queue = ctx.Condition(), ctx.Queue()
    child = ctx.Process(target=say_when_notified, args=(condition, queue))
    with condition:
        child.start()
        assert queue.get() == "starting"
        assert condition.wait(60)
        condition.notify()
    child.join()
    assert queue.get() is True


def say_when_notified(condition, queue):
    queue.put("starting")
    with condition:
        condition.notify()
        queue.put(condition.wait(60))


def test_a_wait_that_times_out_and_one_that_is_interrupted():
    condition = kinfolk.Condition()
    with condition:
        assert condition.wait(0) is False
        assert condition.wait(0.01) is False
        assert condition.wait_for(lambda: False, 0.01) is False
        assert condition.wait_for(lambda: "at once") == "at once"
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with condition:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                condition.wait(60)
            assert condition._lock._semlock._is_mine()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert repr(condition).startswith("<Condition(<RLock(None, 0)>")


@pytest.mark.parametrize("seconds", [0.25, 0.5, 1.0, 1.0, 1.0])
def test_a_signal_is_noticed_whenever_it_comes(seconds):
    """Also at the moment in which a long wait, made of stretches, is between two of them."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with pytest.raises(KeyboardInterrupt):
            kinfolk.Semaphore(0).acquire()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_waits_that_were_given_up_take_no_notification():
    condition, woken = kinfolk.Condition(), kinfolk.Semaphore(0)
    entered = threading.Event()

    def wait():
        with condition:
            for _ in range(3):
                condition.wait(0)
            entered.set()
            if condition.wait(60):
                woken.release()

    thread = threading.Thread(target=wait)
    thread.start()
    entered.wait()
    with condition:
        condition.notify()
    assert woken.acquire(timeout=60)
    thread.join()


def test_waits_that_were_given_up_do_not_pile_up():
    condition = kinfolk.Condition()
    before = _kin.stats()["blocks"]
    with condition:
        for _ in range(1000):
            condition.wait(0)
    assert _kin.stats()["blocks"] == before
    assert repr(condition).endswith(", 0)>")


@pytest.mark.parametrize("method", METHODS)
def test_one_that_died_waiting_is_passed_over(method):
    ctx = kinfolk.get_context(method)
    condition, queue = ctx.Condition(), ctx.Queue()
    first, second = (
        ctx.Process(target=wait_and_tell, args=(condition, queue), daemon=True) for _ in range(2)
    )
    for child in (first, second):
        child.start()
        queue.get()
        with condition:  # it has given up the lock: it waits
            pass
    first.kill()
    first.join()
    with condition:
        condition.notify()
    assert queue.get(timeout=60) is True
    second.join()


@pytest.mark.parametrize("method", METHODS)
def test_one_that_was_called_and_died_passes_the_call_on(method):
    ctx = kinfolk.get_context(method)
    condition, queue = ctx.Condition(), ctx.Queue()
    first, second = (
        ctx.Process(target=wait_and_tell, args=(condition, queue), daemon=True) for _ in range(2)
    )
    for child in (first, second):
        child.start()
        queue.get()
        with condition:  # it has given up the lock: it waits
            pass
    with condition:
        condition.notify()  # it can't go on before it has the lock
        first.kill()
        first.join()
    assert queue.get(timeout=60) is True
    second.join()


def test_the_news_of_a_death_say_who_and_where(ctx):
    lock, taken = ctx.RLock(), ctx.Event()
    child = ctx.Process(target=take_and_stay, args=(lock, taken), name="Ida")
    child.start()
    taken.wait()
    child.kill()
    child.join()
    told = rf"process {child.pid} \(Ida, .*test_synchronize.py:\d+ in take_and_stay\) was killed"
    with pytest.warns(RuntimeWarning, match=told), lock:
        pass
    assert lock.owner_died == child.pid


def take_and_stay(lock, taken):
    with lock:
        taken.set()
        signal.pause()


def test_a_condition_takes_the_lock_of_a_killed_process_back(ctx):
    condition, taken = ctx.Condition(), ctx.Event()
    child = ctx.Process(target=take_and_stay, args=(condition, taken))
    with pytest.warns(RuntimeWarning, match="was killed while it held this synchronize.RLock"):
        with condition:
            child.start()
            threading.Thread(target=kill_after, args=(child, taken)).start()
            while not taken.is_set():
                assert condition.wait(0.05) is False  # it waits for the lock, too
        child.join()


def kill_after(child, taken):
    taken.wait()
    child.kill()


def test_a_condition_wants_a_lock_of_ours():
    with pytest.raises(TypeError, match="a lock that processes can share"):
        kinfolk.Condition(threading.Lock())


def wait_and_tell(condition, queue):
    with condition:
        queue.put("waiting")
        queue.put(condition.wait(60))


def test_conditions_want_their_lock():
    condition = kinfolk.Condition(kinfolk.Lock())
    with pytest.raises(AssertionError, match=r"must acquire\(\) condition"):
        condition.wait()
    with pytest.raises(AssertionError, match="lock is not owned"):
        condition.notify()
    other = copy(condition)
    with condition:
        assert not other.acquire(False)
    with pytest.raises(NotImplementedError):
        condition._sleeping_count


# Barriers


def test_a_barrier_between_processes(ctx):
    barrier, queue = ctx.Barrier(3, timeout=60), ctx.Queue()
    children = [ctx.Process(target=pass_twice, args=(barrier, queue)) for _ in range(2)]
    for child in children:
        child.start()
    pass_twice(barrier, queue)
    for child in children:
        child.join()
    turns = [queue.get() for _ in range(6)]
    assert sorted(turns[:3]) == sorted(turns[3:]) == [0, 1, 2]
    assert barrier.n_waiting == 0 and not barrier.broken
    copy(barrier).abort()
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


def pass_twice(barrier, queue):
    for _ in range(2):
        queue.put(barrier.wait())
        barrier.wait()


def test_the_action_of_a_barrier_runs_once():
    done = []
    barrier = kinfolk.Barrier(1, action=lambda: done.append(time.monotonic()))
    assert barrier.wait() == 0
    assert len(done) == 1 and barrier.parties == 1


def test_an_action_that_raises_breaks_the_barrier():
    barrier = kinfolk.Barrier(2, action=lambda: 1 / 0)
    outcomes = []

    def wait():
        try:
            barrier.wait(60)
        except (ZeroDivisionError, threading.BrokenBarrierError) as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["BrokenBarrierError", "ZeroDivisionError"]
    assert barrier.broken and barrier.party_died is None
    barrier.reset()
    assert not barrier.broken


def test_a_barrier_is_one_of_threading():
    barrier = kinfolk.Barrier(2, timeout=0.01)
    assert isinstance(barrier, threading.Barrier)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    with pytest.raises(ValueError):
        kinfolk.Barrier(0)
    barrier.name = "Ida"
    assert copy(barrier).name == "Ida" and copy(barrier).broken


@pytest.mark.parametrize("when", ["waiting", "before"])
def test_a_party_that_is_killed_breaks_the_barrier(ctx, when):
    barrier, queue = ctx.Barrier(3), ctx.Queue()
    victim = ctx.Process(target=come_to, args=(barrier, queue, when == "waiting"))
    other = ctx.Process(target=come_to, args=(barrier, queue, True))
    victim.start()
    other.start()
    assert {queue.get(), queue.get()} == {"here"}
    victim.kill()
    wait([victim.sentinel])  # dead, and nobody has looked after it
    with pytest.raises(threading.BrokenBarrierError, match=f"process {victim.pid}, a party"):
        barrier.wait()
    assert queue.get(timeout=60) == "broken"
    assert barrier.broken and barrier.party_died == victim.pid
    for child in (victim, other):
        child.join()
    barrier.reset()
    children = [ctx.Process(target=pass_twice, args=(barrier, queue)) for _ in range(2)]
    for child in children:
        child.start()
    pass_twice(barrier, queue)
    for child in children:
        child.join()


def come_to(barrier, queue, at_once):
    queue.put("here")
    if not at_once:
        signal.pause()
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        queue.put("broken")


def test_a_party_that_ends_normally_breaks_nothing(ctx):
    barrier, queue = ctx.Barrier(2), ctx.Queue()
    for _ in range(2):
        child = ctx.Process(target=pass_twice, args=(barrier, queue))
        child.start()
        pass_twice(barrier, queue)
        child.join()
    assert not barrier.broken
    assert sorted(queue.get() for _ in range(8)) == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "make", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event", "Condition"]
)
def test_attributes_travel(make):
    thing = getattr(kinfolk, make)()
    assert type(copy(thing)) is type(thing) is getattr(synchronize, make)
    thing.name, thing.self = "Ida", thing
    assert copy(thing).name == "Ida" and vars(thing)["name"] == "Ida"
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["Barrier", "Condition", "Lock", "RLock", "Semaphore", "Event"])
def test_what_a_pickle_left_out_is_missed_and_no_more(name):
    """Whoever makes pickles may leave out the state."""
    made = kinfolk.Barrier(1) if name == "Barrier" else getattr(kinfolk, name)()
    make, args, *_ = made.__reduce_ex__(2)
    bare = make(*args)
    for method in dir(bare):
        if method in ("wait", "abort", "reset", "notify", "release", "acquire", "__getstate__"):
            call = getattr(bare, method)
            try:
                call(timeout=0) if method == "wait" else call()
            except (ValueError, AssertionError, OSError, RuntimeError, TypeError, AttributeError):
                pass
    repr(bare)
    pickle.dumps(made)
