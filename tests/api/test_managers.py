"""Managers: what is shared through a server, who counts what, and what is told when things break.

CPython's own tests pin the types and their methods.  Here is what they leave open: proxies that
are nested, copied, passed on and dropped; servers that are killed, cannot start, or have lost their
parent; calls that are broken off; and the standard library at the other end.
"""

import contextlib
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref

import pytest

import kinfolk
from kinfolk import managers, process
from kinfolk.managers import BaseManager, RemoteError, SyncManager

METHODS = ("fork", "spawn", "forkserver")
PATIENCE = 60  # seconds after which a test that waits in vain is to fail


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


@pytest.fixture
def manager():
    with kinfolk.Manager() as manager:
        yield manager
    manager.join()


@pytest.fixture
def counting():
    with CountingManager() as manager:
        yield manager
    manager.join()


class Counted:
    """Knows how many of its kind there are in the server."""

    alive = weakref.WeakSet()

    def __init__(self):
        self.alive.add(self)

    def count(self):
        gc.collect()
        return len(self.alive)

    def itself(self):
        return self

    def fail(self, *args):
        raise LookupError(*args)

    def unsendable(self):
        return threading.Lock()

    def _hidden(self):
        return "seen"


class CountingManager(SyncManager):
    pass


CountingManager.register("Counted", Counted, method_to_typeid={"itself": "Result"})
CountingManager.register("Result", create_method=False)
CountingManager.register("Open", Counted, exposed=("count", "_hidden"))


def run(ctx, target, *args):
    child = ctx.Process(target=target, args=args)
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    assert code == 0


def kill_server(manager):
    os.kill(manager._process.pid, signal.SIGKILL)
    manager._process.join()


def use_everything(things):
    things["list"].append(2)
    things["dict"]["b"] = list(things["dict"])  # its iterator is a proxy, made here
    things["namespace"].x += 1
    things["value"].value += 1
    things["array"][1] = 20
    things["queue"].put("from the child")
    with things["lock"]:
        things["event"].set()


def test_everything_in_a_child(ctx, manager):
    things = {
        "list": manager.list([1]),
        "dict": manager.dict(a=1),
        "namespace": manager.Namespace(x=1),
        "value": manager.Value("i", 1),
        "array": manager.Array("i", [1, 2]),
        "queue": manager.Queue(),
        "lock": manager.Lock(),
        "event": manager.Event(),
    }
    run(ctx, use_everything, things)
    assert things["list"][:] == [1, 2]
    assert things["dict"].copy() == {"a": 1, "b": ["a"]}
    assert str(things["namespace"]) == "Namespace(x=2)"
    assert things["value"].value == 2
    assert things["array"][:].tolist() == [1, 20]
    assert things["queue"].get() == "from the child"
    assert things["event"].is_set()
    del things
    assert manager._number_of_objects() == 0


def pass_on(inbox, outbox):
    proxy = inbox.get()
    proxy.append("seen")
    outbox.put(proxy)


def test_a_proxy_travels_over_a_queue(ctx, manager):
    inbox, outbox = ctx.Queue(), ctx.Queue()
    shared = manager.list()
    inbox.put(shared)
    child = ctx.Process(target=pass_on, args=(inbox, outbox))
    child.start()
    back = outbox.get(timeout=PATIENCE)
    child.join()
    child.close()
    assert back[:] == shared[:] == ["seen"]
    for one in (inbox, outbox):
        one.close()
        one.join_thread()


def test_a_key_of_its_own_travels_with_the_proxy(ctx):
    with SyncManager(authkey=b"not the family's") as manager:
        inbox, outbox = ctx.Queue(), ctx.Queue()
        shared = manager.list()
        inbox.put(shared)
        run(ctx, pass_on, inbox, outbox)
        assert outbox.get(timeout=PATIENCE)[:] == ["seen"]
        for one in (inbox, outbox):
            one.close()
            one.join_thread()
    manager.join()


# -- References ---------------------------------------------------------------------


def test_objects_go_with_their_last_proxy(counting):
    probe = counting.Open()
    first, second = counting.Counted(), counting.Counted()
    assert probe.count() == 3
    same = first.itself()
    del first
    assert probe.count() == 3
    assert same.count() == 3
    del same, second
    assert probe.count() == 1
    assert counting._number_of_objects() == 1


def test_objects_inside_objects_go_with_them(counting):
    probe = counting.Open()
    outer = counting.dict(inner=counting.list([counting.Counted()]))
    assert probe.count() == 2
    assert counting._number_of_objects() == 2  # the containers are in the arena
    inner = outer["inner"]
    outer.clear()
    assert inner[0].count() == 2
    del inner[0]
    assert probe.count() == 1


def test_what_is_taken_out_is_usable(counting):
    shared = counting.Queue()
    for _ in range(20):
        shared.put(counting.list(["kept"]))
        assert shared.get()[0] == "kept"
    nested = counting.dict(one=counting.list(["kept"]))
    taken = nested.pop("one")
    nested.clear()
    assert taken[0] == "kept"


def test_a_list_that_holds_itself(manager):
    shared = manager.list()
    shared.append(shared)
    shared[0].append(1)
    assert shared[1] == 1


def test_a_proxy_made_by_a_function():
    class CopyingManager(BaseManager):
        pass

    def copied(token, serializer, manager=None, authkey=None, exposed=None):
        proxy = managers.ListProxy(token, serializer, manager=manager, authkey=authkey)
        return proxy[:]

    CopyingManager.register("squares", list, proxytype=copied, exposed=("__getitem__",))
    CopyingManager.register("untouched", list, proxytype=lambda *args, **kwds: None)
    with CopyingManager(ctx=kinfolk.get_context("fork")) as manager:
        assert manager.squares([1, 4, 9]) == [1, 4, 9]
        assert manager.untouched() is None
        assert manager._number_of_objects() == 0
    manager.join()


# -- Calls --------------------------------------------------------------------------


def test_what_may_be_called(counting):
    proxy, opened = counting.Counted(), counting.Open()
    assert not hasattr(proxy, "_hidden")
    with pytest.raises(RemoteError, match="not in exposed"):
        proxy._callmethod("_hidden")
    assert opened._hidden() == "seen"
    assert not hasattr(opened, "fail")
    assert proxy._getvalue().__class__ is Counted


def test_errors_are_raised_at_the_call(counting):
    proxy = counting.Counted()
    with pytest.raises(LookupError) as caught:
        proxy.fail("why", 7)
    assert caught.value.args == ("why", 7)
    with pytest.raises(RemoteError, match="Unserializable message"):
        proxy.unsendable()
    with pytest.raises(TypeError):
        proxy.fail(threading.Lock())
    with pytest.raises(AttributeError):
        proxy.absent()
    assert proxy.count() == 1


def test_errors_are_collected_without_the_collector(manager):
    shared = manager.Queue()
    gc.disable()
    try:
        try:
            shared.get_nowait()
        except queue.Empty as error:
            gone = weakref.ref(error)
        assert gone() is None
    finally:
        gc.enable()


def test_a_call_that_is_broken_off(manager):
    event, shared = manager.Event(), manager.list(["right"])

    def interrupt(number, frame):
        raise InterruptedError("by the test")

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError, match="by the test"):
            event.wait(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert shared[0] == "right"


def test_a_call_in_the_middle_of_a_call(manager):
    event, shared = manager.Event(), manager.list(["right"])

    def call(number, frame):
        seen.append(shared[0])
        event.set()

    seen = []
    old = signal.signal(signal.SIGALRM, call)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert event.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert seen == ["right"]


def test_many_threads(manager):
    shared, errors = manager.list(), []

    def work(number):
        try:
            for turn in range(20):
                shared.append((number, turn))
                manager.dict(turn=turn)["turn"]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(shared) == 160
    assert manager._number_of_objects() == 0  # those are in the arena


def test_pool_of_a_manager(manager):
    pool = manager.Pool(2)
    assert pool.map(abs, [-1, 2]) == [1, 2]
    assert list(pool.imap(abs, [-3])) == [3]
    assert pool.apply_async(pow, (2, 3)).get(PATIENCE) == 8
    with pool:
        pass


# -- The life of a server -----------------------------------------------------------


def test_a_killed_server_is_an_error_at_once():
    manager = CountingManager()
    manager.start()
    shared, spare = manager.Counted(), manager.Counted()
    kill_server(manager)
    for _ in range(3):
        with pytest.raises((OSError, EOFError)):
            shared.count()
    with pytest.raises((OSError, EOFError)):
        manager.Counted()
    assert repr(spare).startswith("<AutoProxy[Counted] object")
    assert "'__str__()' failed" in str(spare)
    del shared, spare
    manager.shutdown()


def test_workers_forked_from_a_server_do_not_keep_callers_waiting():
    manager = SyncManager(ctx=kinfolk.get_context("fork"))
    manager.start()
    pool = manager.Pool(1)
    worker = pool.apply(os.getpid)
    kill_server(manager)
    with pytest.raises((OSError, EOFError)):
        pool.apply(os.getpid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    del pool
    manager.shutdown()


def raise_lookup_error():
    sys.stderr = open(os.devnull, "w")
    raise LookupError("in the initializer")


def end_at_once():
    os._exit(3)


def test_a_server_that_cannot_start(ctx, capfd):
    manager = SyncManager(ctx=ctx)
    with pytest.raises(LookupError, match="in the initializer"):
        manager.start(raise_lookup_error)
    with pytest.raises(EOFError):
        manager.start(end_at_once)
    with pytest.raises(TypeError):
        manager.start("not callable")
    with pytest.raises(FileNotFoundError):
        SyncManager("/nonexistent/folder/socket", ctx=ctx).start()
    capfd.readouterr()
    with manager:
        assert manager.list([1])[0] == 1
    manager.join()


def test_states():
    manager = SyncManager()
    with pytest.raises(AssertionError, match="server not yet started"):
        manager.list()
    manager.start()
    with pytest.raises(kinfolk.ProcessError, match="Already started server"):
        manager.start()
    with pytest.raises(kinfolk.ProcessError, match="Already started server"):
        manager.get_server()
    manager.shutdown()
    manager.shutdown()
    with pytest.raises(kinfolk.ProcessError, match="Manager has shut down"), manager:
        pass
    assert manager._process.exitcode == 0
    manager.join()
    manager.join()


ORPHANED = """if 1:
    import os, kinfolk, kinfolk.managers
    kinfolk._manager_server._ORPHAN_GRACE = 0.0
    manager = kinfolk.managers.SyncManager(ctx=kinfolk.get_context("fork"))
    manager.start()
    print(manager._process.pid, flush=True)
    os._exit(0)
"""


def test_a_server_ends_when_its_parent_was_killed():
    # The server has the pipe for its output: what waits for the end of that waits for the server.
    done = subprocess.run(
        [sys.executable, "-c", ORPHANED],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert int(done.stdout) > 0, done.stderr


# -- Other machines, other peers ------------------------------------------------------

_shared_queue = queue.Queue()


class QueueManager(BaseManager):
    pass


QueueManager.register("get_queue", lambda: _shared_queue)


class QueueClient(BaseManager):
    pass


QueueClient.register("get_queue")


@contextlib.contextmanager
def serving(**options):
    """A server in a thread of this process, on a port of its own."""
    manager = QueueManager(("localhost", 0), authkey=b"secret", **options)
    server = manager.get_server()

    def serve():
        with contextlib.suppress(SystemExit):
            server.serve_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.address
    finally:
        server.stop_event.set()
        thread.join()
        # Wakes the thread that accepts, and lets it see the end.
        with contextlib.suppress(OSError, EOFError, kinfolk.AuthenticationError):
            managers.Peer(manager._Client, server.address, b"other").once("dummy")
        server.listener.close()
        del process.current_process()._manager_server


@pytest.mark.parametrize("serializer", ["pickle", "xmlrpclib"])
@pytest.mark.leaves_traces("threads of the server that are about to end")
def test_over_tcp(serializer):
    with serving(serializer=serializer) as address:
        clients = [QueueClient(address, authkey=b"secret", serializer=serializer) for _ in range(2)]
        for client in clients:
            client.connect()
        clients[0].get_queue().put(["text", 1.5, None, True])
        assert clients[1].get_queue().get() == ["text", 1.5, None, True]


@pytest.mark.leaves_traces("threads of the server that are about to end")
def test_wrong_key():
    with serving() as address:
        with pytest.raises(kinfolk.AuthenticationError):
            QueueClient(address, authkey=b"guess").connect()
        QueueClient(address, authkey=b"secret").connect()


def test_nobody_there():
    with pytest.raises(OSError):
        QueueClient("/nonexistent/folder/socket", authkey=b"secret").connect()


THEIR_CLIENT = """if 1:
    import sys
    from multiprocessing.managers import BaseManager
    class Client(BaseManager): pass
    Client.register('get_queue')
    client = Client(('localhost', int(sys.argv[1])), authkey=b'secret')
    client.connect()
    theirs = client.get_queue()
    theirs.put(theirs.get() + 1)
    try:
        theirs.get_nowait()
        theirs.get_nowait()
    except Exception as error:
        print(type(error).__name__)
"""

THEIR_SERVER = """if 1:
    import queue
    from multiprocessing.managers import BaseManager
    class Server(BaseManager): pass
    shared = queue.Queue()
    Server.register('get_queue', lambda: shared)
    server = Server(('localhost', 0), authkey=b'secret').get_server()
    print(server.address[1], flush=True)
    server.serve_forever()
"""


@pytest.mark.leaves_traces("threads of the server that are about to end")
def test_a_client_of_the_standard_library():
    with serving() as address:
        _shared_queue.put(41)
        done = subprocess.run(
            [sys.executable, "-c", THEIR_CLIENT, str(address[1])],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stdout == "Empty\n", done.stderr


def test_a_server_of_the_standard_library():
    with subprocess.Popen(
        [sys.executable, "-c", THEIR_SERVER], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            port = int(server.stdout.readline())
            client = QueueClient(("localhost", port), authkey=b"secret")
            client.connect()
            theirs = client.get_queue()
            theirs.put({"a": 1})
            assert theirs.get() == {"a": 1}
            with pytest.raises(queue.Empty):
                theirs.get_nowait()
            del theirs
            assert client._number_of_objects() == 0
        finally:
            server.kill()
