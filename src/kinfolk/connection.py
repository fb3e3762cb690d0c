"""Connections: messages over a pipe or a socket, and how two ends meet.

A `Connection` owns one descriptor and sends whole messages through it, in the
standard library's format, so that either end may be one of its connections.
It is kinfolk._kin's (ext/connection.c); docs/channel.md says how it works.

`Pipe` makes both ends at once.  `Listener` and `Client` meet at an address,
and if they were given a key, each proves to the other that it holds it
before the first message (see _auth).  `wait` watches many ends (see _wait).

A connection can be pickled at any time, by any pickler: what travels is
a duplicate of its descriptor (see reduction.DupFd).
"""

import os
import sys

from . import _kin, reduction
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
from ._kin import Connection
from ._wait import wait
from .context import AuthenticationError, BufferTooShort  # noqa: F401

__all__ = ["Client", "Listener", "Pipe", "wait"]

if sys.version_info < (3, 12):
    CHALLENGE, WELCOME, FAILURE = _CHALLENGE, _WELCOME, _FAILURE

default_family = "AF_UNIX"
families = ["AF_INET", "AF_UNIX"]

# The class that carries these methods in the standard library, for isinstance().
_ConnectionBase = Connection


def reduce_connection(conn):
    """Return what a pickle holds of `conn`: a duplicate of its descriptor, and its class."""
    args = reduction.DupFd(conn.fileno()), conn.readable, conn.writable
    if type(conn) is not Connection or conn._transit is not None:
        args += type(conn), conn._transit
    return rebuild_connection, args


def rebuild_connection(df, readable, writable, kind=Connection, transit=None):
    """Make a connection, in the process that unpickles one, from the duplicate `df`."""
    conn = kind(df.detach(), readable, writable)
    if transit is not None:
        conn._transit = transit
    return conn


def Pipe(duplex=True):
    """Return two connected Connections.

    Either may send and receive; with `duplex` false the first only receives
    and the second only sends.
    """
    first, second = _kin.channel_pair(duplex)
    ends = Connection(first, writable=bool(duplex)), Connection(second, readable=bool(duplex))
    ends[0]._transit = ends[1]._transit = _new_transit()
    return ends


def _new_transit():
    try:
        return _kin.Transit()
    except (MemoryError, OSError, RuntimeError):
        # No family, or no room in it: then objects of it won't be sent, or are held by its own.
        return None


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
