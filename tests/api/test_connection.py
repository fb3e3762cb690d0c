"""Connections: what is on the wire, what is refused, and how two ends meet.

The standard library is the peer in many of these tests: what one of the two sends the
other must understand, handshake included.
"""

import array
import contextlib
import multiprocessing.connection as stdlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

import kinfolk
from kinfolk import connection

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture
def pipe():
    with contextlib.ExitStack() as stack:
        yield tuple(map(stack.enter_context, connection.Pipe()))


@contextlib.contextmanager
def in_thread(function, *args):
    """Run function(*args) beside the body; give the list that its result will be in."""
    results = []

    def run():
        try:
            results.append(function(*args))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join()


def packets():
    """A connection and a socket on which each system call of the connection is one packet."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return connection.Connection(ours.detach()), theirs


# The wire


@pytest.mark.parametrize("size", [0, 1, 1000, 16384, 16385, 100_000])
def test_a_message_is_its_length_and_its_bytes(size):
    conn, raw = packets()
    with conn, raw:
        payload = os.urandom(size)
        conn.send_bytes(payload)
        assert raw.recv(1 << 20) == struct.pack("!i", size) + payload


def test_a_long_length_may_be_short(pipe):
    # Who sends it so: libkin/tests/channel.c, tests/stress.
    a, b = pipe
    os.write(a.fileno(), struct.pack("!iQ", -1, 4) + b"abcd")
    assert b.recv_bytes() == b"abcd"


@pytest.mark.parametrize("size", [0, 5, 65535, 65536, 5 << 20])
@pytest.mark.parametrize("duplex", [True, False])
def test_either_end_may_be_the_standard_librarys(size, duplex):
    payload = os.urandom(size)
    for ours, theirs in ((connection, stdlib), (stdlib, connection)):
        reader, writer = (end for end in ours.Pipe(duplex))
        reader = theirs.Connection(os.dup(reader.fileno()))
        with reader, writer, in_thread(writer.send_bytes, payload):
            assert reader.recv_bytes() == payload


def test_objects(pipe):
    a, b = pipe
    for obj in (None, [1, 2.5, "x"], {"k": {1, 2}}, b"x" * 200_000):
        with in_thread(a.send, obj):
            assert b.recv() == obj


def test_arguments_by_name(pipe):
    a, b = pipe
    a.send(obj=1)
    assert b.poll(timeout=None) and b.recv() == 1
    a.send_bytes(buf=b"abcd", offset=1, size=2)
    assert b.recv_bytes(maxlength=2) == b"bc"
    a.send_bytes(size=2, buf=b"abcd")
    assert b.recv_bytes_into(buf=bytearray(3), offset=1) == 2
    for use in (a.send, lambda: a.send(1, 2), lambda: a.send(thing=1), lambda: a.recv(1)):
        with pytest.raises(TypeError):
            use()


def test_messages_of_any_buffer(pipe):
    a, b = pipe
    for buffer in (
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abcdef")[2:5],
        array.array("i", [1, 2, 3]),
        array.array("i"),
        memoryview(bytes(range(6))).cast("B", (2, 3)),
    ):
        a.send_bytes(buffer)
        assert b.recv_bytes() == memoryview(buffer).tobytes()


def test_part_of_a_buffer(pipe):
    a, b = pipe
    a.send_bytes(b"abcdef", 2)
    a.send_bytes(b"abcdef", 2, 3)
    a.send_bytes(array.array("i", [1, 2]), 4)
    a.send_bytes(b"abcdef", 6)
    assert [b.recv_bytes() for _ in range(4)] == [b"cdef", b"cde", struct.pack("i", 2), b""]


@pytest.mark.parametrize(
    "args, text",
    [
        ((-1,), "offset is negative"),
        ((7,), "buffer length < offset"),
        ((0, -1), "size is negative"),
        ((3, 4), "buffer length < offset + size"),
    ],
)
def test_parts_that_are_none(pipe, args, text):
    with pytest.raises(ValueError, match=f"^{text.replace('+', '.')}$"):
        pipe[0].send_bytes(b"abcdef", *args)
    assert not pipe[1].poll()


def test_receiving_into_a_buffer(pipe):
    a, b = pipe
    a.send_bytes(struct.pack("2i", 7, 8))
    numbers = array.array("i", [0] * 4)
    assert b.recv_bytes_into(numbers, numbers.itemsize) == 8
    assert list(numbers) == [0, 7, 8, 0]


def test_a_buffer_too_short_loses_nothing(pipe):
    a, b = pipe
    a.send_bytes(b"0123456789")
    a.send_bytes(b"next")
    with pytest.raises(kinfolk.BufferTooShort) as caught:
        b.recv_bytes_into(bytearray(12), 3)
    assert caught.value.args == (b"0123456789",)
    assert b.recv_bytes() == b"next"


@pytest.mark.parametrize(
    "buffer, offset, error",
    [(bytearray(3), -1, ValueError), (bytearray(3), 4, ValueError), (b"abc", 0, TypeError)],
)
def test_buffers_that_cannot_be_received_into_take_no_message(pipe, buffer, offset, error):
    a, b = pipe
    a.send_bytes(b"x")
    with pytest.raises(error):
        b.recv_bytes_into(buffer, offset)
    assert b.recv_bytes() == b"x"


def test_a_message_longer_than_allowed_ends_the_reading(pipe):
    a, b = pipe
    a.send_bytes(b"0123456789")
    with pytest.raises(OSError, match="^bad message length$"):
        b.recv_bytes(9)
    with pytest.raises(OSError, match="^connection is write-only$"):
        b.recv_bytes()
    b.send_bytes(b"but writing goes on")
    assert a.recv_bytes() == b"but writing goes on"


def test_a_message_longer_than_allowed_closes_a_reader():
    reader, writer = connection.Pipe(duplex=False)
    with reader, writer:
        writer.send_bytes(b"0123456789")
        with pytest.raises(OSError, match="^bad message length$"):
            reader.recv_bytes(9)
        assert reader.closed


@pytest.mark.parametrize("header", [struct.pack("!i", -2), struct.pack("!iQ", -1, 1 << 63)])
def test_an_impossible_length_is_an_error(pipe, header):
    a, b = pipe
    os.write(a.fileno(), header)
    with pytest.raises(OSError, match="^bad message length$"):
        b.recv()


@pytest.mark.parametrize("size", [10, 100_000])
def test_the_end_in_the_middle_of_a_message(size):
    a, b = connection.Pipe()
    with b:
        os.write(a.fileno(), struct.pack("!i", size) + b"half")
        a.close()
        with pytest.raises(OSError, match="^got end of file during message$"):
            b.recv_bytes()


def test_the_end_of_the_stream():
    a, b = connection.Pipe()
    with b:
        a.send(1)
        a.close()
        assert b.poll(None)
        assert b.recv() == 1
        assert b.poll()
        for receive in (b.recv, b.recv_bytes, lambda: b.recv_bytes_into(bytearray(1))):
            with pytest.raises(EOFError):
                receive()
        with pytest.raises(BrokenPipeError):
            b.send(1)


# The object


def test_one_way():
    reader, writer = connection.Pipe(duplex=False)
    with reader, writer:
        assert (reader.readable, reader.writable) == (True, False)
        assert (writer.readable, writer.writable) == (False, True)
        with pytest.raises(OSError, match="^connection is read-only$"):
            reader.send(1)
        for read in (writer.recv, writer.recv_bytes, writer.poll):
            with pytest.raises(OSError, match="^connection is write-only$"):
                read()


def test_closing():
    a, b = connection.Pipe()
    fd = a.fileno()
    with b, a as same:
        assert same is a and not a.closed
    assert a.closed
    a.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    for use in (a.fileno, a.recv, a.poll, lambda: a.send(1), lambda: pickle.dumps(a)):
        with pytest.raises(OSError, match="^handle is closed$"):
            use()


def test_what_is_no_handle():
    for handle, error in ((-1, ValueError), ("1", TypeError), (1.0, TypeError)):
        with pytest.raises(error):
            connection.Connection(handle)
    with pytest.raises(ValueError):
        connection.Connection(1, readable=False, writable=False)


def test_a_handle_may_be_taken_away():
    a, b = connection.Pipe()
    fd, a._handle = a._handle, None
    with b:
        del a
        os.close(fd)


def test_collected_connections_are_closed():
    a, b = connection.Pipe()
    with b:
        del a
        assert b.poll(None)


def test_a_signal_handler_runs_and_the_call_goes_on(pipe):
    a, b = pipe
    before = signal.signal(signal.SIGALRM, lambda *_: a.send("from the handler"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert b.recv() == "from the handler"
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert b.poll(None)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_end_the_wait(pipe):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for wait in (pipe[0].recv, lambda: connection.wait(pipe)):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                wait()
    finally:
        signal.signal(signal.SIGALRM, before)


# Sending connections


class Counting(connection.Connection):
    """A connection of a program's own."""


def check(conn):
    conn.send(("checked", type(conn) is connection.Connection))
    conn.close()


@pytest.mark.parametrize("method", METHODS)
def test_to_a_child(method):
    a, b = connection.Pipe()
    with a:
        child = kinfolk.get_context(method).Process(target=check, args=(b,))
        child.start()
        b.close()
        assert a.recv() == ("checked", True)
        child.join()
        child.close()


def forward(conn):
    for given in iter(conn.recv, None):
        given.send("forwarded")
        given.close()
    conn.close()


@pytest.mark.parametrize("method", METHODS)
def test_to_a_child_that_runs_already(method, pipe, sharer):
    a, b = connection.Pipe()
    child = kinfolk.get_context(method).Process(target=forward, args=(b,))
    child.start()
    b.close()
    with a:
        near, far = pipe
        a.send(far)
        far.close()
        assert near.recv() == "forwarded"
        a.send(None)
    child.join()
    child.close()


@pytest.mark.parametrize("module", [pickle, kinfolk.pickle])
def test_by_any_pickler(module, pipe, sharer):
    a, b = pipe
    with module.loads(module.dumps(b)) as copy:
        assert copy.fileno() != b.fileno()
        a.send("to either")
        assert copy.recv() == "to either"


def test_what_kind_and_direction_it_has_travels_too(sharer):
    reader, writer = connection.Pipe(duplex=False)
    with reader, writer, Counting(os.dup(writer.fileno()), readable=False) as writer:
        with pickle.loads(pickle.dumps(writer)) as copy:
            assert type(copy) is Counting
            assert not copy.readable
            copy.send(1)
        assert reader.recv() == 1


# Waiting


def test_wait_for_objects_of_all_kinds(pipe):
    a, b = pipe
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    with near, far, open(reader, "rb") as reader, open(writer, "wb", 0) as writer:
        watched = [a, far, reader.fileno(), b, near]
        assert connection.wait(watched, 0) == []
        assert connection.wait(watched, -1) == []
        assert connection.wait(watched, 0.001) == []
        a.send(1)
        near.send(b"x")
        writer.write(b"x")
        assert connection.wait(watched) == [far, reader.fileno(), b]
        assert connection.wait(iter(watched), 1e12) == [far, reader.fileno(), b]


@pytest.mark.parametrize("method", METHODS)
def test_wait_for_a_child(method, pipe):
    child = kinfolk.get_context(method).Process(target=int)
    child.start()
    assert connection.wait([pipe[0], child.sentinel]) == [child.sentinel]
    child.join()
    child.close()


def test_a_hang_up_is_ready():
    a, b = connection.Pipe()
    with b:
        a.close()
        assert connection.wait([b]) == [b]


def test_what_cannot_be_waited_for(pipe):
    a, _ = pipe
    for obj in ("x", object(), -1, 1.0):
        with pytest.raises(ValueError, match="^Invalid file"):
            connection.wait([obj])
    with pytest.raises(KeyError, match="is already registered"):
        connection.wait([a, a.fileno()])


# Meeting at an address


def test_addresses():
    kinds = {
        ("host", 1): "AF_INET",
        ("::1", 1, 0, 0): "AF_INET6",
        "/a/path": "AF_UNIX",
        "\0abstract": "AF_UNIX",
        b"\0abstract": "AF_UNIX",
        r"\\.\pipe": "AF_PIPE",
    }
    assert {address: connection.address_type(address) for address in kinds} == kinds
    for address in (b"path", None, 1, ["host", 1]):
        with pytest.raises((TypeError, ValueError), match="unrecognized"):
            connection.address_type(address)
    for family in connection.families:
        assert connection.address_type(connection.arbitrary_address(family)) == family
    for family in ("AF_PIPE", "AF_NONE"):
        with pytest.raises(ValueError):
            connection.Listener(family=family)


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


FAMILIES = [*connection.families, *(["AF_INET6"] if has_ipv6() else [])]
KEYS = [None, b"", b"a key"]


@pytest.mark.parametrize("authkey", KEYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_meeting(family, authkey):
    with connection.Listener(family=family, authkey=authkey) as listener:
        assert listener.last_accepted is None
        with in_thread(connection.Client, listener.address, family, authkey) as client:
            server = listener.accept()
        with server, client[0] as client:
            client.send("hello")
            assert server.recv() == "hello"


def test_an_abstract_name():
    with connection.Listener(f"\0kinfolk-test-{os.getpid()}") as listener:
        with connection.Client(listener.address) as client, listener.accept() as server:
            client.send("hello")
            assert server.recv() == "hello"


def test_a_path_is_there_while_it_is_listened_at():
    with connection.Listener() as listener:
        path = listener.address
        assert os.path.exists(path)
        with pytest.raises(OSError):
            connection.Listener(path)
    assert not os.path.exists(path)
    listener.close()
    for use in (listener.accept, lambda: listener.address):
        with pytest.raises(OSError, match="^listener is closed$"):
            use()
    with pytest.raises(FileNotFoundError):
        connection.Client(path)


def test_a_path_that_was_removed():
    with connection.Listener() as listener:
        os.unlink(listener.address)


def test_keys_are_bytes(pipe):
    with pytest.raises(TypeError):
        connection.Listener(authkey="text")
    with pytest.raises(TypeError):
        connection.Client("/a/path", authkey="text")
    for step in (connection.deliver_challenge, connection.answer_challenge):
        with pytest.raises(ValueError):
            step(pipe[0], "text")


# The handshake


@pytest.mark.parametrize("family", connection.families)
def test_a_handshake_with_the_standard_library(family):
    for ours, theirs in ((connection, stdlib), (stdlib, connection)):
        with ours.Listener(family=family, authkey=b"key") as listener:
            with in_thread(theirs.Client, listener.address, None, b"key") as client:
                server = listener.accept()
            with server, client[0] as client:
                server.send("welcome")
                assert client.recv() == "welcome"


@pytest.mark.parametrize("ours, theirs", [(connection, stdlib), (stdlib, connection)])
def test_the_wrong_key_is_refused(ours, theirs):
    with ours.Listener(authkey=b"key") as listener:
        with in_thread(theirs.Client, listener.address, None, b"other") as client:
            with pytest.raises((kinfolk.AuthenticationError, stdlib.AuthenticationError)):
                listener.accept()
        assert type(client.pop()).__name__ == "AuthenticationError"


@pytest.mark.parametrize("digest", [None, "md5", "sha256", "sha384", "sha3_256", "sha3_384"])
@pytest.mark.parametrize("answers", [connection, stdlib])
def test_every_dialect_is_answered(pipe, digest, answers):
    judge, other = pipe
    with answers.Connection(os.dup(other.fileno())) as other:
        with in_thread(answers.answer_challenge, other, b"key") as answer:
            connection.deliver_challenge(judge, b"key", digest)
        assert answer == [None]


def test_what_is_on_the_wire(pipe):
    judge, other = pipe
    with in_thread(connection.deliver_challenge, judge, b"key") as verdict:
        challenge = other.recv_bytes()
        nonce = challenge.removeprefix(b"#CHALLENGE#")
        other.send_bytes(connection._create_response(b"key", nonce))
        assert other.recv_bytes() == b"#WELCOME#"
    assert verdict == [None]
    modern = sys.version_info >= (3, 12)
    assert len(nonce) == (8 + 40 if modern else 20)
    assert nonce.startswith(b"{sha256}") == modern


@pytest.mark.parametrize(
    "answer",
    [b"", b"bogus", b"x" * 16, b"{sha256}" + b"x" * 32, b"{sha1}" + b"x" * 20, b"{sha256}"],
)
def test_wrong_answers(pipe, answer):
    judge, other = pipe
    other.send_bytes(answer)
    with pytest.raises(kinfolk.AuthenticationError):
        connection.deliver_challenge(judge, b"key")
    other.recv_bytes()
    assert other.recv_bytes() == b"#FAILURE#"


def test_wrong_judges(pipe):
    judge, other = pipe
    judge.send_bytes(b"no challenge")
    with pytest.raises(kinfolk.AuthenticationError, match="expected challenge"):
        connection.answer_challenge(other, b"key")
    judge.send_bytes(b"#CHALLENGE#" + b"x" * 20)
    judge.send_bytes(b"#FAILURE#")
    with pytest.raises(kinfolk.AuthenticationError, match="^digest sent was rejected$"):
        connection.answer_challenge(other, b"key")


def test_a_stranger_cannot_make_us_read_much(pipe):
    judge, other = pipe
    other.send_bytes(b"x" * 257)
    with pytest.raises(OSError, match="^bad message length$"):
        connection.deliver_challenge(judge, b"key")


# XML


def test_xml():
    with connection.XmlListener() as listener:
        with in_thread(connection.XmlClient, listener.address) as client:
            server = listener.accept()
        client = client.pop()
        try:
            client.send([1, None, {"a": "b"}])
            assert server.recv() == [1, None, {"a": "b"}]
            with pytest.raises(TypeError):
                client.send(object())
            server.send_bytes(b"raw")
            assert client.poll(None) and client.recv_bytes() == b"raw"
        finally:
            client.close()
            server.close()


def test_sockets_are_not_imported_before_they_are_needed():
    code = """if True:
        import sys
        import kinfolk.connection
        kinfolk.connection.Pipe(duplex=False)
        assert "socket" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)
