"""SharedMemory, ShareableList and their manager, with the standard library as a peer."""

import os
import pathlib
import pickle
import subprocess
import sys

import pytest

import kinfolk
from kinfolk import resource_tracker, shared_memory
from kinfolk.managers import SharedMemoryManager
from kinfolk.shared_memory import ShareableList, SharedMemory

METHODS = ("fork", "spawn", "forkserver")
ITEMS = [1, -2.5, True, None, "text", b"bytes", "ünïcödé", "", b""]


@pytest.fixture(scope="module", autouse=True)
def tracker():
    """Start the tracker, which stays, and wait until the kernel shows what it is."""
    resource_tracker.ensure_running()
    command = pathlib.Path(f"/proc/{resource_tracker._resource_tracker._pid}/cmdline")
    while not command.read_bytes():
        os.sched_yield()


@pytest.fixture
def segment():
    segment = SharedMemory(create=True, size=512)
    yield segment
    segment.close()
    segment.unlink()


def run_python(code, *args):
    """Run a program that knows nothing of us; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(memory, text):
    memory.buf[: len(text)] = text
    memory.close()


@pytest.mark.parametrize("method", METHODS)
def test_travels_to_children(method, segment):
    child = kinfolk.get_context(method).Process(target=write, args=(segment, b"hello"))
    child.start()
    child.join()
    assert bytes(segment.buf[:5]) == b"hello"
    child.close()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_as_its_name(segment, protocol):
    other = pickle.loads(pickle.dumps(segment, protocol))
    other.buf[0] = 42
    assert segment.buf[0] == 42
    assert (other.name, other.size) == (segment.name, segment.size)
    other.close()


def test_untracked_stays_untracked(segment):
    other = pickle.loads(pickle.dumps(SharedMemory(segment.name, track=False)))
    assert not other._track
    other.close()


def test_the_standard_library_attaches(segment):
    segment.buf[:3] = b"abc"
    read = """if 1:
        import sys
        from multiprocessing import resource_tracker, shared_memory
        memory = shared_memory.SharedMemory(sys.argv[1])
        resource_tracker.unregister(memory._name, 'shared_memory')
        print(bytes(memory.buf[:3]), memory.size)
        memory.buf[3] = 7
        memory.close()
    """
    assert run_python(read, segment.name) == f"{b'abc'} {segment.size}\n"
    assert segment.buf[3] == 7


def test_attaching_to_the_standard_librarys():
    make = """if 1:
        import sys
        from multiprocessing import shared_memory
        print(shared_memory.ShareableList([1, 'two', None, b'4', 5.5, True]).shm.name, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", make],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        mine = ShareableList(name=process.stdout.readline().strip())
        try:
            assert list(mine) == [1, "two", None, b"4", 5.5, True]
            mine[1] = "deux"
            theirs = """if 1:
                import sys
                from multiprocessing import resource_tracker, shared_memory
                items = shared_memory.ShareableList(name=sys.argv[1])
                resource_tracker.unregister(items.shm._name, 'shared_memory')
                print(list(items), items.format)
                items.shm.close()
            """
            seen = run_python(theirs, mine.shm.name)
            assert seen == f"[1, 'deux', None, b'4', 5.5, True] {mine.format}\n"
        finally:
            mine.shm.close()
            mine.shm.unlink()


def test_refusals():
    with pytest.raises(ValueError):
        SharedMemory(create=True, size=-1)
    with pytest.raises(ValueError):
        SharedMemory(create=True, size=0)
    with pytest.raises(ValueError):
        SharedMemory()
    with pytest.raises(FileNotFoundError):
        SharedMemory(f"kinfolk-none-{os.getpid()}")
    with pytest.raises(ValueError):
        SharedMemory("a\0b", create=True, size=1)


def test_name_taken(segment):
    with pytest.raises(FileExistsError):
        SharedMemory(segment.name, create=True, size=1)
    assert SharedMemory(segment.name).size == segment.size


def test_unlinking_twice():
    segment = SharedMemory(create=True, size=1)
    segment.unlink()
    with pytest.raises(FileNotFoundError):
        segment.unlink()
    assert segment.buf[0] == 0
    segment.close()
    segment.close()
    assert segment.buf is None


def test_unlinked_by_a_reader():
    segment = SharedMemory(create=True, size=1)
    reader = SharedMemory(segment.name)
    reader.unlink()
    reader.close()
    segment.close()


def test_views_outlive_the_object():
    segment = SharedMemory(create=True, size=8)
    segment.unlink()
    view = segment.buf[:4]
    with pytest.raises(BufferError):
        segment.close()
    del segment
    view[0] = 1
    assert view[0] == 1


def test_a_readers_exit_leaves_the_segment(segment):
    # From 3.13 on that is what `track` is for.
    untracked = ", track=False" if sys.version_info >= (3, 13) else ""
    read = f"""if 1:
        import sys
        from kinfolk.shared_memory import SharedMemory
        SharedMemory(sys.argv[1]{untracked}).close()
    """
    run_python(read, segment.name)
    SharedMemory(segment.name).close()


def test_items():
    items = ShareableList(ITEMS)
    try:
        assert list(items) == ITEMS
        assert len(items) == len(ITEMS)
        assert items[-1] == b""
        assert items.index("text") == 4
        assert items.count(1) == 2  # True is one too
        again = ShareableList(items)
        again.shm.unlink()
        assert again.format == items.format
        items[3] = "now text"
        assert items[3] == "now text"
        items[3] = None
        assert items[3] is None
    finally:
        items.shm.unlink()


def test_items_refused():
    before = set(os.listdir("/dev/shm"))
    items = ShareableList(["x", 1])
    for position in (2, -3):
        with pytest.raises(IndexError):
            items[position]
        with pytest.raises(IndexError):
            items[position] = 1
    with pytest.raises(ValueError, match="exceeds available storage"):
        items[0] = "much too long"
    with pytest.raises(ValueError):
        items.index("absent")
    with pytest.raises(KeyError):
        items[0] = object()
    items.shm.close()
    items.shm.unlink()
    with pytest.raises(Exception, match="."):
        ShareableList([2**64])
    assert set(os.listdir("/dev/shm")) == before


def test_items_pickle():
    items = ShareableList(range(10))
    other = pickle.loads(pickle.dumps(items))
    other[3] = "changed"
    assert items[3] == "changed"
    items.shm.unlink()


@pytest.mark.parametrize("method", METHODS)
def test_manager_unlinks_what_it_made(method):
    with SharedMemoryManager(ctx=kinfolk.get_context(method)) as manager:
        segment = manager.SharedMemory(128)
        items = manager.ShareableList([1, 2])
        gone = manager.SharedMemory(128)
        gone.unlink()
        for name in (segment.name, items.shm.name):
            SharedMemory(name).close()
    for name in (segment.name, items.shm.name):
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def test_manager_that_was_not_started():
    before = set(os.listdir("/dev/shm"))
    manager = SharedMemoryManager()
    with pytest.raises(ValueError):
        manager.SharedMemory(9)
    assert set(os.listdir("/dev/shm")) == before


def test_the_wild_names():
    assert shared_memory._USE_POSIX
    assert shared_memory._make_filename().startswith(shared_memory._SHM_NAME_PREFIX)
