"""What a manager's server and its callers say to each other.

Each connection is authenticated both ways (unless in one family by no key at
all: there is always one), and then carries requests and replies, one of
each at a time, the same as the standard library's, so that either side may be
one of its own.

    to the server itself     (None, function, args, kwds)       one, then the connection closes
    to a shared object       (ident, method, args, kwds)        after function accept_connection

    replies                  ('#RETURN', value)
                             ('#PROXY', (exposed, token))       the value stays; call it by a proxy
                             ('#ERROR', exception)              the method raised it
                             ('#TRACEBACK', text)               the request itself went wrong
                             ('#UNSERIALIZABLE', text)          the reply cannot be pickled

kinfolk's server says one thing more: it answers accept_connection not with None
but with EXTENSIONS.  OWN_FUNCTIONS among them means that functions of the server
itself can be called on that connection too, any number of times, which saves
a connection and a handshake for each object made and each proxy given up;
LEASES, that lend is among those.
"""

from . import connection

__all__ = ["Token", "RemoteError", "dispatch", "convert_to_error", "listener_client"]

OWN_FUNCTIONS = "own functions"
LEASES = "leases"
EXTENSIONS = [OWN_FUNCTIONS, LEASES]

# By the name of the serializer.
listener_client = {
    "pickle": (connection.Listener, connection.Client),
    "xmlrpclib": (connection.XmlListener, connection.XmlClient),
}


class Token:
    """The name of a shared object: its type's id, its server's address, its ident there.

    `granted`, which is never sent, means that the server counts a reference
    already for whoever makes the first proxy from this token.
    """

    __slots__ = ("typeid", "address", "id", "granted")

    def __init__(self, typeid, address, id):
        self.__setstate__((typeid, address, id))

    def __getstate__(self):
        return self.typeid, self.address, self.id

    def __setstate__(self, state):
        self.typeid, self.address, self.id = state
        self.granted = False

    def __repr__(self):
        words = f"typeid={self.typeid!r}, address={self.address!r}, id={self.id!r}"
        return f"{type(self).__name__}({words})"


class RemoteError(Exception):
    """Something went wrong in the server; the text is the traceback from there."""

    def __str__(self):
        return "\n" + "-" * 75 + "\n" + str(self.args[0]) + "-" * 75


def dispatch(c, id, methodname, args=(), kwds={}):  # noqa: B006 (read only)
    """Call a method by the connection `c` and return what it returned, or raise what it raised."""
    c.send((id, methodname, args, kwds))
    return value_of(c.recv())


def value_of(reply, on_proxy=None):
    """The value in a reply; raises if it reports an error.

    A '#PROXY' is passed to `on_proxy`, whose result is then the value.
    """
    kind, result = reply
    if kind == "#RETURN":
        return result
    if kind == "#PROXY" and on_proxy is not None:
        return on_proxy(*result)
    try:
        raise convert_to_error(kind, result)
    finally:
        # Else the exception would hold this frame, and this frame the exception.
        del reply, result


def convert_to_error(kind, result):
    """The exception that a reply of this kind stands for."""
    if kind == "#ERROR":
        return result
    if kind not in ("#TRACEBACK", "#UNSERIALIZABLE"):
        return ValueError(f"Unrecognized message type {kind!r}")
    if not isinstance(result, str):
        raise TypeError(f"Result {result!r} (kind '{kind}') type is {type(result)}, not str")
    if kind == "#UNSERIALIZABLE":
        return RemoteError(f"Unserializable message: {result}\n")
    return RemoteError(result)
