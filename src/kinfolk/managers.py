"""Managers: objects that live in a server process and are used through proxies.

    with Manager() as manager:
        shared = manager.dict()
        Process(target=work, args=(shared,)).start()

A manager starts a server process, or connects to one that is somewhere else;
its class says by register() which types of objects the server can make.  Each
creates an object there and returns a proxy, whose methods are calls over a
connection (_manager_wire says what passes by it, _manager_server and _proxies
how either end works).  The object goes when the last proxy in any process goes.

The server ends by shutdown(), at the latest when its manager is collected or
its process exits, and also when that process is killed and nobody else
is connected.
"""

import queue
import signal
import threading

from . import (
    _manager_server,
    _manager_values,
    _manager_wire,
    _proxies,
    _proxy_types,
    connection,
    get_context,
    pool,
    process,
    reduction,
    resource_tracker,
    shared_memory,
    util,
)
from ._arena_proxies import Life
from ._arena_proxies import create as create_in_arena
from ._arena_types import TYPES as ARENA_TYPES
from ._manager_server import (  # noqa: F401 (names that programs look for here)
    Server,
    SharedMemoryServer,
    _SharedMemoryTracker,
    all_methods,
    public_methods,
)
from ._manager_values import Array, Namespace, Value
from ._manager_wire import (  # noqa: F401
    RemoteError,
    Token,
    convert_to_error,
    dispatch,
    listener_client,
)
from ._proxies import (  # noqa: F401
    AutoProxy,
    BaseProxy,
    MakeProxyType,
    Peer,
    ProcessLocalSet,
    RebuildProxy,
    State,
    adopt,
    known_proxytypes,
    line_to,
)
from ._proxy_types import (  # noqa: F401
    AcquirerProxy,
    ArrayProxy,
    BarrierProxy,
    BaseListProxy,
    BasePoolProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    NamespaceProxy,
    PoolProxy,
    ValueProxy,
)
from .context import ProcessError

__all__ = ["BaseManager", "SyncManager", "BaseProxy", "Token", "SharedMemoryManager"]

# Programs, pickles and tracebacks know what is made there as ours.
for _part in (_manager_server, _manager_values, _manager_wire, _proxies, _proxy_types):
    for _name in _part.__all__:
        if callable(getattr(_part, _name)):
            getattr(_part, _name).__module__ = __name__
del _part, _name


def rebuild_as_list(obj):
    """How the views of a dict are pickled."""
    return list, (list(obj),)


for _view in ({}.keys(), {}.values(), {}.items()):
    reduction.register(type(_view), rebuild_as_list)
del _view


class BaseManager:
    """Starts or reaches a server that holds objects of the registered types.

    address: where it listens (see connection.Listener); one of its own choice if None.
    authkey: bytes that both sides must hold; that of the current process if None.
    serializer: 'pickle' or 'xmlrpclib'.
    ctx: the context whose Process runs the server.
    shutdown_timeout: seconds that the server is given to end, before it is
    terminated, and again before it is killed.
    """

    # typeid: (callable, exposed, method_to_typeid, proxytype)
    _registry = {}
    _Server = Server
    _process = None

    def __init__(
        self, address=None, authkey=None, serializer="pickle", ctx=None, *, shutdown_timeout=1.0
    ):
        if authkey is None:
            authkey = process.current_process().authkey
        # Not the final one, if it is ('', 0).
        self._address = address
        self._authkey = process.AuthenticationString(authkey)
        self._state = State()
        self._state.value = State.INITIAL
        self._life = None
        self._serializer = serializer
        self._Listener, self._Client = listener_client[serializer]
        self._ctx = ctx or get_context()
        self._shutdown_timeout = shutdown_timeout

    @property
    def address(self):
        """The address of the server."""
        return self._address

    @property
    def _peer(self):
        return Peer(self._Client, self._address, self._authkey)

    def get_server(self):
        """A server to run in this process, by its serve_forever().  ProcessError once started."""
        self._check_initial()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self):
        """Use the server that is at our address.  OSError if there is none."""
        self._peer.once("dummy")
        self._state.value = State.STARTED

    def start(self, initializer=None, initargs=()):
        """Start the server in a new process, which calls `initializer(*initargs)` first.

        Raises what went wrong in it: EOFError if it ended before it could tell.
        ProcessError if started before.
        """
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        reader, writer = connection.Pipe(duplex=False)
        with reader:
            with writer:
                self._start_process(writer, initializer, initargs)
            self._address = self._await_address(reader)
        self._state.value = State.STARTED
        if self._serializer == "pickle":
            self._life = Life()
        self.shutdown = util.Finalize(
            self,
            type(self)._finalize_manager,
            args=(
                self._process,
                self._address,
                self._authkey,
                self._state,
                self._Client,
                self._shutdown_timeout,
                self._life,
            ),
            exitpriority=0,
        )

    def _start_process(self, writer, initializer, initargs):
        self._process = self._ctx.Process(
            target=type(self)._run_server,
            args=(
                self._registry,
                self._address,
                self._authkey,
                self._serializer,
                writer,
                initializer,
                initargs,
            ),
        )
        number = ":".join(map(str, self._process._identity))
        self._process.name = f"{type(self).__name__}-{number}"
        self._process.start()

    def _await_address(self, reader):
        # The end of the pipe alone would not do: another child that was just
        # being forked may hold the other end.
        connection.wait([reader, self._process.sentinel])
        try:
            if not reader.poll():
                raise EOFError
            answer = reader.recv()
        except EOFError:
            answer = EOFError("the server process ended before it was ready")
        if not isinstance(answer, BaseException):
            return answer
        self._process.join()
        raise answer

    @classmethod
    def _run_server(
        cls, registry, address, authkey, serializer, writer, initializer=None, initargs=()
    ):
        # Ctrl-C is for the program, which will shut us down when it is done.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if initializer is not None:
                initializer(*initargs)
            server = cls._Server(registry, address, authkey, serializer)
        except Exception as error:
            _report(writer, error)
            raise
        writer.send(server.address)
        writer.close()
        util.info("manager serving at %r", server.address)
        server.serve_forever()

    def _create(self, typeid, /, *args, **kwds):
        """Make an object in the server; return its token and the names of its methods.

        The server counts one reference for us.
        """
        line, _idents = line_to(self._address)
        ident, exposed = line.call_server(self._peer, "create", (typeid, *args), kwds)
        return Token(typeid, self._address, ident), exposed

    def join(self, timeout=None):
        """Wait for the server process to end, if we started it; at most `timeout` seconds."""
        if self._process is None:
            return
        self._process.join(timeout)
        if not self._process.is_alive():
            self._process = None

    def _debug_info(self):
        """A text about the objects in the server and their references."""
        return self._peer.once("debug_info")

    def _number_of_objects(self):
        """How many objects in the server have proxies."""
        return self._peer.once("number_of_objects")

    def __enter__(self):
        if self._state.value == State.INITIAL:
            self.start()
        if self._state.value != State.STARTED:
            raise ProcessError(_refusal(self._state.value))
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.shutdown()

    def _check_initial(self):
        if self._state.value != State.INITIAL:
            raise ProcessError(_refusal(self._state.value))

    @staticmethod
    def _finalize_manager(process, address, authkey, state, _Client, shutdown_timeout, life=None):
        """End the server process: ask, terminate, kill."""
        if life is not None:
            life.end()
        if process.is_alive():
            util.info("sending shutdown message to manager")
            try:
                Peer(_Client, address, authkey).once("shutdown")
            except Exception as error:
                util.debug("... shutdown failed %s", error)
            for force in (process.terminate, process.kill):
                process.join(timeout=shutdown_timeout)
                if not process.is_alive():
                    break
                util.info("manager still alive: %s", force.__name__)
                force()
            process.join()
        state.value = State.SHUTDOWN
        BaseProxy._address_to_local.pop(address, None)

    @classmethod
    def register(
        cls,
        typeid,
        callable=None,
        proxytype=None,
        exposed=None,
        method_to_typeid=None,
        create_method=True,
    ):
        """Let managers of this class make objects of a type, by a method called `typeid`.

        callable: makes the object, in the server; None if this class only connects.
        proxytype: makes the proxy; AutoProxy, with all public methods, by default.
        exposed: the names of the methods that may be called; the proxytype's
        `_exposed_`, else all public ones.
        method_to_typeid: methods whose results stay in the server, and the
        typeids of the proxies that are returned for them.
        create_method: false for types that are only made in that way.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = cls._registry.copy()
        proxytype = proxytype or AutoProxy
        exposed = exposed or getattr(proxytype, "_exposed_", None)
        method_to_typeid = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None)
        for name in (part for item in (method_to_typeid or {}).items() for part in item):
            assert type(name) is str, f"{name!r} is not a string"
        cls._registry[typeid] = callable, exposed, method_to_typeid, proxytype
        known_proxytypes[typeid] = proxytype
        if create_method:
            setattr(cls, typeid, _creator(typeid, proxytype))


def _creator(typeid, proxytype):
    def create(self, /, *args, **kwds):
        util.debug("requesting creation of a shared %r object", typeid)
        assert self._state.value == State.STARTED, "server not yet started"
        if self._life is not None and self._registry.get(typeid) is _in_arena.get(typeid, ()):
            made = create_in_arena(typeid, self._life, args, kwds)
            if made is not None:
                token = Token(typeid, self._address, made[0])
                exposed = ARENA_TYPES[typeid].exposed
                return proxytype(
                    token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed
                )
        token, exposed = self._create(typeid, *args, **kwds)
        return adopt(proxytype, token, self._serializer, self, self._authkey, exposed)

    create.__name__ = typeid
    return create


def _refusal(state):
    if state == State.INITIAL:
        return "Unable to start server"
    if state == State.STARTED:
        return "Already started server"
    if state == State.SHUTDOWN:
        return "Manager has shut down"
    return f"Unknown state {state!r}"


def _report(writer, error):
    """Tell the one who waits for our address what went wrong, as far as it can be told."""
    try:
        writer.send(error)
    except Exception:
        util.debug("cannot send %r", error)
    writer.close()


class SyncManager(BaseManager):
    """A manager of the types that threads share: locks, queues, pools, list, dict, Namespace, ...

    What kinfolk.Manager() returns, started.
    """


SyncManager.register("Queue", queue.Queue)
SyncManager.register("JoinableQueue", queue.Queue)
SyncManager.register("Event", threading.Event, EventProxy)
SyncManager.register("Lock", threading.Lock, AcquirerProxy)
SyncManager.register("RLock", threading.RLock, AcquirerProxy)
SyncManager.register("Semaphore", threading.Semaphore, AcquirerProxy)
SyncManager.register("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy)
SyncManager.register("Condition", threading.Condition, ConditionProxy)
SyncManager.register("Barrier", threading.Barrier, BarrierProxy)
SyncManager.register("Pool", pool.Pool, PoolProxy)
SyncManager.register("list", list, ListProxy)
SyncManager.register("dict", dict, DictProxy)
SyncManager.register("Value", Value, ValueProxy)
SyncManager.register("Array", Array, ArrayProxy)
SyncManager.register("Namespace", Namespace, NamespaceProxy)

# What methods of the proxies return.
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)


# What these creators make lives in the arena, unless a subclass has registered another of that name.
_in_arena = {typeid: SyncManager._registry[typeid] for typeid in ARENA_TYPES}


class SharedMemoryManager(BaseManager):
    """A manager that makes shared memory and unlinks all of it when it is shut down."""

    _Server = SharedMemoryServer

    def __init__(self, *args, **kwargs):
        # Before there is a server, so that both tell the same tracker of their segments.
        resource_tracker.ensure_running()
        super().__init__(*args, **kwargs)

    def SharedMemory(self, size):
        """A new SharedMemory of `size` bytes.  ValueError if there is no server yet."""
        memory = shared_memory.SharedMemory(None, create=True, size=size)
        self._hand_over(memory)
        return memory

    def ShareableList(self, sequence):
        """A new ShareableList of the items of `sequence`.  ValueError if there is no server yet."""
        shareable = shared_memory.ShareableList(sequence)
        self._hand_over(shareable.shm)
        return shareable

    def _hand_over(self, memory):
        try:
            self._peer.once("track_segment", (memory.name,))
        except BaseException:
            memory.close()
            memory.unlink()
            raise
