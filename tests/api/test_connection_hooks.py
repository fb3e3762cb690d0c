"""Connections as programs change them: subclasses, picklers, signals in the middle; and bad bytes."""

import io
import json
import os
import pickle
import random
import signal
import struct
import threading
import types

import pytest

import kinfolk
from kinfolk import connection, context, reduction


@pytest.fixture
def pipe():
    a, b = connection.Pipe()
    with a, b:
        yield a, b


def as_kind(kind, conn):
    """The connection as one of another class."""
    fd, conn._handle = conn._handle, None
    return kind(fd)


# What subclasses override


class Reversing(connection.Connection):
    """Turns the bytes of every message around."""

    def _send_bytes(self, buf):
        super()._send_bytes(bytes(buf)[::-1])

    def _recv_bytes(self, maxsize=None):
        got = super()._recv_bytes(maxsize)
        if got is None:
            return None
        assert got.tell() == len(got.getvalue())
        turned = io.BytesIO()
        turned.write(got.getvalue()[::-1])
        return turned


def test_bytes_are_sent_and_received_by_overrides(pipe):
    a, b = pipe
    with as_kind(Reversing, a) as a, as_kind(Reversing, b) as b:
        a.send(("some", "object"))
        assert b.recv() == ("some", "object")
        a.send_bytes(b"abcdef", 1, 3)
        with connection.Connection(os.dup(b.fileno())) as plain:
            assert plain.recv_bytes() == b"dcb"
        a.send_bytes(b"abc")
        assert b.recv_bytes(3) == b"abc"
        buffer = bytearray(5)
        a.send_bytes(b"abc")
        assert b.recv_bytes_into(buffer, 1) == 3
        assert buffer == b"\0abc\0"
        a.send_bytes(b"abcdef")
        with pytest.raises(kinfolk.BufferTooShort) as caught:
            b.recv_bytes_into(buffer)
        assert caught.value.args == (b"abcdef",)
        a.send_bytes(b"abc")
        with pytest.raises(OSError, match="^bad message length$"):
            b.recv_bytes(2)
        assert not b.readable


def test_objects_of_the_arena_by_an_override(pipe):
    a, b = pipe
    with as_kind(Reversing, a) as a, as_kind(Reversing, b) as b:
        a.send(kinfolk.Event())
        assert not b.recv().is_set()


def test_an_override_may_give_plain_bytes(pipe):
    a, b = pipe

    class Plain(connection.Connection):
        def _recv_bytes(self, maxsize=None):
            return pickle.dumps("made up")

    with as_kind(Plain, b) as b:
        assert b.recv() == "made up"
        assert pickle.loads(b.recv_bytes()) == "made up"


def test_an_override_may_give_nonsense(pipe):
    class Nonsense(connection.Connection):
        def _recv_bytes(self, maxsize=None):
            return self.given

    a, b = pipe
    with as_kind(Nonsense, b) as b:
        b.given = object()
        for use in (b.recv, b.recv_bytes, lambda: b.recv_bytes_into(bytearray(1))):
            with pytest.raises(TypeError):
                use()
        b.given = types.SimpleNamespace(getvalue=lambda: 5)
        for use in (b.recv, lambda: b.recv_bytes_into(bytearray(1))):
            with pytest.raises(TypeError):
                use()


def test_one_connection_may_have_a_method_of_its_own(pipe):
    a, b = pipe
    sent = []
    a._send_bytes = lambda buf: sent.append(bytes(buf))
    a.send("x")
    a.send_bytes(b"y")
    assert pickle.loads(sent[0]) == "x"
    assert sent[1] == b"y"
    del a._send_bytes
    a.send("z")
    assert b.recv() == "z"


def test_the_class_may_be_changed(pipe, monkeypatch):
    a, b = pipe
    monkeypatch.setattr(connection.Connection, "_poll", lambda self, timeout: timeout)
    assert a.poll() == 0.0
    assert a.poll(7) == 7
    monkeypatch.undo()
    assert a.poll() is False


def test_closing_and_checks_are_overridden(pipe):
    done = []

    class Telling(connection.Connection):
        def _close(self):
            done.append("close")
            super()._close()

        def _check_closed(self):
            done.append("check")
            super()._check_closed()

    a, b = pipe
    a = as_kind(Telling, a)
    a.send(1)
    assert b.poll(None)
    a.fileno()
    assert done == ["check", "check"]
    a.close()
    a.close()
    assert done == ["check", "check", "close"]
    with pytest.raises(OSError, match="^handle is closed$"):
        a.send(1)
    b = as_kind(Telling, b)
    fd = b._handle
    del b
    assert done[-1] == "close"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_attributes_and_weak_references(pipe):
    import gc
    import weakref

    a, _ = pipe
    a.name = "of its own"
    assert a.__dict__ == {"name": "of its own"}
    one, other = connection.Pipe()
    one.other, other.other = other, one
    watch = weakref.ref(one)
    fds = one.fileno(), other.fileno()
    del one, other
    gc.collect()
    assert watch() is None
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_a_connection_without_init():
    conn = connection.Connection.__new__(connection.Connection)
    assert conn.closed and conn._handle is None
    for use in (conn.recv, conn.poll, conn.fileno, lambda: conn.send(1)):
        with pytest.raises(OSError, match="^handle is closed$"):
            use()
    conn.close()


@pytest.mark.parametrize("handle", [1 << 31, 1 << 63, 1 << 100, -(1 << 100)])
def test_handles_that_cannot_be(handle):
    with pytest.raises(ValueError, match="invalid handle"):
        connection.Connection(handle)


# Other picklers


class JsonPickler:
    @staticmethod
    def dumps(obj):
        return json.dumps(obj).encode()

    @staticmethod
    def loads(data):
        return json.loads(bytes(data))


def test_a_reducer_of_the_program(pipe, monkeypatch):
    a, b = pipe
    monkeypatch.setattr(context, "_reducer", types.SimpleNamespace(ForkingPickler=JsonPickler))
    a.send([1, {"a": None}])
    with connection.Connection(os.dup(b.fileno())) as copy:
        assert copy.recv() == [1, {"a": None}]
    a.send("text")
    assert b.recv_bytes() == b'"text"'


class Marking(reduction.ForkingPickler):
    def persistent_id(self, obj):
        assert not isinstance(obj, complex), "no complex numbers"


def test_a_pickler_in_place_of_kinfolks(pipe, monkeypatch):
    a, b = pipe
    monkeypatch.setattr(reduction, "ForkingPickler", Marking)
    a.send([1, kinfolk.Event()])
    assert b.recv()[0] == 1
    with pytest.raises(AssertionError, match="no complex"):
        a.send(1j)


def test_what_a_pickler_of_the_program_mentions_is_held(pipe, monkeypatch):
    a, b = pipe
    monkeypatch.setattr(reduction, "ForkingPickler", Marking)
    queue = kinfolk.Queue()
    queue.put("still here")
    a.send(queue)
    del queue
    assert b.recv().get() == "still here"


def test_registered_reducers(pipe):
    class Odd:
        pass

    reduction.register(Odd, lambda odd: (str, ("registered",)))
    try:
        pipe[0].send(Odd())
        assert pipe[1].recv() == "registered"
    finally:
        del reduction.extra_reducers[Odd]


# Signals


class Interrupted(Exception):
    pass


def interrupt(*_):
    raise Interrupted


@pytest.fixture
def alarm():
    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


MESSAGE = struct.pack("!i", 100_000) + bytes(range(250)) * 400


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 50_000, 100_003])
@pytest.mark.parametrize("how", ["recv_bytes", "recv_bytes_into", "_recv_bytes"])
def test_a_message_that_was_interrupted_is_received_by_the_next_call(pipe, alarm, how, cut):
    a, b = pipe
    buffer = bytearray(100_000)

    def receive():
        if how == "recv_bytes_into":
            assert b.recv_bytes_into(buffer) == len(buffer)
            return buffer
        got = getattr(b, how)()
        return got.getvalue() if how == "_recv_bytes" else got

    os.write(a.fileno(), MESSAGE[:cut])
    for _ in range(2):
        with pytest.raises(Interrupted):
            alarm()
            receive()
    writer = threading.Thread(target=os.write, args=(a.fileno(), MESSAGE[cut:]))
    writer.start()
    assert receive() == MESSAGE[4:]
    writer.join()
    a.send("next")
    assert b.recv() == "next"


def test_an_interrupted_message_may_be_small(pipe, alarm):
    a, b = pipe
    data = pickle.dumps("small")
    os.write(a.fileno(), struct.pack("!i", len(data)) + data[:3])
    with pytest.raises(Interrupted):
        alarm()
        b.recv()
    os.write(a.fileno(), data[3:])
    assert b.recv() == "small"


def test_an_interrupted_message_may_be_too_long(pipe, alarm):
    a, b = pipe
    os.write(a.fileno(), struct.pack("!i", 10) + b"abc")
    with pytest.raises(Interrupted):
        alarm()
        b.recv_bytes()
    with pytest.raises(OSError, match="^bad message length$"):
        b.recv_bytes(9)


def test_a_message_that_was_given_up_ends_the_sending(pipe, alarm):
    a, b = pipe
    while not b.poll():  # until the alarm comes when part of it has left
        with pytest.raises(Interrupted):
            alarm()
            a.send_bytes(bytes(5 << 20))
    with pytest.raises(OSError, match="in the middle of a message"):
        a.send("no sense in this")
    b.send("but the other way")
    assert a.recv() == "but the other way"


def test_a_signal_in_a_long_message_is_handled_and_it_goes_on(pipe):
    a, b = pipe
    got = []
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    data = os.urandom(20 << 20)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        sender = threading.Thread(target=a.send_bytes, args=(data,))
        sender.start()
        assert b.recv_bytes() == data
        sender.join()
        receiver = threading.Thread(target=lambda: got.append(b.recv_bytes()))
        receiver.start()
        a.send_bytes(data)
        receiver.join()
        assert got == [data]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_non_blocking_descriptor_loses_nothing(pipe):
    a, b = pipe
    os.set_blocking(b.fileno(), False)
    with pytest.raises(BlockingIOError):
        b.recv()
    os.write(a.fileno(), MESSAGE[:60_000])
    with pytest.raises(BlockingIOError):
        b.recv_bytes()
    os.write(a.fileno(), MESSAGE[60_000:])
    assert b.recv_bytes() == MESSAGE[4:]


# Bad bytes


def refused(data):
    """What a connection says to these bytes, and to the end behind them."""
    reader, writer = connection.Pipe(duplex=False)
    with reader:
        with writer:
            os.write(writer.fileno(), data)
        try:
            while True:
                reader.recv()
        except Exception as error:
            return error


@pytest.mark.parametrize(
    "head", [b"", b"\0", b"\0\0\0", b"\xff\xff\xff\xff", b"\xff" * 4 + b"\0" * 7]
)
def test_a_truncated_length(head):
    error = refused(head)
    if head:
        assert type(error) is OSError and str(error) == "got end of file during message"
    else:
        assert type(error) is EOFError


@pytest.mark.parametrize(
    "head",
    [struct.pack("!i", n) for n in (-2, -1000, -(1 << 31))]
    + [struct.pack("!iQ", -1, n) for n in (1 << 63, (1 << 64) - 1)],
)
def test_a_length_that_is_none(head):
    error = refused(head + b"x" * 100)
    assert type(error) is OSError and str(error) == "bad message length"


@pytest.mark.parametrize("claim", [5000, 1 << 20, 0x7FFFFFFF, 1 << 33, 1 << 45, (1 << 63) - 1])
def test_a_length_is_a_claim(claim):
    head = struct.pack("!i", claim) if claim <= 0x7FFFFFFF else struct.pack("!iQ", -1, claim)
    error = refused(head + b"x" * 100)
    assert type(error) is OSError and str(error) == "got end of file during message"


def test_random_streams():
    rng = random.Random(4)
    lengths = [0, 1, 2, 5, 100, 5000, -1, -2, 0x7FFFFFFF]
    for _ in range(1500):
        data = b""
        while rng.random() < 0.7:
            body = rng.choice([pickle.dumps([1, "x"]), rng.randbytes(rng.randrange(40)), b"."])
            length = rng.choice([len(body), len(body), rng.choice(lengths)])
            data += struct.pack("!i", length) + body
        error = refused(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.5 else data)
        assert isinstance(error, Exception)


def test_tails_of_messages_that_are_torn():
    a, b = connection.Pipe()
    with a, b:
        a.send(kinfolk.Event())
        data = b.recv_bytes()
    rng = random.Random(5)
    for _ in range(500):
        torn = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            torn[rng.randrange(len(torn))] = rng.randrange(256)
        torn = torn[rng.randrange(3) :]
        refused(struct.pack("!i", len(torn)) + torn)
