"""Pickling for other processes, and handing descriptors to them.

`ForkingPickler` is kinfolk's pickler (kinfolk.pickle, the one seam for all
sending) plus reducers that programs register for types of their own, and
one for sockets.  Connections need none: they reduce themselves.

A descriptor is a number that means something in one process only.  It gets
to another in one of two ways, and `DupFd` chooses:

* While a child is being started, the child inherits it: the Popen at work
  notes the descriptor and says what number it will have over there.
* At any other time it waits in the family's locker until nobody holds its
  stand-in any more: this process, a message under way, or one who got it.

`sendfds` and `recvfds` are the way through a Unix socket that is at hand: one
byte of data, the count modulo 256, with the descriptors as ancillary data,
the same on the wire as the standard library's.
"""

import copyreg
import io
import os
import sys
from contextlib import contextmanager

from . import _kin, context, pickle

__all__ = [
    "send_handle",
    "recv_handle",
    "ForkingPickler",
    "register",
    "dump",
    "DupFd",
    "sendfds",
    "recvfds",
]

# Every POSIX system that Python 3.10 runs processes on can pass descriptors.
HAVE_SEND_HANDLE = True


#: Type -> reducer, of those registered for sending.  kinfolk._kin asks here, too.
extra_reducers = {}


class ForkingPickler(pickle.Pickler):
    """kinfolk's pickler with the reducers registered for messages to other processes.

    Takes the arguments of pickle.Pickler.
    """

    # The receiver is of the family: names that every member has need not be backed by values.
    kin = True

    _extra_reducers = extra_reducers

    def __init__(self, *args, **kwds):
        super().__init__(*args, **kwds)
        if late_reducers:
            learn_late_reducers()
        # Without a table of its own a pickler uses copyreg's.
        if self._extra_reducers:
            self.dispatch_table = copyreg.dispatch_table | self._extra_reducers

    @classmethod
    def register(cls, type, reduce):
        """Have objects of exactly `type` pickled as `reduce(obj)` says (see object.__reduce__)."""
        cls._extra_reducers[type] = reduce

    @classmethod
    def dumps(cls, obj, protocol=None):
        """Return `obj` pickled, as a bytes-like object."""
        if cls is __class__:  # whatever a program has put in its place
            return memoryview(_kin.dumps_for_kin(obj, protocol))
        buf = io.BytesIO()
        cls(buf, protocol).dump(obj)
        return buf.getbuffer()

    loads = staticmethod(pickle.loads)

    @staticmethod
    def explain(error, parts):
        """Say in `error` where in `parts`, a dict of what was pickled, the culprit is; return it."""
        return pickle.explain_failure(error, None, parts=parts)


register = ForkingPickler.register


def dump(obj, file, protocol=None):
    """Write `obj` to `file` as ForkingPickler pickles it."""
    ForkingPickler(file, protocol).dump(obj)


def _reduce_socket(sock):
    return _rebuild_socket, (DupFd(sock.fileno()), sock.family, sock.type, sock.proto)


def _rebuild_socket(df, family, type, proto):
    import socket

    return socket.socket(family, type, proto, fileno=df.detach())


#: Module -> {type: reducer}.  There is nothing of such a type to pickle before the module was
#: imported, and importing it for the type alone would slow down every program's start.
late_reducers = {"socket": {"socket": _reduce_socket}}


def learn_late_reducers():
    """Register the reducers for types of modules that have been imported meanwhile."""
    for module, reducers in list(late_reducers.items()):
        if module in sys.modules:
            for name, reduce in reducers.items():
                kind = getattr(sys.modules[module], name, None)
                if kind is None:  # it is being imported
                    return
                extra_reducers.setdefault(kind, reduce)
            late_reducers.pop(module, None)


def DupFd(fd):
    """Return a picklable stand-in for descriptor `fd`, whose detach() gives a duplicate of it.

    detach() is for the receiver; the caller may close `fd`, or end, right away.
    """
    popen = context.get_spawning_popen()
    if popen is not None:
        return popen.DupFd(popen.duplicate_for_child(fd))
    return _kin.Descriptor(fd)


def send_handle(conn, handle, destination_pid):
    """Send descriptor `handle` over a connection that is a Unix socket."""
    with _socket_of(conn) as sock:
        sendfds(sock, [handle])


def recv_handle(conn):
    """Receive one descriptor over a connection that is a Unix socket.  Errors as in recvfds()."""
    with _socket_of(conn) as sock:
        return recvfds(sock, 1)[0]


@contextmanager
def _socket_of(conn):
    # The descriptor is borrowed, not duplicated: this must work at the
    # very limit of descriptors, too.
    import socket

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=conn.fileno())
    try:
        yield sock
    finally:
        sock.detach()


def sendfds(sock, fds):
    """Send the descriptors `fds` over a Unix socket."""
    import socket

    fds = list(fds)
    socket.send_fds(sock, [bytes([len(fds) % 256])], fds)


def recvfds(sock, size):
    """Receive up to `size` descriptors over a Unix socket and return them as a list.

    They are close-on-exec.  EOFError when the peer has closed; RuntimeError
    for data that brings no descriptors, and when some were lost on the way
    because the peer sent more than `size` or this process may open no more.
    Those that did arrive are then closed.
    """
    import socket
    from array import array

    fds = array("i")
    message, ancillary, flags, _ = sock.recvmsg(
        1, socket.CMSG_LEN(size * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    if not message and not ancillary:
        raise EOFError
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    problem = _problem_of(fds, message, ancillary, flags & socket.MSG_CTRUNC)
    if problem:
        _close_all(fds)
        raise problem
    return list(fds)


def _problem_of(fds, message, ancillary, truncated):
    if truncated:
        return RuntimeError(
            f"descriptors were lost on the way (MSG_CTRUNC): {len(fds)} of "
            f"{message[0] if message else 'some'} arrived; {_descriptor_limit()}"
        )
    if len(ancillary) != 1:
        return RuntimeError(f"received {len(ancillary)} items of ancdata")
    if not fds:
        return RuntimeError("Invalid data received")
    if not message or len(fds) % 256 != message[0]:
        return AssertionError(f"Len is {len(fds):n} but msg[0] is {message[:1]!r}")
    return None


def _descriptor_limit():
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"this process may open {soft} descriptors (RLIMIT_NOFILE)"


def _close_all(fds):
    for fd in fds:
        os.close(fd)


class AbstractReducer:
    """Base of a replacement for this module, to be set as the `reducer` of a context."""

    ForkingPickler = ForkingPickler
    register = staticmethod(register)
    dump = staticmethod(dump)
    send_handle = staticmethod(send_handle)
    recv_handle = staticmethod(recv_handle)
    sendfds = staticmethod(sendfds)
    recvfds = staticmethod(recvfds)
    DupFd = staticmethod(DupFd)

    def __init__(self, *args):
        """Take any arguments and do nothing with them: they are for subclasses."""
