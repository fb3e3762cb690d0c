"""Proxies: objects here that call the methods of objects in a manager's server.

Each thread keeps one connection to each server, its `_Line`, for as long as
the process has proxies for that server.  A request and its reply are one
exchange: if one is broken off in the middle (the server died, Ctrl-C), the
line is hung up, for what comes next on it would be the answer to somebody
else's question.  A thread that calls while it is in a call, from a signal
handler or a finalizer, does so by a connection of its own.

A proxy for an object in the arena has a handle on it, calls it here and knows no server
(_arena_proxies); all that follows is about the others.

A proxy counts as one reference to its object, from the moment it exists to the
moment it is collected, in each process that has it: unpickling one, and being
forked with one, counts.  The server counts one when it makes an object, and the
proxy that is made from the answer takes that one over (`Token.granted`).

A proxy is pickled as its token.  The server's key goes along only while a child
is being started; at other times, if it is not the key that all of the family
have, the name of a piece of the arena that holds it goes along, which is of use
to nobody outside.  What is pickled into a message or an object of the arena holds a lease, too:
as long as it lies there, the object is kept (Server.lend).  Unpickled in its own server, a
proxy counts there (Server.hold_for) and not by messages.
"""

import pickle
import threading
from typing import NamedTuple

from . import _kin, process, util
from . import _manager_wire as wire
from ._arena_proxies import is_named, open_named
from .context import get_spawning_popen

__all__ = ["BaseProxy", "RebuildProxy", "MakeProxyType", "AutoProxy", "State"]


class Peer(NamedTuple):
    """How to reach a server: the Client type of its serializer, its address, its key."""

    client: object
    address: object
    authkey: bytes

    def once(self, function, args=(), kwds=None):
        """Call a function of the server itself by a connection for this call alone."""
        conn = self.client(self.address, authkey=self.authkey)
        try:
            return wire.dispatch(conn, None, function, args, kwds or {})
        finally:
            conn.close()

    def connect(self):
        """Open a connection for calls of shared objects; return it and what else it is good for."""
        util.debug("making connection to manager")
        name = process.current_process().name
        if threading.current_thread() is not threading.main_thread():
            name += "|" + threading.current_thread().name
        conn = self.client(self.address, authkey=self.authkey)
        try:
            return conn, wire.dispatch(conn, None, "accept_connection", (name,)) or ()
        except BaseException:
            conn.close()
            raise


class _Line(util.ForkAwareLocal):
    """This thread's connection to one server: `connection`, while it is open."""

    busy = False
    extensions = ()

    def ask(self, peer, request):
        """Send a request, wait for the reply and return it."""
        ours = self.__dict__  # this thread's, looked up once
        if "busy" in ours:
            return self._ask_aside(peer, request)
        ours["busy"] = True
        try:
            connection = ours.get("connection") or self._connect(peer)
            connection.send(request)
            reply = connection.recv()
            del ours["busy"]
            return reply
        except BaseException:
            ours.pop("busy", None)
            self.hang_up()
            raise

    def _connect(self, peer):
        self.connection, self.extensions = peer.connect()
        return self.connection

    def _ask_aside(self, peer, request):
        conn, _extensions = peer.connect()
        try:
            conn.send(request)
            return conn.recv()
        finally:
            conn.close()

    def call_server(self, peer, function, args=(), kwds=None, opening=True):
        """Call a function of the server itself: by the line if the server lets us.

        With `opening` false only by a line that is open already.
        """
        if self.busy:
            return peer.once(function, args, kwds)
        self._hang_up_if_stale()
        if opening and not self.is_open():
            self._connect(peer)
        if not self.is_open() or wire.OWN_FUNCTIONS not in self.extensions:
            return peer.once(function, args, kwds)
        return wire.value_of(self.ask(peer, (None, function, args, kwds or {})))

    def offers(self, peer, extension):
        """Whether the server can do more than the standard library's."""
        self._hang_up_if_stale()
        if not self.is_open():
            self._connect(peer)
        return extension in self.extensions

    def is_open(self):
        """Whether there is a connection, be it to a server that is dead by now."""
        return hasattr(self, "connection")

    def hang_up(self):
        """Close the connection, if there is one and this thread is not in a call."""
        if self.busy or not self.is_open():
            return
        self.connection.close()
        del self.connection

    def _hang_up_if_stale(self):
        # Nothing is due on an idle line but the end: the server has gone, and
        # there may be another at its address.
        if not self.is_open():
            return
        try:
            stale = self.connection.poll()
        except OSError:
            stale = True
        if stale:
            self.hang_up()


class ProcessLocalSet(set):
    """A set that is empty in every new child."""

    def __init__(self):
        util.register_after_fork(self, lambda obj: obj.clear())

    def __reduce__(self):
        return type(self), ()


def line_to(address):
    """This process's (line, idents of the objects it has proxies for) at a server's address."""
    with BaseProxy._mutex:
        local = BaseProxy._address_to_local.get(address)
        if local is None:
            local = BaseProxy._address_to_local[address] = _Line(), ProcessLocalSet()
        return local


class BaseProxy:
    """A proxy for a shared object; subclasses add its methods, by `_callmethod`.

    `token` names the object and `serializer` says how to talk to its server.
    With `incref` it counts as a reference; `manager_owned` is said of a proxy
    that lives in the server of its own object.
    """

    # What it has in the arena, and what _callmethod() needs of that at hand.
    _backing = _calls = _target = _ended = None
    # What the server was told of, to keep the object while messages hold it.
    _lease = None

    # address: what line_to() returns
    _address_to_local = {}
    _mutex = util.ForkAwareThreadLock()

    def __init__(
        self,
        token,
        serializer,
        manager=None,
        authkey=None,
        exposed=None,
        incref=True,
        manager_owned=False,
    ):
        self._tls, self._idset = line_to(token.address)
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._Client = wire.listener_client[serializer][1]
        self._owned_by_manager = manager_owned
        self._authkey = _key_for(manager, authkey)
        self._peer = Peer(self._Client, token.address, self._authkey)
        if is_named(token.id):
            self._open()
        if incref and self._backing is None:
            self._incref()
        util.register_after_fork(self, BaseProxy._after_fork)

    def _open(self):
        self._backing = backing = open_named(self._id)
        if backing is not None:
            self._calls = backing.type.calls
            self._target = backing.target
            self._ended = backing.life.ended

    def _callmethod(self, methodname, args=(), kwds={}):  # noqa: B006 (read only)
        """Call a method of the object, and return a copy of the result or a proxy for it.

        Raises what the method raised, RemoteError if the request itself went
        wrong, EOFError or OSError at once if the server is dead or was shut down.
        """
        if self._calls is not None:
            if self._ended[0]:
                self._backing.life.check()
            try:
                function = self._calls[methodname]
            except KeyError:
                raise self._not_exposed(methodname) from None
            return function(self._target, *args, **kwds)
        reply = self._tls.ask(self._peer, (self._id, methodname, args, kwds))
        if reply[0] == "#RETURN":
            return reply[1]
        try:
            return wire.value_of(reply, self._result_proxy)
        finally:
            # Else an error would hold this frame, and this frame the error.
            del reply

    def _not_exposed(self, methodname):
        exposed = self._backing.type.exposed
        return wire.RemoteError(
            f"AttributeError: method {methodname!r} of {self._target!r} is not in {exposed=!r}\n"
        )

    def _result_proxy(self, exposed, token):
        token.address = self._token.address
        if self._manager is not None:
            proxytype = self._manager._registry[token.typeid][-1]
        else:
            # Made elsewhere, so without its manager.
            proxytype = known_proxytypes.get(token.typeid, AutoProxy)
        return adopt(proxytype, token, self._serializer, self._manager, self._authkey, exposed)

    def _getvalue(self):
        """A copy of the object itself."""
        return self._callmethod("#GETVALUE")

    def _incref(self):
        if self._owned_by_manager:
            util.debug("owned_by_manager skipped INCREF of %r", self._id)
            return
        if self._token.granted:
            self._token.granted = False
        else:
            self._tls.call_server(self._peer, "incref", (self._id,))
            util.debug("INCREF %r", self._id)
        self._idset.add(self._id)
        self._close = util.Finalize(
            self,
            BaseProxy._decref,
            args=(
                self._token,
                self._authkey,
                self._manager and self._manager._state,
                self._tls,
                self._idset,
                self._Client,
            ),
            exitpriority=10,
        )

    @staticmethod
    def _decref(token, authkey, state, tls, idset, _Client):
        idset.discard(token.id)
        if state is None or state.value == State.STARTED:
            util.debug("DECREF %r", token.id)
            try:
                peer = Peer(_Client, token.address, authkey)
                tls.call_server(peer, "decref", (token.id,), opening=False)
            except Exception as error:
                util.debug("... decref failed %s", error)
        else:
            util.debug("DECREF %r -- manager already shutdown", token.id)
        if not idset:
            util.debug(
                "thread %r has no more proxies so closing conn", threading.current_thread().name
            )
            tls.hang_up()

    def _after_fork(self):
        self._manager = None
        if self._backing is not None:
            return
        try:
            self._incref()
        except Exception as error:
            # Its manager may have been shut down.
            util.info("incref failed: %s", error)

    def _lend(self):
        """A piece of the arena: our object stays as long as anybody holds it.

        None if it is not needed (the server is being told of us, or a child that has us by other
        ways) or not to be had: the server is not of our family, or is dead.
        """
        if self._tls.busy or get_spawning_popen() is not None:
            return None
        lease = _kin.Memory(1)
        try:
            if self._owned_by_manager:
                process.current_process()._manager_server.lend(None, self._id, lease.ref)
            elif self._tls.offers(self._peer, wire.LEASES):
                self._tls.call_server(self._peer, "lend", (self._id, lease.ref))
            else:
                return None
        except Exception as error:
            util.debug("no lease: %s", error)
            return None
        return lease

    def __reduce__(self):
        if self._backing is not None:
            self._backing.mention()
        else:
            self._lease = self._lease or self._lend()
            if self._lease is not None:
                self._lease.__reduce__()
        kwds = {}
        if get_spawning_popen() is not None:
            kwds["authkey"] = self._authkey
        elif self._authkey != process.current_process().authkey:
            kwds["sealed_key"] = _seal(self._authkey)
        if getattr(self, "_isauto", False):
            kwds["exposed"] = self._exposed_
            return RebuildProxy, (AutoProxy, self._token, self._serializer, kwds)
        return RebuildProxy, (type(self), self._token, self._serializer, kwds)

    def __deepcopy__(self, memo):
        return self._getvalue()

    def __repr__(self):
        return f"<{type(self).__name__} object, typeid {self._token.typeid!r} at {id(self):#x}>"

    def __str__(self):
        # That of the object, if it can be had.
        try:
            return self._callmethod("__repr__")
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


class State:
    """How far a manager is with its server."""

    __slots__ = ("value",)
    INITIAL = 0
    STARTED = 1
    SHUTDOWN = 2


# -- Making proxies ----------------------------------------------------------------

# typeid: proxy type, of all that were ever registered with any manager
known_proxytypes = {}


def adopt(proxytype, token, serializer, manager, authkey, exposed):
    """Make a proxy from a token for which the server has counted a reference already."""
    token.granted = True
    try:
        return proxytype(token, serializer, manager=manager, authkey=authkey, exposed=exposed)
    finally:
        if token.granted:
            # Nobody took it over: a proxy type may be any function.
            token.granted = False
            client = wire.listener_client[serializer][1]
            Peer(client, token.address, authkey).once("decref", (token.id,))


def RebuildProxy(func, token, serializer, kwds):
    """Make the proxy `func(token, serializer, **kwds)` that was pickled."""
    kwds = dict(kwds)
    if "sealed_key" in kwds:
        kwds["authkey"] = _unseal(kwds.pop("sealed_key"))
    current = process.current_process()
    # A child that is still unpickling what it starts with counts its proxies
    # when it is done, by _after_fork().
    kwds["incref"] = kwds.get("incref", True) and not getattr(current, "_inheriting", False)
    server = getattr(current, "_manager_server", None)
    if server is None or server.address != token.address or is_named(token.id):
        return func(token, serializer, **kwds)
    util.debug("Rebuild a proxy owned by manager, token=%r", token)
    return server.hold_for(token.id, lambda: func(token, serializer, manager_owned=True, **kwds))


_made_types = {}


def MakeProxyType(name, exposed):
    """A subclass of BaseProxy called `name` with the methods named in `exposed`.

    The same type again for the same arguments.
    """
    key = name, tuple(exposed)
    if key not in _made_types:
        members = {method: _calling(name, method) for method in exposed}
        members["_exposed_"] = key[1]
        _made_types[key] = type(name, (BaseProxy,), members)
    return _made_types[key]


def _calling(type_name, name):
    def method(self, /, *args, **kwds):
        return self._callmethod(name, args, kwds)

    method.__name__ = name
    method.__qualname__ = f"{type_name}.{name}"
    return method


def AutoProxy(
    token, serializer, manager=None, authkey=None, exposed=None, incref=True, manager_owned=False
):
    """A proxy with the methods that the server exposes, which it is asked for unless given."""
    authkey = _key_for(manager, authkey)
    if exposed is None:
        peer = Peer(wire.listener_client[serializer][1], token.address, authkey)
        exposed = peer.once("get_methods", (token,))
    proxytype = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)
    proxy = proxytype(
        token,
        serializer,
        manager=manager,
        authkey=authkey,
        incref=incref,
        manager_owned=manager_owned,
    )
    proxy._isauto = True
    return proxy


# -- Keys --------------------------------------------------------------------------

# key: the piece of the arena that it is written in, kept as long as this process lives
_sealed_keys = {}


def _key_for(manager, authkey):
    if authkey is not None:
        return process.AuthenticationString(authkey)
    if manager is not None:
        return manager._authkey
    return process.current_process().authkey


def _seal(authkey):
    key = bytes(authkey)
    if key not in _sealed_keys:
        memory = _kin.Memory(len(key))
        memoryview(memory)[:] = key
        _sealed_keys[key] = memory
    return pickle.dumps(_sealed_keys[key])


def _unseal(sealed):
    try:
        return process.AuthenticationString(bytes(pickle.loads(sealed)))
    except Exception:
        # Not of that family, or too late: our own key may do.
        return None
