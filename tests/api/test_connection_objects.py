"""What a pipe's messages mention of the arena: held on the way, and not a moment longer."""

import gc
import os
import pickle
import pickletools
import signal

import pytest

import kinfolk
from kinfolk import _kin, connection

METHODS = ("fork", "spawn", "forkserver")


def objects():
    gc.collect()
    _kin.reap()
    return _kin.stats()["objects"]


@pytest.fixture
def pipe():
    a, b = connection.Pipe()
    with a, b:
        yield a, b


def loader_c(data):
    return pickle.loads(data)


def loader_python(data):
    return pickle._loads(data)


def loader_kin(data):
    return kinfolk.pickle.loads(data)


def full_queue():
    queue = kinfolk.Queue()
    queue.put("still here")
    return queue


def test_the_sender_may_let_go_at_once():
    outside = objects()
    a, b = connection.Pipe()
    for _turn in range(2):
        before = objects()
        for _ in range(3):
            a.send({"queue": full_queue(), "lock": kinfolk.Lock()})
        assert objects() >= before + 6
        for _ in range(3):
            assert b.recv()["queue"].get() == "still here"
    assert objects() == before  # the transit has made itself room in the first turn
    a.close()
    b.close()
    assert objects() == outside


@pytest.mark.parametrize("load", [loader_c, loader_python, loader_kin])
@pytest.mark.parametrize("rest", [0, 10, 20_000], ids="{} more bytes".format)
def test_any_unpickler_may_load_it_any_number_of_times(pipe, load, rest):
    a, b = pipe
    before = objects()
    a.send([full_queue(), os.urandom(rest), list(range(rest))])
    data = b.recv_bytes()
    first = load(data)
    assert load(data)[1:] == first[1:]
    assert first[0].get() == "still here"
    assert len(first[1]) == rest
    del first
    assert objects() == before
    with pytest.raises(kinfolk._kin.StaleReference):
        load(data)


def test_it_is_a_pickle_like_any_other(pipe):
    a, b = pipe
    a.send([full_queue(), list(range(100))])
    data = b.recv_bytes()
    pickletools.dis(data, out=open(os.devnull, "w"))  # noqa: SIM115
    pickle.loads(data)


def test_without_mentions_nothing_is_added(pipe):
    a, b = pipe
    obj = {"plain": [1, 2.5, "x"]}
    a.send(obj)
    data = b.recv_bytes()
    assert b"_arrived" not in data
    assert pickle.loads(data) == obj


def test_what_nobody_reads_goes_with_the_pipe():
    before = objects()
    a, b = connection.Pipe()
    a.send(full_queue())
    b.send(kinfolk.Event())
    a.close()
    assert objects() == before + 3  # and the transit
    b.close()
    assert objects() == before


def test_a_message_that_cannot_be_loaded_holds_nothing(pipe):
    a, b = pipe
    before = objects()
    a.send([full_queue(), Unloadable()])
    with pytest.raises(ZeroDivisionError):
        b.recv()
    assert objects() == before


class Unloadable:
    def __reduce__(self):
        return divmod, (1, 0)


def test_a_message_that_cannot_be_sent_holds_nothing():
    before = objects()
    a, b = connection.Pipe()
    b.close()
    with a, pytest.raises(BrokenPipeError):
        a.send(full_queue())
    with a:
        pass
    assert objects() == before


def test_a_connection_without_a_transit_uses_the_familys(pipe):
    a, b = pipe
    with connection.Connection(os.dup(a.fileno())) as other:
        assert other._transit is None
        other.send(full_queue())
        objects()
        before = objects()
        assert b.recv().get() == "still here"
        assert objects() == before - 1


def test_arrivals_that_nobody_knows_are_nothing():
    transit = _kin.Transit()
    foreign = bytes(16) + transit.ref[16:]
    for ref in (transit.ref, foreign, transit.ref[:20] + bytes(16), kinfolk.Lock().ref):
        for number in (0, 1, 1 << 63, (1 << 64) - 1, 1 << 64, -1):
            assert _kin._arrived(ref, number) is None
    for args in (("x", 1), (transit.ref, "1"), (transit.ref,), ()):
        with pytest.raises(TypeError):
            _kin._arrived(*args)
    assert _kin._arrived(b"short", 1) is None
    assert _kin._transit(foreign) is None


# A pipe's ends, sent


def test_an_end_takes_its_transit_along(pipe, sharer):
    a, b = pipe
    before = objects()
    near, far = connection.Pipe()
    a.send(far)
    far.close()
    near.send(full_queue())
    near.close()
    with b.recv() as far:
        assert far.recv().get() == "still here"
    assert objects() == before


def test_an_end_through_its_own_pipe(sharer):
    before = objects()
    a, b = connection.Pipe()
    a.send(a)
    a.close()
    with b, b.recv() as a:
        a.send(full_queue())
        assert b.recv().get() == "still here"
    assert objects() == before


def test_an_end_outlives_its_transit():
    a, b = connection.Pipe()
    transit = _kin.Transit()
    ref = transit.ref
    del transit
    assert _kin._transit(ref) is None
    with a, connection.rebuild_connection(Duplicate(b), True, True, transit=None) as copy:
        b.close()
        a.send(1)
        assert copy.recv() == 1


class Duplicate:
    def __init__(self, conn):
        self.conn = conn

    def detach(self):
        return os.dup(self.conn.fileno())


# Other processes


def send_and_end(conn):
    conn.send(full_queue())
    conn.close()


@pytest.mark.parametrize("method", METHODS)
def test_the_sender_may_be_gone(method):
    before = objects()
    context = kinfolk.get_context(method)
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=send_and_end, args=(writer,))
    child.start()
    writer.close()
    child.join()
    assert child.exitcode == 0
    child.close()
    with reader:
        assert reader.recv().get() == "still here"
    assert objects() == before


def send_and_die(conn):
    conn.send(full_queue())
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("read", [True, False])
def test_the_sender_may_be_killed(read):
    before = objects()
    reader, writer = kinfolk.Pipe(duplex=False)
    child = kinfolk.get_context("fork").Process(target=send_and_die, args=(writer,))
    child.start()
    writer.close()
    child.join()
    child.close()
    if read:
        assert reader.recv().get() == "still here"
    reader.close()
    assert objects() == before


def recv_and_tell(conn):
    queue = conn.recv()
    conn.send(queue.get())
    conn.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_child_receives(method):
    context = kinfolk.get_context(method)
    a, b = context.Pipe()
    child = context.Process(target=recv_and_tell, args=(b,))
    child.start()
    b.close()
    with a:
        a.send(full_queue())
        assert a.recv() == "still here"
    child.join()
    child.close()
