"""Connections: messages over a pipe or a socket, and how two ends meet.

A `Connection` owns one descriptor and sends whole messages through it.  On
the wire a message is its length and its bytes:

    up to 0x7fffffff bytes    !i length                  payload
    more                      !i -1    !Q length         payload

which is what the standard library writes, so that either end may be one of
its connections.  A small message leaves in one system call; a large one is
gathered by writev(), not copied.  Nothing is read beyond the end of the
message asked for: what is left in the pipe belongs to whoever reads next, in
whatever process.

`Pipe` makes both ends at once.  `Listener` and `Client` meet at an address,
and if they were given a key, each proves to the other that it holds it
before the first message (see _auth).  `wait` watches many ends (see _wait).

A connection can be pickled at any time, by any pickler: what travels is
a duplicate of its descriptor (see reduction.DupFd).

An interrupted system call is taken up again once Python's signal handlers
have run; if one of them raises in the middle of a message, the stream is out
of step and the connection is of no more use, as in the standard library.
"""

import io
import operator
import os
import struct
import sys

from . import context, reduction
from ._auth import (  # noqa: F401 (names that callers and tests reach for here)
    _CHALLENGE,
    _FAILURE,
    _WELCOME,
    MESSAGE_LENGTH,
    _create_response,
    _verify_challenge,
    answer_challenge,
    deliver_challenge,
)
from ._wait import readable, wait
from .context import AuthenticationError, BufferTooShort  # noqa: F401

__all__ = ["Client", "Listener", "Pipe", "wait"]

if sys.version_info < (3, 12):
    CHALLENGE, WELCOME, FAILURE = _CHALLENGE, _WELCOME, _FAILURE

default_family = "AF_UNIX"
families = ["AF_INET", "AF_UNIX"]

_HEADER = struct.Struct("!i")
_LONG_HEADER = struct.Struct("!iQ")
_LONG_SIZE = struct.Struct("!Q")
_MAX_SHORT = 0x7FFFFFFF

# Bytes.  Up to here a message is joined with its header for one write(), which
# costs less than a vector of two.
_JOIN_LIMIT = 16384
# Bytes.  From here on a message is read in place: read() would allocate all
# that is missing for every piece that a pipe hands out.
_IN_PLACE_FROM = 65536


class Connection:
    """One end of a stream of messages over the descriptor `handle`, which it owns.

    TypeError or ValueError for what is no descriptor.  A connection that is
    collected while open is closed.  Two threads or processes that read, or
    write, at the same time may get each other's bytes.
    """

    _handle = None

    def __init__(self, handle, readable=True, writable=True):
        handle = operator.index(handle)
        if handle < 0:
            raise ValueError("invalid handle")
        if not readable and not writable:
            raise ValueError("at least one of `readable` and `writable` must be True")
        self._handle = handle
        self._readable = readable
        self._writable = writable

    def __del__(self):
        if self._handle is not None:
            self._close()

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()

    def __reduce__(self):
        return reduce_connection(self)

    @property
    def closed(self):
        """True if the connection is closed"""
        return self._handle is None

    @property
    def readable(self):
        """True if the connection is readable"""
        return self._readable

    @property
    def writable(self):
        """True if the connection is writable"""
        return self._writable

    def fileno(self):
        """Return the descriptor.  OSError once closed."""
        self._check_closed()
        return self._handle

    def close(self):
        """Close the descriptor.  Closing again does nothing."""
        if self._handle is None:
            return
        try:
            self._close()
        finally:
            self._handle = None

    def send(self, obj):
        """Send a picklable object.  OSError if closed, read-only, or the peer has gone."""
        self._check_writable()
        self._send_bytes(_pickler().dumps(obj))

    def send_bytes(self, buf, offset=0, size=None):
        """Send `size` bytes of a bytes-like object from `offset` (bytes), or all the rest."""
        self._check_writable()
        self._send_bytes(_part_of(_flat(buf), offset, size))

    def recv(self):
        """Receive an object.  EOFError when the peer has closed and all is read."""
        self._check_readable()
        return _pickler().loads(self._recv_bytes())

    def recv_bytes(self, maxlength=None):
        """Receive one message as bytes.

        A message longer than `maxlength` is an OSError, and the connection
        can then be read no more.  EOFError as in recv().
        """
        self._check_readable()
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        return self._recv_bytes(maxlength)

    def recv_bytes_into(self, buf, offset=0):
        """Receive one message into a writable buffer from `offset` (bytes); return its length.

        BufferTooShort, with the whole message as its argument, if it does not fit.
        """
        self._check_readable()
        view = _flat(buf)
        if view.readonly:
            raise TypeError("a writable bytes-like object is required")
        if offset < 0:
            raise ValueError("negative offset")
        if offset > len(view):
            raise ValueError("offset too large")
        fd = self.fileno()
        size = self._recv_size(fd)
        if offset + size > len(view):
            raise BufferTooShort(_read(fd, size))
        _read_into(fd, view[offset : offset + size])
        return size

    def poll(self, timeout=0.0):
        """Whether there is something to read within `timeout` seconds (None: wait for it).

        The end of the stream counts.  Nothing is taken from it.
        """
        self._check_readable()
        return self._poll(timeout)

    # The default keeps os.close at hand when the interpreter is being torn down.
    def _close(self, _close=os.close):
        _close(self._handle)

    def _check_closed(self):
        if self._handle is None:
            raise OSError("handle is closed")

    def _check_readable(self):
        self._check_closed()
        if not self._readable:
            raise OSError("connection is write-only")

    def _check_writable(self):
        self._check_closed()
        if not self._writable:
            raise OSError("connection is read-only")

    def _bad_message_length(self):
        # The payload stays unread, so nothing that follows can be understood.
        if self._writable:
            self._readable = False
        else:
            self.close()
        raise OSError("bad message length")

    def _poll(self, timeout):
        return readable(self.fileno(), timeout)

    def _send_bytes(self, buf):
        fd = self.fileno()
        size = len(buf)
        if size > _MAX_SHORT:
            _write_all(fd, _LONG_HEADER.pack(-1, size), buf)
        elif size > _JOIN_LIMIT:
            _write_all(fd, _HEADER.pack(size), buf)
        else:
            message = _HEADER.pack(size) + buf
            done = os.write(fd, message)
            if done < len(message):
                _write_all(fd, memoryview(message)[done:])

    def _recv_bytes(self, maxlength=None):
        fd = self.fileno()
        return _read(fd, self._recv_size(fd, maxlength))

    def _recv_size(self, fd, maxlength=None):
        (size,) = _HEADER.unpack(_read(fd, 4))
        if size == -1:
            (size,) = _LONG_SIZE.unpack(_read(fd, 8))
        if not 0 <= size <= (sys.maxsize if maxlength is None else maxlength):
            self._bad_message_length()
        return size


# The class that carries these methods in the standard library, for isinstance().
_ConnectionBase = Connection


def _pickler():
    # A program may have set a reducer of its own (see BaseContext.reducer).
    return (context._reducer or reduction).ForkingPickler


def _read(fd, size):
    """Return the next `size` bytes of a stream."""
    if size >= _IN_PLACE_FROM:
        return _read_large(fd, size)
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise _end_of_stream(len(data))
        data += more
    return data


def _read_large(fd, size):
    # A BytesIO fills the one bytes object that it was given and hands it out
    # again uncopied.  The zeroes in it are the kernel's: memory is taken as
    # bytes arrive, not when a length is claimed.
    store = io.BytesIO(bytes(size))
    with store.getbuffer() as view:
        _read_into(fd, view)
    return store.getvalue()


def _read_into(fd, view):
    """Fill `view` with the next bytes of a stream."""
    done = 0
    while done < len(view):
        count = os.readv(fd, [view[done:]])
        if not count:
            raise _end_of_stream(done)
        done += count


def _end_of_stream(received):
    return OSError("got end of file during message") if received else EOFError()


def _write_all(fd, *parts):
    parts = [memoryview(part) for part in parts]
    while parts:
        done = os.writev(fd, parts)
        while parts and done >= len(parts[0]):
            done -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][done:]


def _flat(buf):
    """Return a view of the bytes of `buf`, whatever its shape and item type."""
    view = memoryview(buf)
    if view.itemsize == 1 and view.ndim == 1:
        return view
    from pickle import PickleBuffer

    return PickleBuffer(view).raw()


def _part_of(view, offset, size):
    if offset < 0:
        raise ValueError("offset is negative")
    if len(view) < offset:
        raise ValueError("buffer length < offset")
    if size is None:
        return view[offset:]
    if size < 0:
        raise ValueError("size is negative")
    if offset + size > len(view):
        raise ValueError("buffer length < offset + size")
    return view[offset : offset + size]


def reduce_connection(conn):
    """Return what a pickle holds of `conn`: a duplicate of its descriptor, and its class."""
    args = reduction.DupFd(conn.fileno()), conn.readable, conn.writable
    if type(conn) is not Connection:
        args += (type(conn),)
    return rebuild_connection, args


def rebuild_connection(df, readable, writable, kind=Connection):
    """Make a connection, in the process that unpickles one, from the duplicate `df`."""
    return kind(df.detach(), readable, writable)


def Pipe(duplex=True):
    """Return two connected Connections.

    Either may send and receive; with `duplex` false the first only receives
    and the second only sends.
    """
    if not duplex:
        reader, writer = os.pipe()
        return Connection(reader, writable=False), Connection(writer, readable=False)
    import socket

    return tuple(map(_connection_from, socket.socketpair()))


def _connection_from(sock):
    # A program may have set a default timeout, which makes sockets non-blocking.
    sock.setblocking(True)
    return Connection(sock.detach())


def arbitrary_address(family):
    """Return an address of `family` that nobody uses.  ValueError for an unknown family."""
    if family == "AF_UNIX":
        from . import util

        return os.path.join(util.get_temp_dir(), "listener-" + os.urandom(8).hex())
    if family == "AF_INET":
        return "localhost", 0
    if family == "AF_INET6":
        return "::1", 0
    raise ValueError("unrecognized family")


def address_type(address):
    """Return the family that `address` belongs to.  ValueError if it is of none."""
    if isinstance(address, tuple):
        return "AF_INET6" if len(address) == 4 else "AF_INET"
    if isinstance(address, str) and address.startswith("\\\\"):
        return "AF_PIPE"
    if isinstance(address, str) or _is_abstract(address):
        return "AF_UNIX"
    raise ValueError(f"address type of {address!r} unrecognized")


def _is_abstract(address):
    from . import util

    return util.is_abstract_socket_namespace(address)


def _validate_family(family):
    if family == "AF_PIPE":
        raise ValueError(f"Family {family} is not recognized.")


def _check_authkey(authkey):
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError("authkey should be a byte string")


class Listener:
    """A bound socket that accepts connections.

    `address` is a path (or an abstract name, which starts with a zero byte)
    or a (host, port) pair; without one a free address of `family` is taken.
    `backlog` connections may wait to be accepted.  With `authkey`, bytes, a
    peer must prove that it holds the same key, and so do we; an empty key
    is a key.
    """

    def __init__(self, address=None, family=None, backlog=1, authkey=None):
        _check_authkey(authkey)
        family = family or (address and address_type(address)) or default_family
        _validate_family(family)
        self._listener = SocketListener(address or arbitrary_address(family), family, backlog)
        self._authkey = authkey

    def accept(self):
        """Wait for a peer and return the Connection to it.

        AuthenticationError if it did not prove itself, OSError if the listener is closed.
        """
        conn = self._open().accept()
        if self._authkey is None:
            return conn
        return _authenticated(conn, self._authkey, deliver_challenge, answer_challenge)

    def close(self):
        """Stop listening and remove the path, if there was one."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    @property
    def address(self):
        """Where it listens: what a Client is given."""
        return self._open()._address

    @property
    def last_accepted(self):
        """The address of the peer accepted last, None before the first."""
        return self._open()._last_accepted

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()

    def _open(self):
        if self._listener is None:
            raise OSError("listener is closed")
        return self._listener


def Client(address, family=None, authkey=None):
    """Connect to the Listener at `address` and return the Connection to it.

    AuthenticationError if one of the two does not hold the other's `authkey`.
    """
    _check_authkey(authkey)
    _validate_family(family or address_type(address))
    conn = SocketClient(address, family)
    if authkey is None:
        return conn
    return _authenticated(conn, authkey, answer_challenge, deliver_challenge)


def _authenticated(conn, authkey, *steps):
    try:
        for step in steps:
            step(conn, authkey)
    except BaseException:
        conn.close()
        raise
    return conn


class SocketListener:
    """The socket behind a Listener."""

    def __init__(self, address, family, backlog=1):
        import socket

        self._family = family
        self._last_accepted = None
        self._unlink = None
        self._socket = socket.socket(getattr(socket, family))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(True)
            self._socket.bind(address)
            self._socket.listen(backlog)
            self._address = self._socket.getsockname()
        except BaseException:
            self._socket.close()
            raise
        if family == "AF_UNIX" and not _is_abstract(address):
            from . import util

            self._unlink = util.Finalize(self, _remove_path, args=(address,), exitpriority=0)

    def accept(self):
        sock, self._last_accepted = self._socket.accept()
        return _connection_from(sock)

    def close(self):
        try:
            self._socket.close()
        finally:
            unlink, self._unlink = self._unlink, None
            if unlink is not None:
                unlink()


def _remove_path(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def SocketClient(address, family=None):
    """Return a Connection to the listening socket at `address`."""
    import socket

    # Only AF_INET6 cannot be told from the address: a (host, port) pair means AF_INET.
    if family != "AF_INET6":
        family = address_type(address)
    with socket.socket(getattr(socket, family)) as sock:
        sock.setblocking(True)
        sock.connect(address)
        return _connection_from(sock)


class ConnectionWrapper:
    """A connection `conn` whose objects are written by `dumps` and read by `loads`."""

    def __init__(self, conn, dumps, loads):
        self._conn = conn
        self._dumps = dumps
        self._loads = loads
        for name in ("fileno", "close", "poll", "recv_bytes", "send_bytes"):
            setattr(self, name, getattr(conn, name))

    def send(self, obj):
        """Send an object that XML-RPC can express."""
        self._conn.send_bytes(self._dumps(obj))

    def recv(self):
        """Receive an object.  EOFError when the peer has closed."""
        return self._loads(self._conn.recv_bytes())


def _speaking_xml(conn):
    from xmlrpc import client as xmlrpc

    def dumps(obj):
        return xmlrpc.dumps((obj,), allow_none=True).encode("utf-8")

    def loads(data):
        (obj,), _ = xmlrpc.loads(data.decode("utf-8"))
        return obj

    return ConnectionWrapper(conn, dumps, loads)


class XmlListener(Listener):
    """A Listener whose connections speak XML instead of pickles."""

    def accept(self):
        """As Listener.accept()."""
        return _speaking_xml(super().accept())


def XmlClient(*args, **kwds):
    """As Client(), speaking XML instead of pickles."""
    return _speaking_xml(Client(*args, **kwds))
