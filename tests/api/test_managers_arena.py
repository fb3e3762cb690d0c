"""What a SyncManager holds in the arena: the proxies promise what those of a server do.

Each comparison is made with objects of the same types in a server, which any class that registers
them itself has.
"""

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest

import kinfolk
from kinfolk import managers, pickle
from kinfolk.managers import RemoteError, SyncManager

METHODS = ("fork", "spawn", "forkserver")


class ServerManager(SyncManager):
    """Has everything in its server."""


for typeid, (factory, exposed, typeids, proxytype) in list(SyncManager._registry.items()):
    ServerManager.register(typeid, factory, proxytype, exposed, typeids, factory is not None)


class Kept:
    """An object for a server."""

    def __init__(self):
        self.kept = []

    def keep(self, thing):
        self.kept.append(thing)
        return len(self.kept)

    def use(self, index):
        self.kept[index]["seen"] = "by the server"

    def give(self, index):
        return self.kept[index]


class KeepingManager(SyncManager):
    pass


KeepingManager.register("Kept", Kept)


@pytest.fixture
def both():
    with SyncManager() as arena, ServerManager() as server:
        yield arena, server
    for manager in (arena, server):
        manager.join()


@pytest.fixture
def manager():
    with KeepingManager() as manager:
        yield manager
    manager.join()


def outcome(function, thing):
    """What came of it, as far as it can be compared."""
    try:
        result = function(thing)
    except RemoteError:
        return "RemoteError"
    except Exception as error:
        return type(error).__name__
    if hasattr(result, "__next__"):
        result = list(result)
    return type(result).__name__, getattr(result, "__dict__", None) or repr(result)


def exec_on(statement):
    return lambda thing: exec(statement, {"thing": thing})


def calls(text):
    return [each.strip() for each in text.split(";")]


DICT = calls("""
    thing['a']; thing['none']; thing.get('none'); thing.get('a', 2); thing[[]]; 'a' in thing;
    len(thing); thing.items(); thing.keys(); thing.values(); thing.copy(); list(thing);
    next(iter(thing)); thing.pop('b'); thing.pop('b'); thing.pop('b', 7); thing.setdefault('c', 3);
    thing.update({'d': 4}, e=5); thing._getvalue(); str(thing); thing.popitem(); del thing['a'];
    del thing['a']; thing[(1, 'x')] = [1]; thing[(1, 'x')]; thing.clear(); thing.popitem();
    thing._callmethod('fromkeys', ([1],)); thing == thing; thing.get(); thing.absent;
    thing._callmethod('__repr__')
""")

LIST = calls("""
    thing[0]; thing[-1]; thing[9]; thing[1:]; thing[::2]; thing + [7]; thing * 2; 2 * thing;
    thing + 1; 3 in thing; len(thing); thing.append(4); thing.extend('xy'); thing.insert(1, 'in');
    thing.index(3); thing.index('none'); thing.count(3); thing.pop(); thing.pop(0); thing.pop(99);
    thing.remove('none'); thing.reverse(); str(thing); thing._getvalue(); list(reversed(thing));
    thing[1:2] = [8, 9]; del thing[0]; thing *= 2; thing += [1]; thing['x']; list(thing);
    thing.sort(); thing[:] = [3, 1, 2]; thing.sort(reverse=True); thing[:]; thing.clear();
    thing._callmethod('clear'); thing.insert()
""")

NAMESPACE = calls("""
    thing.x; thing.none; thing.y; setattr(thing, 'x', [2]); thing.x; delattr(thing, 'x');
    delattr(thing, 'x'); str(thing); thing._getvalue(); thing._hidden
""")

VALUE = calls("""
    thing.value; thing.get(); thing.set('x'); str(thing); thing._getvalue(); thing.none;
    setattr(thing, 'value', 3); thing.value
""")

ARRAY = calls("""
    thing[0]; thing[-1]; thing[9]; thing[0:2]; thing[::-1]; len(thing); thing.__setitem__(0, 9);
    thing.__setitem__(0, 'x'); thing.__setitem__(0, 2**80); thing.__setitem__(0, 2.5); str(thing);
    thing._getvalue(); thing.__setitem__(slice(0, 1), thing[1:2]); thing[:]; list(thing);
    thing.__setitem__(slice(0, 1), [1]); thing['x']
""")

QUEUE = calls("""
    thing.empty(); thing.put(1); thing.put(2, True, 1); thing.put(3, False); thing.put_nowait(3);
    thing.put(3, True, 0.01); thing.put(3, timeout=-1); thing.full(); thing.qsize(); thing.get();
    thing.get(timeout=1); thing.get_nowait(); thing.get(timeout=0.01); thing.get(timeout=-1);
    thing.task_done(); thing.task_done(); thing.task_done(); thing.join(); thing._getvalue();
    thing.absent(); thing.put()
""")

LOCK = calls("""
    thing.acquire(); thing.acquire(False, 1); thing.acquire(True, -3); thing.release();
    thing.acquire(True, 1); thing.release(); thing.release(); thing.acquire(False);
    thing.release(); thing._getvalue(); thing.locked()
""")

SEMAPHORE = calls("""
    thing.acquire(); thing.acquire(True, 0.01); thing.acquire(False); thing.release();
    thing.acquire(False, 1)
""")

EVENT = calls("""
    thing.is_set(); thing.wait(0.01); thing.set(); thing.wait(); thing.is_set(); thing.clear();
    thing.is_set(); thing._getvalue()
""")

CONDITION = calls("""
    thing.wait(0.01); thing.notify(); thing.notify_all(); thing.acquire(); thing.wait(0.01);
    thing.notify(2); thing.wait_for(lambda: True); thing.release(); thing.release()
""")

BARRIER = calls("""
    thing.parties; thing.n_waiting; thing.wait(); thing.broken; thing.abort(); thing.broken;
    thing.wait(); thing.reset(); thing.wait(1)
""")

CASES = [
    ("dict", ({"a": 1},), {"b": [2]}, DICT),
    ("list", ([1, 2, 3],), {}, LIST),
    ("Namespace", (), {"x": 1, "y": "y"}, NAMESPACE),
    ("Value", ("i", 1), {}, VALUE),
    ("Array", ("i", [1, 2, 3]), {}, ARRAY),
    ("Array", ("d", range(3)), {}, ARRAY),
    ("Array", ("u", "abc"), {}, ARRAY),
    ("Queue", (2,), {}, QUEUE),
    ("JoinableQueue", (2,), {}, QUEUE),
    ("Lock", (), {}, LOCK),
    ("RLock", (), {}, LOCK),
    ("Semaphore", (1,), {}, SEMAPHORE),
    ("BoundedSemaphore", (1,), {}, [*SEMAPHORE, "thing.release()"]),
    ("Event", (), {}, EVENT),
    ("Condition", (), {}, CONDITION),
    ("Barrier", (1,), {}, BARRIER),
    ("Barrier", (2, None, 0.01), {}, calls("thing.wait(); thing.broken")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_as_in_a_server(both, case):
    typeid, args, kwds, expressions = case
    arena, server = (getattr(manager, typeid)(*args, **kwds) for manager in both)
    assert arena._backing is not None or args == ("u", "abc")
    assert server._backing is None
    assert type(arena).__name__ == type(server).__name__
    assert repr(arena).startswith(f"<{type(server).__name__} object, typeid {typeid!r} at ")
    for expression in expressions:
        try:
            function = eval(f"lambda thing: {expression}")
        except SyntaxError:
            function = exec_on(expression)
        assert outcome(function, arena) == outcome(function, server), expression


@pytest.mark.parametrize(
    "call",
    ["dict(1)", "list(1)", "Namespace(1)", "Value()", "Array('?', [])", "Semaphore(-1)", "Lock(1)"],
)
def test_wrong_arguments(both, call):
    for manager in both:
        with pytest.raises(RemoteError):
            eval(f"manager.{call}", {"manager": manager})


def test_what_must_live_in_the_server_does(both):
    manager = both[0]
    barrier = manager.Barrier(1, print)
    condition = manager.Condition(manager.Lock())
    assert barrier._backing is condition._backing is None
    with condition:
        condition.notify()


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not this one")


def test_what_cannot_be_pickled_raises_at_the_call_with_its_path(manager):
    shared, here = manager.dict(), {"deep": [1, Unpicklable()]}
    kept = manager.Kept()
    calls = [
        lambda: shared.update(x=here),
        lambda: shared.__setitem__("x", here),
        lambda: manager.list([here]),
        lambda: manager.Namespace(x=here),
        lambda: manager.Queue().put(here),
        lambda: kept.keep(here),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="not this one") as caught:
            call()
        told = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
        assert "'deep'" in told and "[1]" in told
    assert kept.keep(1) == 1  # the line is still in order


# -- References ------------------------------------------------------------------------------


def test_what_lies_in_the_arena_keeps_what_is_in_the_server(manager):
    shared = manager.list([manager.Kept()])
    shared[0].keep(1)
    assert manager._number_of_objects() == 1
    channel = manager.Queue()
    channel.put(shared.pop())
    assert manager._number_of_objects() == 1
    assert channel.get().keep(2) == 2
    assert manager._number_of_objects() == 0


def test_many_that_only_a_lease_keeps(manager):
    shared = manager.list([manager.Kept() for _ in range(30)])
    assert manager._number_of_objects() == 30
    assert all(kept.keep(1) == 1 for kept in shared)
    del shared[:]
    give_up = 500
    while manager._number_of_objects() and give_up:
        give_up -= 1
    assert give_up


def test_a_message_keeps_what_is_in_the_server(manager):
    channel = kinfolk.Queue()
    channel.put(manager.Kept())
    gc.collect()
    assert channel.get().keep(1) == 1
    channel.close()


def test_the_server_uses_what_is_in_the_arena(manager):
    kept, shared = manager.Kept(), manager.dict(nested=manager.list([1]))
    kept.keep(shared)
    kept.use(0)
    assert shared["seen"] == "by the server"
    del shared
    again = kept.give(0)
    assert again["nested"][0] == 1
    assert type(again) is managers.DictProxy


def test_copies(manager):
    import copy

    shared = manager.dict(a=[1])
    same, plain = copy.copy(shared), copy.deepcopy(shared)
    same["b"] = 2
    assert shared["b"] == 2
    assert plain == {"a": [1]}


# -- Everywhere --------------------------------------------------------------------------------


def use(things):
    things["dict"]["child"] = things["condition"]
    with things["condition"]:
        things["condition"].notify()
    assert things["barrier"].parties == 1
    things["barrier"].wait()
    things["array"][:] = things["array"][::-1]


@pytest.mark.parametrize("method", METHODS)
def test_in_a_child(manager, method):
    things = {
        "dict": manager.dict(),
        "condition": manager.Condition(),
        "barrier": manager.Barrier(1, None, 5),
        "array": manager.Array("h", [1, 2]),
    }
    child = kinfolk.get_context(method).Process(target=use, args=(things,))
    child.start()
    child.join()
    assert child.exitcode == 0
    child.close()
    assert things["array"][:].tolist() == [2, 1]
    with things["dict"]["child"] as held:
        assert held


def test_a_call_from_a_signal_handler_and_many_threads(manager):
    shared = manager.dict(n=0)

    def work():
        for n in range(200):
            shared[n] = n

    threads = [threading.Thread(target=work) for _ in range(4)]
    signal.signal(signal.SIGALRM, lambda *args: shared.update(n=shared["n"] + 1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert len(shared) == 201


# -- The life of a manager ----------------------------------------------------------------------


def wait_for_the_end(shared, ready, told):
    ready.set()
    while True:
        try:
            shared["key"]
        except (OSError, EOFError) as error:
            told.put(type(error).__name__)
            return


def test_shutdown_is_seen_everywhere():
    manager = SyncManager()
    manager.start()
    shared = manager.dict(key=1)
    told, ready = kinfolk.Queue(), kinfolk.Event()
    child = kinfolk.Process(target=wait_for_the_end, args=(shared, ready, told))
    child.start()
    ready.wait(30)
    manager.shutdown()
    assert told.get(timeout=30) == "BrokenPipeError"
    child.join()
    child.close()
    with pytest.raises(OSError, match="shut down"):
        shared["key"]
    assert "'__str__()' failed" in str(shared)
    with pytest.raises(AssertionError):
        manager.dict()
    told.close()


WAITING = [
    ("Queue", (), "get"),
    ("Queue", (1,), "join"),
    ("Lock", (), "acquire"),
    ("Semaphore", (1,), "acquire"),
    ("Event", (), "wait"),
    ("Condition", (), "wait"),
]


@pytest.mark.parametrize("typeid, args, name", WAITING, ids=str)
def test_shutdown_ends_what_waits(typeid, args, name):
    manager = SyncManager()
    manager.start()
    shared, told = getattr(manager, typeid)(*args), []
    about_to_wait = threading.Event()

    def wait():
        if name == "acquire" or typeid == "Condition":
            shared.acquire()
        if name == "join":
            shared.put(1)
        about_to_wait.set()
        try:
            getattr(shared, name)()
        except OSError as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    about_to_wait.wait()
    manager.shutdown()
    thread.join(30)
    assert not thread.is_alive()
    assert type(told[0]) is BrokenPipeError


def test_the_arena_outlives_a_killed_server():
    manager = SyncManager()
    manager.start()
    shared = manager.dict(key=1)
    os.kill(manager._process.pid, signal.SIGKILL)
    manager._process.join()
    shared["key"] += 1
    assert shared["key"] == 2
    manager.shutdown()
    with pytest.raises(OSError):
        shared["key"]


# -- Strangers ----------------------------------------------------------------------------------

STRANGER = """
import pickle, sys, queue
import kinfolk
from kinfolk import process
process.current_process().authkey = b"for all"
shared, line, space, lock = pickle.loads(bytes.fromhex(sys.stdin.read()))
shared["from"] = "a stranger"
assert shared.copy() == {"here": 1, "from": "a stranger"}, shared.copy()
assert shared._getvalue() == shared.copy() and str(shared) == str(shared.copy())
assert sorted(shared) == ["from", "here"] and sorted(shared.keys()) == ["from", "here"]
try:
    shared["none"]
except KeyError:
    pass
else:
    sys.exit("no KeyError")
line.put("from a stranger")
try:
    line.put_nowait(1)
except queue.Full:
    pass
else:
    sys.exit("not full")
space.x += 1
assert str(space) == "Namespace(x=2)"
with lock:
    pass
"""


def test_a_stranger_is_served_the_same_objects():
    with SyncManager(authkey=b"for all") as manager:
        shared, line = manager.dict(here=1), manager.Queue(1)
        space, lock = manager.Namespace(x=1), manager.Lock()
        done = subprocess.run(
            [sys.executable, "-c", STRANGER],
            input=pickle.dumps((shared, line, space, lock)).hex(),
            text=True,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert shared["from"] == "a stranger"
        assert line.get() == "from a stranger"
        assert space.x == 2
        assert manager._number_of_objects() == 0
    manager.join()


STDLIB_CLIENT = """
import sys
from multiprocessing.managers import BaseManager, DictProxy
class Manager(BaseManager): pass
Manager.register("shared", proxytype=DictProxy)
manager = Manager(sys.argv[1], b"for all")
manager.connect()
shared = manager.shared()
shared["from"] = "the standard library"
assert shared["here"] == 1 and sorted(shared.keys()) == ["from", "here"]
"""


class ServingManager(SyncManager):
    pass


_served = None


def served():
    return _served


def serve(proxy):
    global _served
    _served = proxy


ServingManager.register("shared", served, proxytype=managers.DictProxy)


def test_a_server_hands_one_out_to_the_standard_library():
    with SyncManager() as owner:
        shared = owner.dict(here=1)
        manager = ServingManager(authkey=b"for all", ctx=kinfolk.get_context("fork"))
        manager.start(serve, (shared,))
        done = subprocess.run(
            [sys.executable, "-c", STDLIB_CLIENT, manager.address], capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        assert shared["from"] == "the standard library"
        manager.shutdown()
        manager.join()
    owner.join()
