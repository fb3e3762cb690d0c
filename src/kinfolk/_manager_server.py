"""The server of a manager: one process that holds objects, and threads that call them.

One thread accepts connections, and each connection has a thread that serves it.
A shared object is known by its ident and is kept by three counts:

* `id_to_refcount`: proxies elsewhere, which count themselves by incref and decref;
* leases: pieces of the arena that messages and objects in it hold, in which a pickled proxy lies;
* proxies in this process, stored inside other shared objects (a list of
  lists): they count by being alive, in `id_to_local_proxy_obj`.

An object is given up when all have gone.  Nobody tells us of the end of a lease: we look whether its
ref has become stale, before each request while there is an object that only a lease keeps.
Between a reply that carries a proxy
and the incref of the one who gets it lies a moment in which neither counts;
the serving thread bridges it: it keeps each reply until the next request on that
connection, which cannot come before the caller has unpickled the reply.

The end of a proxy in this process may come anywhere, in the middle of an
allocation under `mutex`.  So its callback only notes the ident, and the next
thread that passes by a safe place settles it (`_settle`).  Objects are dropped
outside `mutex`: what they do when they go is their own affair.

Objects in the arena are no affair of ours, until somebody asks for one who is not of the family:
then there is a `_Referent` for it here.

A process forked from here (a worker of a Pool that is shared, say) closes its
copies of the connections and of the listening socket: else callers would
wait for it once the server is dead.

The process that started the server ends it.  If that one is killed, the server
ends when nobody has been connected for a while, so that nothing is left behind.
"""

import functools
import os
import sys
import threading
import time
import weakref
from collections import Counter, deque
from traceback import format_exc

from . import _kin, connection, process, shared_memory, util
from ._arena_proxies import is_named, open_named
from ._manager_gate import Gate
from ._manager_wire import EXTENSIONS, Token, listener_client

__all__ = ["Server", "SharedMemoryServer"]

# Returned by a function of the server that has sent its reply itself.
_REPLIED = object()

# Seconds that a server without a parent waits for somebody to connect.
_ORPHAN_GRACE = 5.0

# Seconds between looks for leases that have ended, and how many may be looked at any time.
_LEASE_PERIOD = 1.0
_FEW = 16

# Seconds before accept() is tried again, when descriptors have run out, say.
_ACCEPT_PAUSE = 0.05


class Server:
    """Holds objects of the types in `registry` and serves them at `address` until shut down.

    `authkey` (bytes) is what callers must hold; `serializer` is 'pickle' or 'xmlrpclib'.
    """

    # What a caller may ask of the server itself.
    public = [
        "shutdown",
        "create",
        "accept_connection",
        "get_methods",
        "debug_info",
        "number_of_objects",
        "dummy",
        "incref",
        "decref",
        "lend",
    ]

    def __init__(self, registry, address, authkey, serializer):
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        self.registry = registry
        self.authkey = process.AuthenticationString(authkey)
        listener_type, _client_type = listener_client[serializer]
        # Without a key: a handshake is the business of the thread that serves the caller.
        self.listener = listener_type(address=address, backlog=128)
        self.address = self.listener.address
        self._gate = Gate()

        # ident: (object, names of exposed methods, {name of method: typeid of its result})
        self.id_to_obj = {}
        self.id_to_refcount = {}
        self.id_to_local_proxy_obj = {}
        self._local_proxies = Counter()
        self._gone_proxies = deque()
        # ident: refs of leases; and the idents that nothing else keeps
        self._leases = {}
        self._only_lent = set()
        self._next_look = 0.0
        self.mutex = threading.Lock()
        # Objects are made one at a time, as factories of singletons expect.
        self._creating = threading.RLock()
        self._callers = 0
        self._callers_changed = threading.Condition()
        self.stop_event = threading.Event()
        util.register_after_fork(self, Server._after_fork)

    def _after_fork(self):
        self.listener.close()

    def serve_forever(self):
        """Serve until shut down, and then end the process (SystemExit)."""
        process.current_process()._manager_server = self
        for target in (self.accepter, self._end_as_orphan):
            threading.Thread(target=target, daemon=True).start()
        try:
            self.stop_event.wait()
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            self._restore_streams()
            sys.exit(0)

    def _restore_streams(self):
        if sys.stdout is not sys.__stdout__:
            util.debug("resetting stdout, stderr")
            sys.stdout = sys.__stdout__
            sys.stderr = sys.__stderr__

    def _end_as_orphan(self):
        parent = process.parent_process()
        if parent is None:
            return
        parent.join()
        with self._callers_changed:
            while True:
                self._callers_changed.wait_for(lambda: not self._callers)
                if not self._callers_changed.wait_for(lambda: self._callers, _ORPHAN_GRACE):
                    break
        util.info("the parent and all callers of the manager have gone")
        self.stop_event.set()

    # -- Connections ------------------------------------------------------------

    def accepter(self):
        """Give each caller a thread, until shut down."""
        while not self.stop_event.is_set():
            try:
                conn = self.listener.accept()
            except OSError:
                self.stop_event.wait(_ACCEPT_PAUSE)
                continue
            try:
                threading.Thread(target=self.handle_request, args=(conn,), daemon=True).start()
            except RuntimeError as error:
                util.info("no thread for a caller: %s", error)
                conn.close()

    def handle_request(self, conn):
        """Serve a new connection to its end."""
        util.register_after_fork(conn, _close)
        self._count_callers(1)
        try:
            self._handle_request(conn)
        except SystemExit:
            pass
        finally:
            conn.close()
            self._count_callers(-1)

    def _authenticate(self, conn):
        """What the peer is told if it has not the key, else None."""
        self._gate.enter(conn)
        try:
            connection.deliver_challenge(conn, self.authkey)
            connection.answer_challenge(conn, self.authkey)
        except Exception:
            return "#TRACEBACK", format_exc()
        finally:
            self._gate.leave(conn)
        return None

    def _count_callers(self, change):
        with self._callers_changed:
            self._callers += change
            self._callers_changed.notify_all()

    def _handle_request(self, conn):
        request = None
        refusal = self._authenticate(conn)
        if refusal is not None:
            self._send(conn, request, refusal, "#TRACEBACK")
            return
        try:
            request = conn.recv()
            _ident, name, args, kwds = request
        except Exception:
            reply = "#TRACEBACK", format_exc()
        else:
            reply = self._own_function(conn, name, args, kwds)
        if reply is not _REPLIED:
            self._send(conn, request, reply, "#TRACEBACK")

    def _own_function(self, conn, name, args, kwds):
        try:
            self._end_leases()
            if name not in self.public:
                raise AttributeError(f"{name!r} unrecognized")
            result = getattr(self, name)(conn, *args, **kwds)
        except Exception:
            return "#TRACEBACK", format_exc()
        return result if result is _REPLIED else ("#RETURN", result)

    def _send(self, conn, request, reply, kind_of_failure):
        """Send a reply, or why it cannot be sent; false if the caller has gone."""
        try:
            conn.send(reply)
            return True
        except Exception as error:
            util.info("Failure to send message: %r", reply)
            util.info(" ... request was %r", request)
            util.info(" ... exception was %r", error)
            explanation = format_exc()
        try:
            conn.send((kind_of_failure, explanation))
            return True
        except Exception:
            return False

    def accept_connection(self, c, name):
        """Serve this connection from now on; `name` is whose it is."""
        threading.current_thread().name = name
        c.send(("#RETURN", EXTENSIONS))
        self.serve_client(c)
        return _REPLIED

    def serve_client(self, conn):
        """Answer requests for shared objects until the caller closes the connection."""
        util.debug("starting server thread to service %r", threading.current_thread().name)
        reply = None
        while not self.stop_event.is_set():
            request = None
            try:
                request = conn.recv()
                # From here on the caller holds what was in the last reply.
                reply = None
                ident, name, args, kwds = request
            except EOFError:
                util.debug("got EOF -- exiting thread serving %r", threading.current_thread().name)
                return
            except Exception:
                reply = "#TRACEBACK", format_exc()
            else:
                reply = self._answer(conn, ident, name, args, kwds)
                del args, kwds
            if reply is _REPLIED:
                return
            if not self._send(conn, request, reply, "#UNSERIALIZABLE"):
                return
            del request
            if self._gone_proxies:
                self._settle()

    # -- Calls ------------------------------------------------------------------

    def _answer(self, conn, ident, name, args, kwds):
        if ident is None:
            return self._own_function(conn, name, args, kwds)
        if self._only_lent:
            self._end_leases()
        try:
            obj, exposed, typeids = self._entry(ident)
            function = self._exposed_method(obj, exposed, name)
        except AttributeError:
            return self._fall_back(conn, ident, obj, name, args, kwds)
        except Exception:
            return "#TRACEBACK", format_exc()
        try:
            result = function(*args, **kwds)
        except Exception as error:
            # The caller gets no frames; kept, they would keep this call's arguments.
            return "#ERROR", error.with_traceback(None)
        typeid = typeids.get(name)
        if not typeid:
            return "#RETURN", result
        return self._as_proxy(conn, typeid, result)

    def _entry(self, ident):
        entry = self.id_to_obj.get(ident) or self.id_to_local_proxy_obj.get(ident)
        return _Referent.entry(ident) if entry is None else entry

    @staticmethod
    def _exposed_method(obj, exposed, name):
        if name not in exposed:
            raise AttributeError(
                f"method {name!r} of {type(obj)!r} object is not in exposed={exposed!r}"
            )
        return obj.method(name) if type(obj) is _Referent else getattr(obj, name)

    def _as_proxy(self, conn, typeid, result):
        try:
            ident, exposed = self.create(conn, typeid, result)
        except Exception:
            return "#TRACEBACK", format_exc()
        return "#PROXY", (exposed, Token(typeid, self.address, ident))

    def _fall_back(self, conn, ident, obj, name, args, kwds):
        # Called while the AttributeError is handled, so that its story is told.
        if name not in self.fallback_mapping:
            return "#TRACEBACK", format_exc()
        try:
            return "#RETURN", self.fallback_mapping[name](self, conn, ident, obj, *args, **kwds)
        except Exception:
            return "#TRACEBACK", format_exc()

    def fallback_getvalue(self, conn, ident, obj):
        return obj.method("#GETVALUE")() if type(obj) is _Referent else obj

    def fallback_str(self, conn, ident, obj):
        return str(obj)

    def fallback_repr(self, conn, ident, obj):
        return repr(obj)

    # What any object can be asked for, exposed or not.
    fallback_mapping = {
        "__str__": fallback_str,
        "__repr__": fallback_repr,
        "#GETVALUE": fallback_getvalue,
    }

    # -- Functions of the server itself; `c` is the caller's connection -----------

    def dummy(self, c):
        """Nothing: the server is there."""

    def shutdown(self, c):
        """End the server."""
        try:
            util.debug("manager received shutdown message")
            c.send(("#RETURN", None))
        finally:
            self.stop_event.set()
        return _REPLIED

    def debug_info(self, c):
        """A text of three lines for each shared object: ident, references, what it is."""
        with self.mutex:
            known = [
                (ident, count, self.id_to_obj[ident][0])
                for ident, count in sorted(self.id_to_refcount.items())
            ]
        return "\n".join(
            f"  {ident}:       refcount={count}\n    {str(obj)[:75]}" for ident, count, obj in known
        )

    def number_of_objects(self, c):
        """How many objects have proxies elsewhere."""
        return len(self.id_to_refcount)

    def get_methods(self, c, token):
        """The names of the methods that proxies of an object have."""
        return tuple(self._entry(token.id)[1])

    def create(self, c, typeid, /, *args, **kwds):
        """Make an object, count one reference for the caller; return (ident, names of methods)."""
        factory, exposed, typeids, _proxytype = self.registry[typeid]
        with self._creating:
            obj = self._made(factory, args, kwds)
        if exposed is None:
            exposed = public_methods(obj)
        if typeids is not None:
            if not isinstance(typeids, dict):
                raise TypeError(f"Method_to_typeid {typeids!r}: type {type(typeids)!s}, not dict")
            exposed = [*exposed, *typeids]
        # A string, since the integers of XML-RPC have 32 bits.  The same object may
        # be asked for again, and by proxies of another type.
        ident = f"{id(obj):x}"
        util.debug("%r callable returned object with id %r", typeid, ident)
        with self.mutex:
            _obj, more_exposed, more_typeids = self.id_to_obj.get(ident, (obj, (), {}))
            self.id_to_obj[ident] = (
                obj,
                {*exposed, *more_exposed},
                {**more_typeids, **(typeids or {})},
            )
            self.id_to_refcount[ident] = self.id_to_refcount.get(ident, 0) + 1
        return ident, tuple(exposed)

    @staticmethod
    def _made(factory, args, kwds):
        if factory is not None:
            return factory(*args, **kwds)
        if kwds or len(args) != 1:
            raise ValueError("Without callable, must have one non-keyword argument")
        return args[0]

    def incref(self, c, ident):
        """Count one more proxy elsewhere.  KeyError if the object has gone."""
        with self.mutex:
            if ident not in self.id_to_refcount:
                # So far it was held by a proxy in here only, or in the arena.
                self.id_to_obj[ident] = self._entry(ident)
                self.id_to_refcount[ident] = 0
                util.debug("Server re-enabled tracking & INCREF %r", ident)
            self.id_to_refcount[ident] += 1
            self._only_lent.discard(ident)

    def decref(self, c, ident):
        """Count one proxy elsewhere less.  The last one gives the object up."""
        entry = None
        with self.mutex:
            if ident not in self.id_to_refcount and ident in self.id_to_local_proxy_obj:
                util.debug("Server DECREF skipping %r", ident)
                return
            self.id_to_refcount[ident] -= 1
            if self.id_to_refcount[ident] == 0:
                if self._is_lent(ident):
                    self._only_lent.add(ident)
                else:
                    entry = self._dispose(ident)
        del entry
        self._settle()

    def _dispose(self, ident):
        util.debug("disposing of obj with id %r", ident)
        del self.id_to_refcount[ident]
        return self.id_to_obj.pop(ident)

    # -- Leases ---------------------------------------------------------------------

    def lend(self, c, ident, ref):
        """Keep an object as long as the piece of the arena `ref` exists."""
        with self.mutex:
            if ident not in self.id_to_refcount:
                self.id_to_obj[ident] = self._entry(ident)
                self.id_to_refcount[ident] = 0
                self._only_lent.add(ident)
            if not self._leases:
                threading.Thread(target=self._watch_leases, daemon=True).start()
            self._leases.setdefault(ident, []).append(ref)

    def _is_lent(self, ident):
        """Whether there is a lease still; those that have ended are forgotten."""
        alive = [ref for ref in self._leases.get(ident, ()) if _exists(ref)]
        if alive:
            self._leases[ident] = alive
        else:
            self._leases.pop(ident, None)
        return bool(alive)

    def _end_leases(self):
        """Give up what only leases kept that have ended."""
        began = time.monotonic()
        if not self._only_lent or began < self._next_look:
            return
        with self.mutex:
            ended = [ident for ident in self._only_lent if not self._is_lent(ident)]
            self._only_lent.difference_update(ended)
            entries = [self._dispose(ident) for ident in ended]
            if len(self._only_lent) > _FEW:
                # Looking is to take a small part of the time.
                now = time.monotonic()
                self._next_look = now + 20 * (now - began)
        del entries
        self._settle()

    def _watch_leases(self):
        # For when nobody asks for anything.
        while self._leases and not self.stop_event.wait(_LEASE_PERIOD):
            self._end_leases()

    # -- Proxies in this process --------------------------------------------------

    def hold_for(self, ident, make_proxy):
        """Make a proxy in this process, which keeps the object `ident` as long as it lives."""
        with self.mutex:
            self.id_to_local_proxy_obj.setdefault(ident, self._entry(ident))
            self._local_proxies[ident] += 1
        try:
            proxy = make_proxy()
            weakref.finalize(proxy, self._gone_proxies.append, ident).atexit = False
        except BaseException:
            self._gone_proxies.append(ident)
            raise
        return proxy

    def _settle(self):
        # What is given up may hold the last proxy of the next one.
        while self._gone_proxies:
            try:
                ident = self._gone_proxies.popleft()
            except IndexError:
                return
            entry = None
            with self.mutex:
                self._local_proxies[ident] -= 1
                if not self._local_proxies[ident]:
                    del self._local_proxies[ident]
                    entry = self.id_to_local_proxy_obj.pop(ident)
            del entry


class _Referent:
    """An object in the arena, for those who must ask the server for it."""

    def __init__(self, backing):
        self._backing = backing

    @classmethod
    def entry(cls, ident):
        """What the server has of an object.  KeyError if there is none of that name."""
        backing = open_named(ident) if is_named(ident) else None
        if backing is None:
            raise KeyError(ident)
        exposed = set(backing.type.exposed)
        return cls(backing), exposed, {"__iter__": "Iterator"} if "__iter__" in exposed else {}

    def method(self, name):
        """A method, to be called without the object."""
        return functools.partial(self._backing.type.calls[name], self._backing.target)

    def __repr__(self):
        return self.method("__repr__")()


def _exists(ref):
    try:
        _kin._open(_kin.Memory, ref)
        return True
    except RuntimeError:
        return False


def _close(conn):
    conn.close()


def all_methods(obj):
    """The names of the attributes of `obj` that can be called."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


def public_methods(obj):
    """Those of all_methods() that do not start with an underscore."""
    return [name for name in all_methods(obj) if not name.startswith("_")]


class _SharedMemoryTracker:
    """The segments that a SharedMemoryServer is to unlink, by their names."""

    def __init__(self, name, segment_names=()):
        self.shared_memory_context_name = name
        self.segment_names = list(segment_names)

    def register_segment(self, segment_name):
        """Take charge of a segment."""
        util.debug("Register segment %r in pid %s", segment_name, os.getpid())
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name):
        """Unlink a segment.  ValueError if it is not in our charge."""
        util.debug("Destroy segment %r in pid %s", segment_name, os.getpid())
        self.segment_names.remove(segment_name)
        segment = shared_memory.SharedMemory(segment_name)
        segment.close()
        segment.unlink()

    def unlink(self):
        """Unlink them all."""
        for segment_name in list(self.segment_names):
            try:
                self.destroy_segment(segment_name)
            except FileNotFoundError:
                # A user has done so already.
                util.debug("segment %r was gone", segment_name)


class SharedMemoryServer(Server):
    """The server of a SharedMemoryManager: it also unlinks segments when it ends."""

    public = [*Server.public, "track_segment", "release_segment", "list_segments"]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The address of an abstract socket may be bytes.
        address = os.fsdecode(self.address) if isinstance(self.address, bytes) else self.address
        self.shared_memory_context = _SharedMemoryTracker(f"shm_{address}_{os.getpid()}")

    def create(self, c, typeid, /, *args, **kwargs):
        """As in Server; a proxy type that asks for it has its object told of our tracker."""
        if hasattr(self.registry[typeid][-1], "_shared_memory_proxy"):
            kwargs["shared_memory_context"] = self.shared_memory_context
        return super().create(c, typeid, *args, **kwargs)

    def serve_forever(self):
        """As in Server; segments are unlinked however the serving ends."""
        try:
            super().serve_forever()
        finally:
            self.shared_memory_context.unlink()

    def shutdown(self, c):
        """Unlink the segments, and end."""
        self.shared_memory_context.unlink()
        return super().shutdown(c)

    def track_segment(self, c, segment_name):
        """Take charge of a segment."""
        self.shared_memory_context.register_segment(segment_name)

    def release_segment(self, c, segment_name):
        """Unlink a segment."""
        self.shared_memory_context.destroy_segment(segment_name)

    def list_segments(self, c):
        """The names of the segments in our charge."""
        return self.shared_memory_context.segment_names
