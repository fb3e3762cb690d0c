"""SharedMemory, ShareableList and their manager, with the standard library as a peer."""

import contextlib
import gc
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import pytest
from kin_children import blocks

import kinfolk
from kinfolk import _kin, resource_tracker, shared_memory
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


@pytest.fixture
def named():
    segment = SharedMemory(f"kinfolk-test-{os.getpid()}", create=True, size=512)
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


def test_the_standard_library_attaches(named):
    segment = named
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


def test_name_taken(named):
    with pytest.raises(FileExistsError):
        SharedMemory(named.name, create=True, size=1)
    assert SharedMemory(named.name).size == named.size


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


def test_a_readers_exit_leaves_the_segment(named):
    # From 3.13 on that is what `track` is for.
    untracked = ", track=False" if sys.version_info >= (3, 13) else ""
    read = f"""if 1:
        import sys
        from kinfolk.shared_memory import SharedMemory
        SharedMemory(sys.argv[1]{untracked}).close()
    """
    run_python(read, named.name)
    SharedMemory(named.name).close()


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


# -- Without a name: memory of the arena


def test_what_has_no_name_is_in_no_folder():
    before, names = blocks(), set(os.listdir("/dev/shm"))
    segment = SharedMemory(create=True, size=100_000)
    assert set(os.listdir("/dev/shm")) == names
    assert len(segment.buf) == segment.size == 100_000 and not any(segment.buf)
    assert blocks() == before + 1
    del segment
    assert blocks() == before


def test_a_name_that_was_asked_for_stays_until_it_is_unlinked():
    before = blocks()
    segment = SharedMemory(create=True, size=10)
    segment.buf[0] = 7
    name = segment.name
    segment.close()
    del segment
    again = SharedMemory(name)
    assert again.name == name and again.buf[0] == 7
    again.close()
    again.unlink()
    with pytest.raises(FileNotFoundError):
        again.unlink()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
    del again
    assert blocks() == before


def test_a_name_that_is_asked_for_after_closing():
    segment = SharedMemory(create=True, size=10)
    segment.buf[0] = 7
    segment.close()
    assert segment.buf is None
    other = SharedMemory(segment.name)
    assert other.buf[0] == 7
    other.unlink()
    assert other.buf[0] == 7  # for those who have it open
    other.close()


def make_and_tell(queue):
    segment = SharedMemory(create=True, size=10)
    segment.buf[:5] = b"hello"
    segment.close()
    queue.put(segment.name)


@pytest.mark.parametrize("method", METHODS)
def test_a_childs_name_is_attached_by_its_parent(method):
    context = kinfolk.get_context(method)
    queue = context.Queue()
    child = context.Process(target=make_and_tell, args=(queue,))
    child.start()
    child.join()
    segment = SharedMemory(queue.get())
    assert bytes(segment.buf[:5]) == b"hello"
    segment.close()
    segment.unlink()


def test_a_message_under_way_keeps_it():
    queue = kinfolk.Queue()
    queue.put(SharedMemory(create=True, size=10))
    gc.collect()
    segment = queue.get()
    segment.buf[9] = 1
    assert segment.size == 10


def make_and_be_killed(queue, asks):
    segment = SharedMemory(create=True, size=10)
    queue.put(segment.name if asks else None)
    kept = [SharedMemory(create=True, size=n) for n in range(1, 30)]
    kept[0].buf[0] = 1
    os.kill(os.getpid(), signal.SIGKILL)


def make_for_others(number):
    segment = SharedMemory(create=True, size=10)
    segment.buf[0] = number
    return segment.name


@pytest.mark.parametrize("method", METHODS)
def test_what_the_workers_of_a_pool_made_outlives_them(method):
    with kinfolk.get_context(method).Pool(2) as pool:
        names = pool.map(make_for_others, range(5))
    for number, name in enumerate(names):
        segment = SharedMemory(name)
        assert segment.buf[0] == number
        segment.close()
        segment.unlink()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("asks", [True, False])
def test_a_killed_process_leaves_none(method, asks):
    before = blocks()
    context = kinfolk.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=make_and_be_killed, args=(queue, asks))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    name = queue.get()
    _kin.reap()
    if asks:  # whoever was told the name may come yet
        SharedMemory(name).unlink()
    del queue, child
    assert blocks() <= before + 1  # where the child's start looked for the tracker


def test_another_familys_name_is_refused():
    code = """if 1:
        from kinfolk.shared_memory import SharedMemory
        segment = SharedMemory(create=True, size=10, track=False)
        print(segment.name)
    """
    with pytest.raises(FileNotFoundError, match="memory of another family"):
        SharedMemory(run_python(code).strip())
    for name in ("psm_00000000_1_1", f"psm_{_kin.family_id()[:4].hex()}_ffffffffffffffffff_1"):
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def test_a_program_that_wants_names_gets_them(monkeypatch):
    monkeypatch.setattr(shared_memory, "_make_filename", lambda: f"/psm_{os.getpid()}_x")
    segment = SharedMemory(create=True, size=10)
    assert segment.name in os.listdir("/dev/shm")
    segment.close()
    segment.unlink()


# -- What a run that was killed has left


LEAVES = """if 1:
    import os, signal, sys
    from kinfolk import resource_tracker
    from kinfolk.shared_memory import SharedMemory
    segment = SharedMemory(sys.argv[1], create=True, size=1000)
    os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
    os.waitpid(resource_tracker._resource_tracker._pid, 0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(tmp_path, monkeypatch):
    """The name of a segment whose maker and tracker were killed."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(shared_memory, "_reported", False)
    name = f"kinfolk-left-{os.getpid()}"
    done = subprocess.run([sys.executable, "-c", LEAVES, name], check=False)
    assert done.returncode == -signal.SIGKILL
    yield name
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"/dev/shm/{name}")


def test_what_was_left_is_reported_and_reclaimed(left, tmp_path):
    with pytest.warns(RuntimeWarning, match=f"left behind by a run that was killed: '{left}'"):
        with pytest.raises(FileExistsError, match="which was killed: kinfolk.shared_memory.recl"):
            SharedMemory(left, create=True, size=5)
    assert shared_memory.reclaim() == [left]
    assert left not in os.listdir("/dev/shm") and os.listdir(tmp_path) == []
    assert shared_memory.reclaim() == []
    segment = SharedMemory(left, create=True, size=5)
    assert len(os.listdir(tmp_path)) == 1
    segment.close()
    segment.unlink()
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:shared memory that was left behind")
def test_what_is_in_use_or_another_s_is_not_reclaimed(left, tmp_path):
    attached = SharedMemory(left, track=False)
    assert shared_memory.reclaim() == []
    attached.close()
    # another segment by the same name; the first one stays, so that its inode is not used again
    os.rename(f"/dev/shm/{left}", f"/dev/shm/{left}.first")
    with open(f"/dev/shm/{left}", "w"):
        pass
    assert shared_memory.reclaim() == []
    assert os.path.exists(f"/dev/shm/{left}") and os.listdir(tmp_path) == []
    os.unlink(f"/dev/shm/{left}.first")


def test_damaged_notes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / f"kinfolk-shm-{os.getuid()}"
    folder.mkdir(mode=0o700)
    for n, text in enumerate(("", "{", "[]", '{"inode": 1}', '{"inode": [1, 2], "makers": []}')):
        (folder / f"bad{n}").write_text(text)
    assert shared_memory.reclaim() == []
    assert not folder.exists()
    folder.symlink_to("/dev/shm")
    assert shared_memory.reclaim() == []
    folder.unlink()


def test_a_note_that_is_being_written_is_let_be(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    name = f"kinfolk-noted-{os.getpid()}"
    seen = []

    def replace(source, target, replace=os.replace):
        # Another process looks just now; and somebody was killed here before.
        (folder / ".begun-0.1").touch()
        assert shared_memory.reclaim() == []
        seen.extend(os.listdir(folder))
        replace(source, target)

    folder = tmp_path / f"kinfolk-shm-{os.getuid()}"
    monkeypatch.setattr(os, "replace", replace)
    segment = SharedMemory(name, create=True, size=5)
    assert len(seen) == 1 and seen[0].startswith(f".begun-{os.getpid()}.")
    assert os.listdir(folder) == [name]
    segment.close()
    segment.unlink()
    assert os.listdir(tmp_path) == []
