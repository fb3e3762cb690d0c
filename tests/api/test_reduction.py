"""Reducers for other processes, and descriptors on their way to them."""

import contextlib
import fcntl
import functools
import io
import multiprocessing.reduction as stdlib
import os
import pickle
import resource
import socket
import threading

import pytest

import kinfolk
from kinfolk import _kin, connection, context, reduction, resource_sharer
from kinfolk.reduction import ForkingPickler

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture
def sockets():
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def files():
    """Make a file with a content of its own and return its descriptor."""
    with contextlib.ExitStack() as stack:

        def make(content=b"content"):
            fd = os.memfd_create("test")
            stack.callback(os.close, fd)
            os.write(fd, content)
            return fd

        yield make


def content_of(fd):
    """Read what is in the file behind `fd`, from its start, and close it."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


# Pickling


class Opaque:
    """Cannot be pickled as it is."""

    def __init__(self, label):
        self.label = label

    def __reduce__(self):
        raise TypeError("not like this")


def reduce_opaque(obj):
    return Opaque, (obj.label.upper(),)


@pytest.fixture
def registered():
    reduction.register(Opaque, reduce_opaque)
    yield
    del ForkingPickler._extra_reducers[Opaque]


def test_registered_reducers_are_used(registered):
    buffer = ForkingPickler.dumps([Opaque("a"), 1])
    assert isinstance(buffer, memoryview)
    copy, one = ForkingPickler.loads(buffer)
    assert (copy.label, one) == ("A", 1)
    file = io.BytesIO()
    reduction.dump(Opaque("b"), file, 2)
    assert file.getvalue()[:2] == b"\x80\x02"
    assert ForkingPickler.loads(file.getvalue()).label == "B"


def test_a_connection_sends_with_them(registered):
    a, b = connection.Pipe()
    with a, b:
        a.send(Opaque("sent"))
        assert b.recv().label == "SENT"


def test_a_subclass_shares_them(registered):
    class Louder(ForkingPickler):
        pass

    assert ForkingPickler.loads(Louder.dumps(Opaque("x"))).label == "X"


def test_callables():
    partial = functools.partial(divmod, 7)
    for function, args in (
        ("text".upper, ()),
        (str.upper, ("text",)),
        (int.__add__, (1, 2)),
        (dict.fromkeys, ("ab",)),
        (partial, (2,)),
        (Opaque("m").label.join, ("ab",)),
    ):
        copy = ForkingPickler.loads(ForkingPickler.dumps(function))
        assert copy(*args) == function(*args)


def test_the_reducer_of_a_context():
    base = reduction.AbstractReducer
    assert base.ForkingPickler is ForkingPickler
    assert base().register is not None
    file = io.BytesIO()
    base().dump(1, file)
    assert pickle.loads(file.getvalue()) == 1


# Descriptors through a socket


@pytest.mark.parametrize("count", [1, 2, 250])
def test_descriptors_through_a_socket(sockets, files, count):
    near, far = sockets
    fd = files()
    reduction.sendfds(near, [fd] * count)
    received = reduction.recvfds(far, count)
    assert len(set(received)) == count
    for copy in received:
        assert fcntl.fcntl(copy, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert content_of(copy) == b"content"


@pytest.mark.parametrize("send, receive", [(reduction, stdlib), (stdlib, reduction)])
def test_the_standard_library_at_the_other_end(sockets, files, send, receive):
    near, far = sockets
    send.sendfds(near, [files()])
    assert content_of(*receive.recvfds(far, 1)) == b"content"


def test_handles_through_a_connection(files):
    a, b = connection.Pipe()
    with a, b:
        reduction.send_handle(a, files(), os.getpid())
        assert content_of(reduction.recv_handle(b)) == b"content"


def test_data_without_a_descriptor():
    a, b = connection.Pipe()
    with a, b:
        os.write(a.fileno(), b"\0")
        with pytest.raises(RuntimeError, match="^received 0 items of ancdata$"):
            reduction.recv_handle(b)


def test_the_peer_has_closed(sockets):
    near, far = sockets
    near.close()
    with pytest.raises(EOFError):
        reduction.recvfds(far, 1)


def test_a_wrong_count(sockets, files):
    near, far = sockets
    socket.send_fds(near, [b"\7"], [files()])
    with pytest.raises(AssertionError, match="^Len is 1 but"):
        reduction.recvfds(far, 1)


def test_more_than_was_asked_for(sockets, files):
    near, far = sockets
    reduction.sendfds(near, [files()] * 3)
    with pytest.raises(RuntimeError, match="MSG_CTRUNC.*1 of 3 arrived"):
        reduction.recvfds(far, 1)


def test_more_than_this_process_may_open(sockets, files):
    near, far = sockets
    reduction.sendfds(near, [files()] * 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # With two numbers left, the two lowest that are free.
    free = [os.dup(0), os.dup(0), os.dup(0)]
    for fd in free:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), hard))
    try:
        with pytest.raises(RuntimeError, match="MSG_CTRUNC.*2 of 3 arrived.*RLIMIT_NOFILE"):
            reduction.recvfds(far, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Descriptors in pickles


class FakePopen:
    """What a Popen offers while it starts a child: here the child is this process."""

    @staticmethod
    def duplicate_for_child(fd):
        return os.dup(fd)

    class DupFd:
        def __init__(self, fd):
            self.fd = fd

        def detach(self):
            return self.fd


def test_a_child_being_started_inherits(files):
    context.set_spawning_popen(FakePopen)
    try:
        pickled = ForkingPickler.dumps(reduction.DupFd(files()))
    finally:
        context.set_spawning_popen(None)
    assert content_of(ForkingPickler.loads(pickled).detach()) == b"content"
    assert _kin.stats()["waiting"] == 0


def test_otherwise_it_waits_to_be_fetched(files, sharer):
    pickled = [pickle.dumps(reduction.DupFd(files(text))) for text in (b"one", b"two")]
    one, two = map(pickle.loads, pickled)
    assert content_of(two.detach()) == b"two"
    assert content_of(one.detach()) == b"one"


def fetch(stand_in, conn):
    conn.send(content_of(stand_in.detach()))
    conn.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_child_fetches_it(method, files):
    fd = files()
    near, far = connection.Pipe()
    with near:
        child = kinfolk.get_context(method).Process(target=fetch, args=(Wrapper(fd), far))
        child.start()
        far.close()
        assert near.recv() == b"content"
        child.join()
        child.close()
    resource_sharer.stop(timeout=60)


class Wrapper:
    """A program's own object with a descriptor in it."""

    def __init__(self, fd):
        self.fd = fd

    def __getstate__(self):
        return reduction.DupFd(self.fd)

    def __setstate__(self, stand_in):
        self.detach = stand_in.detach

    def detach(self):
        return os.dup(self.fd)


# Sockets


def test_sockets_travel(sockets, sharer):
    near, far = sockets
    with ForkingPickler.loads(ForkingPickler.dumps(far)) as copy:
        assert copy.fileno() != far.fileno()
        assert (copy.family, copy.type, copy.proto) == (far.family, far.type, far.proto)
        near.send(b"x")
        assert copy.recv(1) == b"x"


def test_many_at_once(sockets, sharer):
    """Several threads fetch what several threads have left."""
    near, far = sockets
    pickled = [ForkingPickler.dumps(far) for _ in range(8)]
    copies = []
    threads = [
        threading.Thread(target=lambda data=data: copies.append(ForkingPickler.loads(data)))
        for data in pickled
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({copy.fileno() for copy in copies}) == 8
    for copy in copies:
        copy.close()
