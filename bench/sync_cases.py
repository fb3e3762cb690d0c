"""Cases of locks and their like, for bench/cases.py: alone, contended, and how fast they wake."""

import time

from cases import case

__all__ = []


def per_call(function, count=300_000):
    """Microseconds a turn of function(count), which does the thing so many times."""
    began = time.perf_counter()
    function(count)
    return (time.perf_counter() - began) / count * 1e6


# -- Alone -----------------------------------------------------------------------------


@case("µs")
def lock_acquire_release(mp):
    lock = mp.Lock()

    def turn(count):
        for _ in range(count):
            lock.acquire()
            lock.release()

    return per_call(turn)


@case("µs")
def lock_with(mp):
    lock = mp.Lock()

    def turn(count):
        for _ in range(count):
            with lock:
                pass

    return per_call(turn)


@case("µs")
def rlock_with(mp):
    lock = mp.RLock()

    def turn(count):
        for _ in range(count):
            with lock:
                pass

    return per_call(turn)


@case("µs")
def semaphore_acquire_release(mp):
    semaphore = mp.Semaphore(2)

    def turn(count):
        for _ in range(count):
            semaphore.acquire()
            semaphore.release()

    return per_call(turn)


@case("µs")
def lock_create(mp):
    def turn(count):
        for _ in range(count):
            mp.Lock()

    return per_call(turn, 5_000)


# -- Contended ---------------------------------------------------------------------------


def contend(lock, gate, stop, counts, worst, me, work):
    """Take the lock again and again; how often, and the longest that it had to wait."""
    clock = time.perf_counter
    done = waited = 0
    gate.wait()
    while not stop.is_set():
        for _ in range(50):
            before = clock()
            lock.acquire()
            waited = max(waited, clock() - before)
            for _ in range(work):
                pass
            lock.release()
        done += 50
    counts[me], worst[me] = done, waited


def contended(mp, count, work, seconds=1.5):
    """Acquisitions a second in all, and the longest wait of any, in milliseconds."""
    mp = mp.get_context("fork")
    lock, gate, stop = mp.Lock(), mp.Barrier(count + 1), mp.Event()
    counts, worst = mp.RawArray("q", count), mp.RawArray("d", count)
    processes = [
        mp.Process(target=contend, args=(lock, gate, stop, counts, worst, me, work))
        for me in range(count)
    ]
    for process in processes:
        process.start()
    gate.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    took = time.perf_counter() - began
    for process in processes:
        process.join()
    return sum(counts) / took, max(worst) * 1e3


@case("/s")
def lock_contended_by_2(mp):
    return contended(mp, 2, 20)[0]


@case("/s")
def lock_contended_by_4(mp):
    return contended(mp, 4, 20)[0]


@case("/s")
def lock_contended_by_8(mp):
    return contended(mp, 8, 20)[0]


@case("ms")
def lock_worst_wait_of_4_that_hold_it_long(mp):
    """Each holds it for about a millisecond, and wants it again at once."""
    return contended(mp, 4, 50_000, 3)[1]


# -- Waking ------------------------------------------------------------------------------


def there_and_back(mp, start, turn, count=3000):
    """Microseconds a turn of two processes that wake each other."""
    mp = mp.get_context("fork")
    things, other = start(mp)
    process = mp.Process(target=other, args=(*things, count))
    process.start()
    began = time.perf_counter()
    turn(*things, count)
    took = time.perf_counter() - began
    process.join()
    return took / count * 1e6


def answer_events(here, there, count):
    for _ in range(count):
        here.wait()
        here.clear()
        there.set()


def ask_events(here, there, count):
    for _ in range(count):
        here.set()
        there.wait()
        there.clear()


@case("µs")
def event_there_and_back(mp):
    return there_and_back(mp, lambda mp: ((mp.Event(), mp.Event()), answer_events), ask_events)


def answer_condition(condition, turn, count):
    with condition:
        for _ in range(count):
            while turn.value != 1:
                condition.wait()
            turn.value = 0
            condition.notify()


def ask_condition(condition, turn, count):
    with condition:
        for _ in range(count):
            turn.value = 1
            condition.notify()
            while turn.value != 0:
                condition.wait()


@case("µs")
def condition_there_and_back(mp):
    def start(mp):
        return (mp.Condition(), mp.RawValue("i", 0)), answer_condition

    return there_and_back(mp, start, ask_condition)


def meet(barrier, count):
    for _ in range(count):
        barrier.wait()


@case("µs")
def barrier_of_2(mp):
    return there_and_back(mp, lambda mp: ((mp.Barrier(2),), meet), meet)


@case("µs")
def barrier_of_8(mp):
    mp = mp.get_context("fork")
    barrier, count = mp.Barrier(8), 500
    processes = [mp.Process(target=meet, args=(barrier, count)) for _ in range(7)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    meet(barrier, count - 1)
    took = time.perf_counter() - began
    for process in processes:
        process.join()
    return took / (count - 1) * 1e6


def wait_to_be_woken(condition, ready, count):
    for _ in range(count):
        with condition:
            ready.release()
            condition.wait()


@case("µs")
def condition_notify_all_of_8(mp):
    """From notify_all() until all eight are back and wait again."""
    mp = mp.get_context("fork")
    condition, ready, count = mp.Condition(mp.Lock()), mp.Semaphore(0), 300
    processes = [
        mp.Process(target=wait_to_be_woken, args=(condition, ready, count)) for _ in range(8)
    ]
    for process in processes:
        process.start()
    began = time.perf_counter()
    for _ in range(count):
        for _ in processes:
            ready.acquire()
        with condition:
            condition.notify_all()
    took = time.perf_counter() - began
    for process in processes:
        process.join()
    return took / count * 1e6
