"""The API over threads."""

import threading
import weakref
from queue import Queue

import pytest

from kinfolk import dummy
from kinfolk.dummy import connection


def test_a_process_is_a_thread():
    seen = []
    process = dummy.Process(target=lambda *a, **k: seen.append((a, k)), args=(1,), kwargs={"k": 2})
    assert isinstance(process, threading.Thread)
    assert process.exitcode is None
    process.start()
    process.join()
    assert process.exitcode == 0
    assert seen == [((1,), {"k": 2})]


def test_children():
    done = threading.Event()
    process = dummy.Process(target=done.wait)
    process.start()
    assert process in dummy.active_children()
    assert process.exitcode is None
    done.set()
    process.join()
    assert process not in dummy.active_children()


def test_only_its_maker_starts_it():
    process = dummy.Process(target=int)
    errors = []

    def start():
        try:
            process.start()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert errors and errors[0].startswith("Parent is <_MainThread")


@pytest.mark.parametrize("prepared", [False, True])
def test_a_thread_that_was_not_made_here_may_have_children(prepared):
    outcome = []

    def run():
        if prepared:  # as programs do for the standard library
            threading.current_thread()._children = weakref.WeakKeyDictionary()
        assert dummy.active_children() == []
        child = dummy.Process(target=int)
        child.start()
        child.join()
        outcome.append(child.exitcode)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert outcome == [0]


def test_shared_things_are_plain_objects():
    assert dummy.Value("i", 7).value == 7
    assert repr(dummy.Value("i", 7)) == "<Value('i', 7)>"
    assert list(dummy.Array("i", [1, 2])) == [1, 2]
    assert repr(dummy.Namespace(b=1, a="x", _hidden=2)) == "Namespace(a='x', b=1)"
    manager = dummy.Manager()
    assert manager.dict(a=1) == {"a": 1} and manager.list("ab") == ["a", "b"]
    assert isinstance(manager.JoinableQueue(), Queue)
    manager.shutdown()
    dummy.freeze_support()


def test_the_names_of_the_standard_library():
    from multiprocessing import dummy as stdlib

    assert set(stdlib.__all__) == set(dummy.__all__)
    for name in vars(stdlib):
        if not name.startswith("_"):
            assert hasattr(dummy, name), name


def test_pipes_hand_over_the_object():
    a, b = dummy.Pipe()
    sent = object()
    with a, b:
        a.send(sent)
        assert b.recv() is sent
        b.send_bytes(b"x")
        assert a.recv_bytes() == b"x"


def test_polling():
    a, b = connection.Pipe(duplex=False)
    assert not b.poll() and not b.poll(-1) and not b.poll(0.001)
    a.send(1)
    assert b.poll() and b.poll(None) and b.poll(5)
    assert b.recv() == 1
    process = dummy.Process(target=a.send, args=(2,))
    process.start()
    assert b.poll(None)
    process.join()


def test_meeting():
    with connection.Listener() as listener:
        assert connection.families == [None]
        client = connection.Client(listener.address)
        server = listener.accept()
        client.send("hello")
        assert server.recv() == "hello"
    assert listener.address is None


def test_a_pool_of_threads():
    with dummy.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        pool.close()
        pool.join()
