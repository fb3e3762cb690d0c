"""connection.wait() over everything that can be waited for, at once."""

import errno
import os
import resource
import select
import signal
import socket
import threading

import pytest

import kinfolk
from kinfolk import _kin, connection
from kinfolk.connection import wait


def make(kind):
    return getattr(kinfolk, kind)()


def not_ready(kind):
    """An object that is not ready, and what makes it so."""
    obj = make(kind)
    if kind.endswith("Queue"):
        return obj, lambda: obj.put(1)
    if kind == "Event":
        return obj, obj.set
    obj.acquire()
    return obj, obj.release


KINDS = ("Queue", "SimpleQueue", "JoinableQueue", "Event", "Lock", "RLock", "Semaphore")


@pytest.mark.parametrize("kind", KINDS)
def test_ready_and_not_ready(kind):
    obj, change = not_ready(kind)
    assert wait([obj], 0) == []
    assert wait([obj], 0.001) == []
    assert wait([obj], -1) == []
    change()
    assert wait([obj]) == [obj]
    assert wait([obj], 0) == [obj]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "RLock"])
@pytest.mark.parametrize("method", ("fork", "spawn"))
def test_another_process_ends_the_wait(kind, method):
    ctx = kinfolk.get_context(method)
    obj, _ = not_ready(kind)
    never = kinfolk.Event()
    child = ctx.Process(target=make_ready, args=(obj, kind))
    child.start()
    assert wait([never, obj]) == [obj]
    child.join()
    assert child.exitcode == 0


def make_ready(obj, kind):
    if kind.endswith("Queue"):
        obj.put(1)
    elif kind == "Event":
        obj.set()
    else:
        obj.release()


def test_a_mixture_in_the_order_given():
    near, far = socket.socketpair()
    r, w = kinfolk.Pipe(duplex=False)
    idle, _ = kinfolk.Pipe(duplex=False)
    queue, event, lock = kinfolk.Queue(), kinfolk.Event(), kinfolk.Lock()
    child = kinfolk.Process(target=signal.pause)
    child.start()
    things = [idle, queue, near, event, r, lock, child.sentinel, queue._writer]
    with near, far, r, w, idle, _:
        assert wait(things) == [lock, queue._writer]
        lock.acquire()
        assert wait([idle, queue, near, event, r, lock, child.sentinel], 0.001) == []
        far.send(b"x")
        w.send("y")
        queue.put("z")
        event.set()
        child.kill()
        child.join()
        assert wait(things) == [queue, near, event, r, child.sentinel, queue._writer]


def test_any_number_of_things():
    events = [kinfolk.Event() for _ in range(300)]
    assert wait(events, 0.001) == []
    child = kinfolk.Process(target=events[217].set)
    child.start()
    assert wait(events) == [events[217]]
    child.join()
    for event in events[::3]:
        event.set()
    assert wait(iter(events)) == [e for n, e in enumerate(events) if n % 3 == 0 or n == 217]
    assert wait([], 0) == []


def test_a_queue_and_its_reader_are_two_names_of_one():
    queue = kinfolk.Queue()
    queue.put(1)
    with pytest.raises(KeyError, match="already registered"):
        wait([queue, queue._reader])
    assert wait([queue, queue._writer]) == [queue, queue._writer]
    again = queue._reader
    assert queue._reader in wait([again])


def test_what_cannot_be_waited_for():
    for thing in (object(), kinfolk.Condition(), "x", None, kinfolk.Value("i"), _kin.Memory(8)):
        with pytest.raises(ValueError, match="Invalid file object"):
            wait([thing])
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        wait([-1])
    r, w = os.pipe()
    with pytest.raises(KeyError, match=rf"{r} \(FD {r}\) is already registered"):
        wait([r, w, r])
    os.close(w)
    assert wait([r]) == [r], "its end can be read"
    os.close(r)
    assert wait([r]) == [r], "and that it is none, too"
    with pytest.raises(ValueError, match="NaN"):
        wait([kinfolk.Event()], float("nan"))


def test_a_class_may_have_a_descriptor_of_its_own():
    r, w = os.pipe()

    class Mine(kinfolk.queues.Queue):
        def fileno(self):
            return r

    queue = Mine()
    queue.put(1)
    assert wait([queue], 0) == []
    os.write(w, b"x")
    assert wait([queue]) == [queue]
    os.close(r)
    os.close(w)


def test_threads_wait_for_one_queue():
    queue = kinfolk.Queue()
    got = []

    def take():
        while True:
            wait([queue])
            try:
                got.append(queue.get_nowait())
            except EOFError:
                return
            except Exception:  # noqa: BLE001  another was faster
                continue

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(500):
        queue.put(n)
    queue.shutdown()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(500))


def test_processes_answer_each_other():
    there, back = kinfolk.Queue(), kinfolk.Queue()
    child = kinfolk.Process(target=answer, args=(there, back))
    child.start()
    for n in range(200):
        there.put(n)
        assert wait([child.sentinel, back]) == [back]
        assert back.get() == n
    there.put(None)
    child.join()
    assert child.exitcode == 0


def answer(there, back):
    while True:
        wait([there])
        item = there.get()
        if item is None:
            return
        back.put(item)


# Deaths and signals


def test_a_killed_holders_lock_becomes_free():
    lock, held = kinfolk.Lock(), kinfolk.Event()
    child = kinfolk.Process(target=hold, args=(lock, held))
    child.start()
    held.wait()
    assert wait([lock], 0) == []
    child.kill()
    assert wait([lock]) == [lock]
    child.join()


def hold(lock, held):
    lock.acquire()
    held.set()
    signal.pause()


def test_a_killed_waiter_leaves_nothing():
    queue = kinfolk.Queue()
    for _ in range(5):
        ready = kinfolk.Event()
        child = kinfolk.Process(target=wait_for_ever, args=(queue, ready))
        child.start()
        ready.wait()
        child.kill()
        child.join()
    queue.put(1)
    assert wait([queue]) == [queue]


def wait_for_ever(queue, ready):
    queue._reader.fileno()
    ready.set()
    wait([queue])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("raises", (True, False))
def test_a_signal_handler_runs_at_once(raises):
    """One that raises ends the wait; after one that returns it goes on."""
    queue = kinfolk.Queue()
    seen = []

    def handler(signum, frame):
        seen.append(signum)
        if raises:
            raise Interrupted
        queue.put("from the handler")

    old = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        if raises:
            with pytest.raises(Interrupted):
                wait([queue])
        else:
            assert wait([queue]) == [queue]
    finally:
        signal.signal(signal.SIGALRM, old)
    assert seen == [signal.SIGALRM]


def test_without_a_descriptor_to_spare():
    """Where no doorbell can be opened, that is the error; what is ready needs none."""
    queue, event = kinfolk.Queue(), kinfolk.Event()
    pid = os.fork()  # the child has no doorbell yet
    if pid == 0:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, lowest))
        try:
            wait([queue, event], 60)
        except OSError as error:
            queue.put(error.errno)
        os._exit(0 if wait([queue, event]) == [queue] and not event.wait(0.001) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert queue.get() == errno.EMFILE


# Doorbells, as event loops have them


def rung(bell):
    return bool(select.select([bell], [], [], 0)[0])


def test_a_doorbell_by_hand():
    bell, queue, event = _kin.Doorbell(), kinfolk.Queue(1), kinfolk.Event()
    bell.watch(queue)
    bell.watch(event)
    assert not rung(bell) and not bell.settle()
    queue.put(1)
    assert rung(bell) and bell.settle() and rung(bell)
    queue.get()
    assert not bell.settle() and not rung(bell)
    bell.unwatch(event)
    event.set()
    assert not rung(bell)
    bell.watch(queue, _kin.READY_GIVE)
    assert rung(bell) and bell.settle()
    bell.close()
    bell.close()
    for use in (bell.fileno, bell.settle, lambda: bell.watch(queue)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_doorbell_keeps_what_it_watches():
    bell = _kin.Doorbell()
    queue = kinfolk.Queue()
    twin = kinfolk.reduction.ForkingPickler.loads(kinfolk.reduction.ForkingPickler.dumps(queue))
    bell.watch(queue)
    bell.watch(twin)
    bell.unwatch(twin)
    del queue
    twin.put(1)
    assert rung(bell)
    bell.close()


def test_a_doorbell_of_the_parent():
    bell, queue = _kin.Doorbell(), kinfolk.Queue()
    bell.watch(queue)
    pid = os.fork()
    if pid == 0:
        for use in (bell.fileno, bell.settle, lambda: bell.watch(queue)):
            try:
                use()
            except _kin.StaleReference:
                continue
            os._exit(1)
        bell.unwatch(queue)
        bell.close()
        own = _kin.Doorbell()
        own.watch(queue)
        queue.put(1)
        os._exit(0 if rung(own) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert rung(bell) and bell.settle()
    bell.close()


def test_wrong_arguments():
    bell = _kin.Doorbell()
    for wrong in ((), (1,), (kinfolk.Queue(), 3), (kinfolk.Queue(), 1, 1), (kinfolk.Event(), 2)):
        with pytest.raises((TypeError, ValueError)):
            bell.watch(*wrong)
        with pytest.raises((TypeError, ValueError)):
            _kin.is_ready(*wrong)
    with pytest.raises(TypeError):
        _kin.queue_fileno(kinfolk.Event())
    with pytest.raises(TypeError):
        _kin.wait()
    with pytest.raises(TypeError):
        _kin.wait([object()])
    with pytest.raises(RuntimeError, match="__init__"):
        _kin.wait([kinfolk.queues.Queue.__new__(kinfolk.queues.Queue)])
    bell.close()
    assert connection.wait is wait
