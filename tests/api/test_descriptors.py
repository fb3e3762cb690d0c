"""Descriptors on their way: in the family's locker, kept by whatever mentions them."""

import gc
import os
import pickle
import resource
import signal
import socket
import threading

import pytest
from kin_children import forked, run_forked

import kinfolk
from kinfolk import _kin, connection, reduction, resource_sharer
from kinfolk.reduction import DupFd, ForkingPickler

METHODS = ("fork", "spawn", "forkserver")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def nothing_stays_in_the_locker():
    yield
    resource_sharer.stop()
    gc.collect()
    _kin.reap()
    assert _kin.stats()["waiting"] == 0


class Pipe:
    """The read end of a pipe; its write end is given away."""

    def __init__(self):
        self.end, self.write_end = os.pipe()
        os.set_blocking(self.end, False)

    def give_away(self):
        """Return what stands for the write end, which nobody else has."""
        stand_in = DupFd(self.write_end)
        self.forget()
        return stand_in

    def forget(self):
        os.close(self.write_end)
        self.write_end = None

    def read(self):
        """What was written, None if nothing was yet, b"" if nobody can write any more."""
        try:
            return os.read(self.end, 100)
        except BlockingIOError:
            return None

    def is_closed(self):
        return self.read() == b""


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    os.close(pipe.end)
    if pipe.write_end is not None:
        pipe.forget()


def write(stand_in, data=b"x"):
    fd = stand_in.detach()
    os.write(fd, data)
    os.close(fd)


# Through everything, the sender gone


def things():
    """A Connection, a socket and a descriptor, and the other ends of them."""
    near, far = connection.Pipe()
    left, right = socket.socketpair()
    read_end, write_end = os.pipe()
    others = near, left, DupFd(read_end)
    mine = far, right, DupFd(write_end)
    os.close(read_end)
    os.close(write_end)
    return others, mine


def close(others, mine):
    for ends in others, mine:
        ends[0].close()
        ends[1].close()


def check(others, mine):
    (near, left, read_end), (far, right, write_end) = others, mine
    with near, far, left, right:
        far.send("hello")
        assert near.recv() == "hello"
        right.sendall(b"hello")
        assert left.recv(5) == b"hello"
        fd = read_end.detach()
        write(write_end, b"hello")
        assert os.read(fd, 5) == b"hello"
        os.close(fd)


def send(way):
    sent = things()
    way(sent)
    close(*sent)


def put(queue):
    send(queue.put)


def send_by_connection(conn):
    send(conn.send)
    conn.close()


def start_and_join(method, target, *args):
    child = kinfolk.get_context(method).Process(target=target, args=args)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    child.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_through_a_queue(method, kind):
    queue = getattr(kinfolk, kind)()
    start_and_join(method, put, queue)
    _kin.reap()
    assert _kin.stats()["waiting"] == 6
    check(*queue.get())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("duplex", [True, False])
def test_through_a_pipe(method, duplex):
    near, far = connection.Pipe(duplex)
    with near:
        start_and_join(method, send_by_connection, far)
        far.close()
        _kin.reap()
        check(*near.recv())


def return_things():
    return things()


@pytest.mark.parametrize("method", METHODS)
def test_from_a_pool(method):
    with kinfolk.get_context(method).Pool(1, maxtasksperchild=1) as pool:
        check(*pool.apply(return_things))
        pool.close()
        pool.join()


def give_back(pair):
    return pair


def test_to_a_pool_and_back():
    with kinfolk.Pool(1) as pool:
        check(*pool.apply(give_back, (things(),)))
        pool.close()
        pool.join()


def append(things_of_all):
    send(things_of_all.append)


@pytest.mark.parametrize("method", METHODS)
def test_through_a_manager(method):
    with kinfolk.get_context(method).Manager() as manager:
        shared = manager.list()
        start_and_join(method, append, shared)
        check(*shared.pop())


# How long they are kept


def test_until_the_last_hold_goes(pipe):
    stand_in = pipe.give_away()
    queue = kinfolk.Queue()
    queue.put([stand_in])
    del stand_in
    assert not pipe.is_closed()
    (stand_in,) = queue.get()
    assert not pipe.is_closed()
    write(stand_in)
    assert pipe.read() == b"x"
    assert not pipe.is_closed()  # the locker has it still
    write(stand_in)
    assert stand_in.fetched == 2
    assert pipe.read() == b"x"
    del stand_in
    assert pipe.is_closed()


def test_until_the_queue_goes(pipe):
    queue = kinfolk.Queue()
    queue.put(pipe.give_away())
    assert not pipe.is_closed()
    del queue
    assert pipe.is_closed()


def test_until_both_ends_of_the_pipe_are_gone(pipe):
    near, far = connection.Pipe()
    near.send(pipe.give_away())
    near.close()
    del near
    assert not pipe.is_closed()
    far.close()
    del far
    gc.collect()
    assert pipe.is_closed()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_until_its_killed_holders_are_buried(pipe):
    stand_in = pipe.give_away()
    ready, tell = os.pipe()

    def hold():
        os.write(tell, b"x")
        signal.pause()

    children = [forked(hold) for _ in range(3)]
    for _ in children:
        os.read(ready, 1)
    del stand_in
    for child in children:
        _kin.reap()
        assert not pipe.is_closed()
        os.kill(child.pid, signal.SIGKILL)
        child.exitcode()
    _kin.reap()
    assert pipe.is_closed()
    os.close(ready)
    os.close(tell)


def test_the_living_stay_when_others_go():
    pipes = [Pipe() for _ in range(30)]
    held = {pipe: pipe.give_away() for pipe in pipes}
    order = sorted(pipes, key=lambda pipe: pipe.end * 7919 % 101)
    for pipe in order:
        assert not pipe.is_closed()
        del held[pipe]
        assert pipe.is_closed()
        for other in held:
            write(held[other])
            assert other.read() == b"x"
    for pipe in pipes:
        os.close(pipe.end)


# Pickled outside of any message


def test_bytes_are_good_until_somebody_has_fetched(pipe):
    pickled = pickle.dumps(pipe.give_away())
    pickle.loads(pickled)  # to load it is not to fetch it
    assert not pipe.is_closed()
    stand_in = pickle.loads(pickled)
    write(stand_in)
    assert pipe.read() == b"x"
    assert not pipe.is_closed()
    del stand_in
    assert pipe.is_closed()
    with pytest.raises(_kin.StaleReference):
        pickle.loads(pickled)


def test_each_pickle_is_good_for_itself(pipe):
    stand_in = pipe.give_away()
    first, second = pickle.dumps(stand_in), ForkingPickler.dumps(stand_in)
    del stand_in
    write(pickle.loads(first), b"1")
    write(pickle.loads(second), b"2")
    assert pipe.read() == b"12"
    assert pipe.is_closed()


def test_bytes_are_good_until_it_is_stopped(pipe):
    pickled = pickle.dumps(pipe.give_away())
    assert not pipe.is_closed()
    resource_sharer.stop(timeout=60)
    assert pipe.is_closed()
    resource_sharer.stop()
    with pytest.raises(_kin.StaleReference):
        pickle.loads(pickled)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["exit", "kill"])
def test_bytes_are_good_until_the_process_ends(pipe, how):
    near, far = connection.Pipe()

    def child():
        near.close()
        far.send_bytes(pickle.dumps(pipe.give_away()))
        far.recv_bytes()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        _kin.leave()

    process = forked(child)
    far.close()
    pipe.forget()
    pickled = near.recv_bytes()
    stand_in = pickle.loads(pickled)
    _kin.reap()
    assert not pipe.is_closed()
    near.send_bytes(b"")
    process.exitcode()
    _kin.reap()
    write(stand_in)
    assert pipe.read() == b"x"
    del stand_in
    assert pipe.is_closed()
    with pytest.raises(_kin.StaleReference):
        pickle.loads(pickled)
    near.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_keeps_nothing_for_its_parent(pipe):
    pickled = pickle.dumps(pipe.give_away())
    near, far = connection.Pipe()

    def child():
        near.close()
        far.send("up")
        far.poll(60)

    process = forked(child)
    far.close()
    assert near.recv() == "up"
    write(pickle.loads(pickled))
    assert pipe.read() == b"x"
    assert pipe.is_closed()
    near.close()
    assert process.exitcode() == 0


def test_any_other_pickler_and_protocol(pipe):
    stand_in = pipe.give_away()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        write(pickle._loads(pickle._dumps(stand_in, protocol)))
        write(ForkingPickler.loads(ForkingPickler.dumps(stand_in, protocol)))
        assert pipe.read() == b"xx"


class Labelled(_kin.Descriptor):
    label = None


def test_a_subclass_travels_with_what_it_has(pipe):
    stand_in = Labelled(pipe.write_end)
    stand_in.label = "mine"
    queue = kinfolk.Queue()
    queue.put(stand_in)
    for copy in pickle.loads(pickle.dumps(stand_in)), queue.get():
        assert type(copy) is Labelled
        assert copy.label == "mine"
        write(copy)
        assert pipe.read() == b"x"


# What goes wrong


@pytest.fixture
def no_more_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    yield free
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_receivers_limit(pipe, request):
    stand_in = pipe.give_away()
    limit = request.getfixturevalue("no_more_descriptors")
    with pytest.raises(OSError, match=f"may open {limit} descriptors .RLIMIT_NOFILE.") as info:
        stand_in.detach()
    assert info.value.errno == 24
    resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1:] * 2)
    write(stand_in)
    assert pipe.read() == b"x"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_limit_of_what_is_under_way():
    def child():
        _kin.Lock()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
        if os.getuid() == 0:
            os.setuid(65534)  # root has no such limit
        held = []
        with pytest.raises(OSError, match=r"may have open: 50 .RLIMIT_NOFILE.") as info:
            while len(held) < 1000:
                held.append(DupFd(0))
        assert info.value.errno == 109
        os.close(held.pop().detach())
        held.pop()
        held.append(DupFd(0))
        held.clear()
        assert _kin.stats()["waiting"] == 0
        _kin.leave()

    run_forked(child)


def test_a_descriptor_that_is_none(pipe):
    for bad in -1, 10**6:
        with pytest.raises(OSError, match="Bad file descriptor"):
            DupFd(bad)
    with pytest.raises(TypeError):
        _kin.Descriptor("0")
    with pytest.raises(RuntimeError, match="__init__"):
        _kin.Descriptor.__new__(_kin.Descriptor).detach()
    stand_in = pipe.give_away()
    with pytest.raises(RuntimeError, match="already"):
        stand_in.__init__(0)
    for cls, ref, transit in (
        (int, stand_in.ref, stand_in.ref),
        (_kin.Lock, stand_in.ref, stand_in.ref),
        (_kin.Descriptor, b"", stand_in.ref),
        (_kin.Descriptor, stand_in.ref, b""),
        (_kin.Descriptor, _kin.Lock().ref, stand_in.ref),
    ):
        with pytest.raises((TypeError, ValueError)):
            _kin._open_kept(cls, ref, transit, 1)
    # What holds it is somebody's word only: if that is wrong, nothing happens.
    write(_kin._open_kept(_kin.Descriptor, stand_in.ref, stand_in.ref, 2**63))
    assert pipe.read() == b"x"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_program_that_closed_the_locker(pipe):
    stand_in = pipe.give_away()

    def child():
        _, locker = _kin.family_fds()
        other = os.dup2(os.memfd_create("another"), locker)
        for act in stand_in.detach, lambda: DupFd(0):
            with pytest.raises(RuntimeError, match="closed the descriptor of its family's locker"):
                act()
        assert os.fstat(other).st_size == 0
        _kin.leave()

    run_forked(child)
    write(stand_in)
    assert pipe.read() == b"x"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_never_copies_what_is_only_passing(pipe):
    """What a thread moves about in the locker is in this process for a moment; no child gets it."""
    stand_in = pipe.give_away()
    stop = threading.Event()

    def move():
        while not stop.is_set():
            others = [DupFd(0) for _ in range(3)]
            others.pop()  # the first ones are sent once more
            others.clear()

    threads = [threading.Thread(target=move) for _ in range(2)]
    for thread in threads:
        thread.start()
    mine = os.fstat(pipe.end).st_ino

    def child():
        count = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                count += os.stat(f"/proc/self/fd/{name}").st_ino == mine
            except FileNotFoundError:
                continue
        assert count == 1  # the read end

    try:
        for _ in range(100):
            run_forked(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    write(stand_in)
    assert pipe.read() == b"x"


def test_reduction_knows_them(pipe):
    assert isinstance(reduction.DupFd(pipe.write_end), resource_sharer.DupFd)
