"""queue._reader and queue._writer, as programs use the standard library's: polled, selected, waited
for, given to event loops."""

import gc
import os
import pickle
import queue as stdlib
import select
import selectors
import threading

import pytest

import kinfolk
from kinfolk import connection

KINDS = ("Queue", "JoinableQueue", "SimpleQueue")


@pytest.fixture(params=KINDS)
def queue(request):
    queue = getattr(kinfolk, request.param)()
    yield queue
    queue.close()  # and its descriptor


def readable(end):
    return bool(select.select([end], [], [], 0)[0])


def put_all(queue, items):
    for item in items:
        queue.put(item)


# What it says


def test_it_is_readable_while_there_is_something_to_get(queue):
    reader = queue._reader
    assert not readable(reader)
    for _ in range(3):
        put_all(queue, "abc")
        for _ in "abc":
            assert readable(reader)
            queue.get()
        assert not readable(reader)


def test_what_was_there_before_it_was_asked_for(queue):
    queue.put(1)
    assert readable(queue._reader)
    assert queue._reader.recv() == 1
    assert not readable(queue._reader)


@pytest.mark.parametrize("look", ("get_nowait", "empty", "poll", "wait"))
def test_who_finds_nothing_puts_it_right(look):
    """Another process was faster: a loop of select() and get_nowait() must not spin."""
    queue = kinfolk.Queue()
    reader = queue._reader
    reader.fileno()
    queue.put(1)
    thief = kinfolk.Process(target=queue.get)
    thief.start()
    thief.join()
    assert readable(reader)
    if look == "get_nowait":
        with pytest.raises(stdlib.Empty):
            queue.get_nowait()
    elif look == "empty":
        assert queue.empty()
    else:
        assert not reader.poll(0 if look == "poll" else 0.001)
    assert not readable(reader)
    queue.put(2)
    assert readable(reader) and queue.get() == 2


def test_many_at_once_leave_it_right():
    queue = kinfolk.Queue()
    queue._reader.fileno()
    assert queue.put_many(range(1000)) == 1000
    assert readable(queue._reader)
    got = []
    while len(got) < 1000:
        got += queue.get_many(300)
    assert got == list(range(1000))
    assert not readable(queue._reader)


def test_what_was_put_off_can_be_read():
    """get_many() has taken an object that cannot be loaded, and owes the error."""
    queue = kinfolk.Queue()
    queue._reader.fileno()
    queue.put_many([1, Unloadable()])
    got = queue.get_many()
    assert got == [1]
    assert readable(queue._reader) and queue._reader.poll()
    assert connection.wait([queue], 0) == [queue]
    with pytest.raises(ZeroDivisionError):
        queue.get()
    assert queue.empty() and not queue._reader.poll()
    assert not readable(queue._reader)


class Unloadable:
    def __reduce__(self):
        return divmod, (1, 0)


def test_the_end_of_a_queue_can_be_read(queue):
    reader = queue._reader
    assert not readable(reader)
    queue.shutdown()
    assert readable(reader) and reader.poll()
    with pytest.raises(EOFError):
        reader.recv()
    assert readable(reader)


# Select, poll and wait


@pytest.mark.parametrize("method", ("fork", "spawn", "forkserver"))
@pytest.mark.parametrize("take", ("get", "get_nowait", "recv"))
def test_a_loop_of_select(take, method):
    ctx = kinfolk.get_context(method)
    queue = ctx.Queue()
    reader = queue._reader
    child = ctx.Process(target=put_all, args=(queue, range(500)))
    assert not reader.poll(0.001)
    child.start()
    got = []
    while len(got) < 500:
        assert select.select([reader], [], [], 60)[0] == [reader]
        got.append(reader.recv() if take == "recv" else getattr(queue, take)())
    child.join()
    assert got == list(range(500))
    assert queue.empty() and not reader.poll() and not readable(reader)


def test_a_selector():
    queue, other = kinfolk.Queue(), kinfolk.SimpleQueue()
    with selectors.DefaultSelector() as selector:
        selector.register(queue._reader, selectors.EVENT_READ, queue)
        selector.register(other._reader, selectors.EVENT_READ, other)
        assert not selector.select(0)
        other.put("x")
        [(key, _)] = selector.select(60)
        assert key.data is other
        assert key.data.get() == "x"
        assert not selector.select(0)
        selector.unregister(queue._reader)
        queue.put("y")
        assert not selector.select(0)


def test_several_consumers_share_the_work():
    queue, results = kinfolk.Queue(), kinfolk.Queue()
    crew = [kinfolk.Process(target=consume, args=(queue, results)) for _ in range(3)]
    for one in crew:
        one.start()
    put_all(queue, range(600))
    queue.shutdown()
    got = sorted(results.get(timeout=60) for _ in range(600))
    for one in crew:
        one.join()
    assert got == list(range(600))


def consume(queue, results):
    reader = queue._reader
    while True:
        select.select([reader], [], [])
        try:
            results.put(queue.get_nowait())
        except stdlib.Empty:
            pass
        except EOFError:
            return


def test_threads_share_one_descriptor():
    queue = kinfolk.Queue()
    got = []

    def take():
        while True:
            select.select([queue._reader], [], [])
            try:
                got.append(queue.get_nowait())
            except stdlib.Empty:
                pass
            except EOFError:
                return

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    child = kinfolk.Process(target=put_all, args=(queue, range(1000)))
    child.start()
    child.join()
    queue.shutdown()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(1000))


@pytest.mark.parametrize("kind", ("Queue", "SimpleQueue"))
def test_what_a_process_put_is_there_when_it_has_ended(kind):
    """concurrent.futures takes an end without a result for a crash."""
    for n in range(20):
        queue = getattr(kinfolk, kind)()
        reader = queue._reader
        child = kinfolk.Process(target=put_all, args=(queue, [n]))
        child.start()
        assert reader in connection.wait([child.sentinel, reader])
        child.join()
        assert connection.wait([child.sentinel, reader]) == [child.sentinel, reader]
        assert reader.recv() == n
        assert connection.wait([reader, child.sentinel]) == [child.sentinel]


# As connections


def test_bytes_are_pickles(queue):
    queue._writer.send({"a": 1})
    assert pickle.loads(queue._reader.recv_bytes()) == {"a": 1}
    queue._writer.send_bytes(b"..." + pickle.dumps([1, 2]), 3)
    assert queue.get() == [1, 2]
    queue.put("long")
    with pytest.raises(OSError, match="bad message length"):
        queue._reader.recv_bytes(1)
    with pytest.raises(ValueError):
        queue._reader.recv_bytes(-1)


def test_each_end_has_its_side(queue):
    reader, writer = queue._reader, queue._writer
    assert (reader.readable, reader.writable) == (False, True)[::-1]
    assert (writer.readable, writer.writable) == (False, True)
    with pytest.raises(OSError, match="read-only"):
        reader.send(1)
    with pytest.raises(OSError, match="write-only"):
        writer.recv()
    assert queue._reader == reader != writer == queue._writer
    assert reader in [queue._reader] and len({reader, writer, queue._reader}) == 2


def test_the_writer_is_writable():
    queue = kinfolk.Queue(1)
    assert select.select([], [queue._writer], [], 0)[1]
    assert connection.wait([queue._writer]) == [queue._writer]
    queue.put(1)
    assert connection.wait([queue._writer], 0) == []
    taker = kinfolk.Process(target=queue.get)
    taker.start()
    assert connection.wait([queue._writer])
    taker.join()


def test_what_cannot_be_loaded_is_told_to_who_gets_it(queue):
    reader = queue._reader
    reader.fileno()
    queue.put(Unloadable())
    queue.put(2)
    with pytest.raises(ZeroDivisionError):
        reader.recv()
    assert reader.recv() == 2


# Close, fork, and the end


def test_a_closed_end_has_no_descriptor(queue):
    reader = queue._reader
    fd = reader.fileno()
    with reader:
        pass
    assert reader.closed and not queue._writer.closed
    with pytest.raises(OSError):
        os.fstat(fd)
    for use in (reader.fileno, reader.poll, reader.recv, lambda: connection.wait([reader])):
        with pytest.raises((OSError, ValueError), match="closed"):
            use()
    queue.close()
    assert queue._writer.closed
    with pytest.raises(OSError, match="closed"):
        queue._writer.send(1)


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_with_the_queue(kind):
    queue = getattr(kinfolk, kind)()
    fd = queue._reader.fileno()
    os.fstat(fd)
    del queue
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_one_descriptor_is_enough(queue):
    assert queue._reader.fileno() == queue._reader.fileno()


def test_a_forked_child_has_its_own():
    queue, answers = kinfolk.Queue(), kinfolk.Queue()
    fd = queue._reader.fileno()
    inode = os.fstat(fd).st_ino
    pid = os.fork()
    if pid == 0:
        own = os.fstat(queue._reader.fileno()).st_ino
        answers.put((own != inode, readable(queue._reader)))
        os._exit(0)
    assert answers.get(timeout=60) == (True, False)
    assert os.waitpid(pid, 0)[1] == 0
    assert not readable(queue._reader)
    queue.put(1)
    assert readable(queue._reader) and queue.get() == 1 and not readable(queue._reader)


def test_a_forked_child_takes_nothing_from_its_parents_descriptor():
    queue = kinfolk.Queue()
    queue._reader.fileno()
    pid = os.fork()
    if pid == 0:
        try:
            queue.get(timeout=0.01)
        except stdlib.Empty:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    queue.put(1)
    assert queue.get() == 1


def test_no_thread_is_needed(queue):
    before = len(os.listdir("/proc/self/task"))
    queue._reader.fileno()
    queue.put(1)
    assert connection.wait([queue._reader]) == [queue._reader]
    assert len(os.listdir("/proc/self/task")) == before
