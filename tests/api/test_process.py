"""Process objects: the child as its parent sees it, and as it sees itself, by each start method."""

import gc
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

import kinfolk
from kinfolk import _wait, process
from kinfolk.forkserver import _forkserver

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


@pytest.fixture
def output(capfd):
    """What children write to stdout and stderr.  A fork server has the ones that it began with."""
    _forkserver._stop()
    yield capfd
    _forkserver._stop()
    with capfd.disabled():
        _forkserver.ensure_running()


def run(ctx, target, *args, **options):
    """Run a child to its end and return its process object."""
    child = ctx.Process(target=target, args=args, **options)
    child.start()
    child.join()
    return child


def python(*args, **options):
    """Run an interpreter like this one that finds kinfolk."""
    home = os.path.dirname(os.path.dirname(kinfolk.__file__))
    env = {**os.environ, "PYTHONPATH": home, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=env, timeout=60, **options
    )


# Ends


@pytest.mark.parametrize(
    ("asked", "code"),
    [(None, 0), (0, 0), (True, 1), (7, 7), (256 + 7, 7), (-1, 255), (2**70, 255), ("words", 1)],
)
def test_exit_code(ctx, asked, code):
    assert run(ctx, sys.exit, asked).exitcode == code


def test_exit_code_of_an_exception(ctx, output):
    child = run(ctx, raise_deep, 3)
    err = output.readouterr().err
    assert child.exitcode == 1
    assert err.startswith(f"Process {child.name}:\nTraceback (most recent call last):\n")
    assert err.rstrip().endswith("LookupError: at the bottom")
    assert os.path.dirname(kinfolk.__file__) not in err, "frames of the package are not shown"


def raise_deep(depth):
    if depth == 0:
        raise LookupError("at the bottom")
    raise_deep(depth - 1)


def test_a_call_that_does_not_fit_is_shown(ctx, output):
    assert run(ctx, raise_deep, 1, 2, 3).exitcode == 1
    assert "raise_deep() takes 1 positional argument" in output.readouterr().err


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_exit_code_of_a_signal(ctx, how):
    child = ctx.Process(target=time.sleep, args=(60,))
    child.start()
    assert child.exitcode is None
    getattr(child, how)()
    child.join()
    number = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}[how]
    assert child.exitcode == -number
    assert f"exitcode=-{number.name}" in repr(child)
    getattr(child, how)()  # again: nothing to do


def test_a_child_that_ends_without_a_word(ctx):
    assert run(ctx, os._exit, 3).exitcode == 3


def test_atexit_in_the_child(ctx, tmp_path):
    run(ctx, leave_a_note_at_exit, tmp_path / "note")
    # 3.13 began to run them in forked children, too.
    runs = sys.version_info >= (3, 13) or ctx.get_start_method() == "spawn"
    assert (tmp_path / "note").exists() == runs


def leave_a_note_at_exit(path):
    import atexit

    atexit.register(path.touch)


def test_threads_of_the_child_are_waited_for(ctx):
    done = ctx.Event()
    run(ctx, start_thread, done)
    assert done.is_set()


def start_thread(done):
    may = threading.Event()
    threading.Thread(target=lambda: (may.wait(), time.sleep(0.05), done.set())).start()
    may.set()


def test_output_is_flushed(ctx, output):
    run(ctx, sys.stdout.write if ctx.get_start_method() == "fork" else write, "no newline")
    if ctx.get_start_method() != "fork":  # pytest's own stdout is not the descriptor
        assert output.readouterr().out == "no newline"


def write(text):
    sys.stdout.write(text)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_streams_may_be_broken(ctx, stream, monkeypatch):
    monkeypatch.setattr(sys, stream, None)
    assert run(ctx, break_stream, stream).exitcode == 0


def break_stream(stream):
    setattr(sys, stream, None)


def test_stdin_is_empty(ctx):
    queue = ctx.Queue()
    run(ctx, read_stdin, queue)
    assert queue.get() == ""


def read_stdin(queue):
    queue.put(sys.stdin.read())


# Before, while and after


def test_life_of_an_object(ctx):
    child = ctx.Process(target=wait_for, args=(go := ctx.Event(),), name="Ida")
    assert re.fullmatch(r"<\w+Process name='Ida' parent=\d+ initial>", repr(child))
    assert (child.pid, child.ident, child.exitcode, child.is_alive()) == (None, None, None, False)
    with pytest.raises(ValueError, match="process not started"):
        child.sentinel
    with pytest.raises(AssertionError, match="can only join a started process"):
        child.join()

    child.start()
    assert re.fullmatch(r"<\w+Process name='Ida' pid=\d+ parent=\d+ started>", repr(child))
    assert child.is_alive() and child in kinfolk.active_children()
    assert not _wait.readable(child.sentinel, 0)
    assert child.join(0) is None and child.join(-1) is None and child.join(0.001) is None
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        child.start()
    with pytest.raises(ValueError, match="while it is still running"):
        child.close()

    go.set()
    child.join()
    assert _wait.readable(child.sentinel, 0)
    assert re.fullmatch(
        r"<\w+Process name='Ida' pid=\d+ parent=\d+ stopped exitcode=0>", repr(child)
    )
    assert not child.is_alive() and child not in kinfolk.active_children()

    child.close()
    child.close()
    assert re.fullmatch(r"<\w+Process name='Ida' parent=\d+ closed>", repr(child))
    for method in (child.start, child.join, child.is_alive, child.terminate, child.kill):
        with pytest.raises(ValueError, match="process object is closed"):
            method()
    for name in ("sentinel", "exitcode", "pid"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(child, name)


def wait_for(event):
    event.wait()


def test_sentinel_and_exit_code_come_together(ctx):
    for _ in range(20):
        child = ctx.Process(target=os._exit, args=(5,))
        child.start()
        assert _wait.wait([child.sentinel])
        assert child.exitcode == 5
        child.close()


def test_many_threads_join_one_child(ctx):
    child = ctx.Process(target=wait_for, args=(go := ctx.Event(),))
    child.start()
    codes = []
    threads = [
        threading.Thread(target=lambda: (child.join(), codes.append(child.exitcode)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 5


def test_a_handler_that_joins_meets_a_join(ctx):
    """SIGCHLD handlers look after all children, at the very moment that a join is at work."""
    seen = []
    before = signal.signal(signal.SIGCHLD, lambda *_: seen.append(kinfolk.active_children()))
    try:
        children = [ctx.Process(target=int) for _ in range(10)]
        for child in children:
            child.start()
        for child in children:
            child.join()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert [child.exitcode for child in children] == [0] * 10


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_status_that_somebody_else_took(method):
    child = kinfolk.get_context(method).Process(target=int)
    child.start()
    os.waitpid(child.pid, 0)
    child.join()
    assert child.exitcode == 255 and not child.is_alive()


def test_the_parent_keeps_nothing_of_the_arguments(ctx):
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    child = ctx.Process(target=id, args=(thing,), kwargs={})
    child.start()
    del thing
    assert gone() is None
    child.join()


def test_an_object_goes_when_nobody_wants_it(ctx):
    child = run(ctx, int)
    gone = weakref.ref(child)
    assert child in process._dangling
    del child
    gc.collect()
    assert gone() is None


# What the child is


def describe(queue):
    me, parent = kinfolk.current_process(), kinfolk.parent_process()
    queue.put(
        {
            "name": me.name,
            "pid": me.pid,
            "daemon": me.daemon,
            "alive": me.is_alive(),
            "authkey": bytes(me.authkey),
            "parent": (parent.pid, parent.name, parent.is_alive()),
            "children": kinfolk.active_children(),
            "method": kinfolk.get_start_method(),
            "argv": sys.argv,
            "path": sys.path,
            "cwd": os.getcwd(),
            "main thread": threading.current_thread() is threading.main_thread(),
        }
    )


def test_the_child_knows_what_it_is(ctx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["here", "and", "now"])
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    child = ctx.Process(target=describe, args=(queue := ctx.Queue(),), name="Ida", daemon=True)
    child.authkey = b"key"
    child.start()
    child.join()
    assert queue.get() == {
        "name": "Ida",
        "pid": child.pid,
        "daemon": True,
        "alive": True,
        "authkey": b"key",
        "parent": (os.getpid(), kinfolk.current_process().name, True),
        "children": [],
        "method": ctx.get_start_method(),
        "argv": ["here", "and", "now"],
        "path": sys.path,
        "cwd": str(tmp_path),
        "main thread": True,
    }


def test_names_count_by_parent(ctx):
    queue = ctx.Queue()
    child = ctx.Process(target=start_two, args=(ctx, queue))
    child.start()
    child.join()
    kind = type(child).__name__
    number = child.name.removeprefix(f"{kind}-")
    assert sorted(queue.get() for _ in range(2)) == [f"{kind}-{number}:1", f"{kind}-{number}:2"]


def start_two(ctx, queue):
    for _ in range(2):
        run(ctx, put_name, queue)


def put_name(queue):
    queue.put(kinfolk.current_process().name)


class Counter(kinfolk.Process):
    """run() overridden, and state of its own."""

    def __init__(self, queue, upto):
        super().__init__(name="Counter")
        self.queue = queue
        self.upto = upto

    def run(self):
        self.queue.put(sum(range(self.upto)))


@pytest.mark.parametrize("method", METHODS)
def test_subclass_of_the_default_process(method):
    before = kinfolk.get_start_method(allow_none=True)
    kinfolk.set_start_method(method, force=True)
    try:
        child = Counter(queue := kinfolk.Queue(), 10)
        child.start()
        child.join()
        assert (queue.get(), child.exitcode) == (45, 0)
    finally:
        kinfolk.set_start_method(before, force=True)


def test_the_process_that_all_others_come_from():
    me = kinfolk.current_process()
    assert (me.name, me.pid, me.daemon, me.exitcode) == ("MainProcess", os.getpid(), False, None)
    assert kinfolk.parent_process() is None
    assert "started" in repr(me)
    assert type(me.authkey) is process.AuthenticationString
    with pytest.raises(TypeError, match="disallowed for security reasons"):
        me.authkey.__reduce__()


def test_a_process_object_belongs_to_who_made_it():
    child = kinfolk.Process(target=int)
    pid = os.fork()
    if pid == 0:
        try:
            child.start()
        except AssertionError as error:
            os._exit(0 if "created by current process" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert child.exitcode is None


def test_a_child_of_the_users_own_fork_has_no_children(ctx):
    child = ctx.Process(target=wait_for, args=(go := ctx.Event(),), daemon=True)
    child.start()
    pid = os.fork()
    if pid == 0:
        # What atexit would do: end the daemons, of which there are none here.
        from kinfolk import util

        util._exit_function()
        os._exit(len(kinfolk.active_children()))
    assert os.waitpid(pid, 0)[1] == 0
    assert child.is_alive()
    go.set()
    child.join()
    assert child.exitcode == 0


# Daemons


def test_a_daemon_may_have_children_which_are_daemons(ctx):
    queue = ctx.Queue()
    child = run(ctx, start_a_child, ctx, queue, daemon=True)
    assert child.exitcode == 0
    assert queue.get() == ("grandchild", True)


def start_a_child(ctx, queue):
    child = ctx.Process(target=say_what_it_is, args=(queue,), name="grandchild")
    child.start()
    child.join()


def say_what_it_is(queue):
    current = kinfolk.current_process()
    queue.put((current.name, current.daemon))


def test_a_killed_daemon_takes_its_children_along(ctx):
    r, w = ctx.Pipe(duplex=False)
    child = ctx.Process(target=start_and_wait, args=(ctx, w), daemon=True)
    child.start()
    w.close()
    assert r.recv() == "here"
    child.kill()
    with pytest.raises(EOFError):  # nobody is left who holds the other end
        r.recv()
    child.join()


def start_and_wait(ctx, w):
    child = ctx.Process(target=say_and_wait, args=(w,))
    child.start()
    child.join()


def say_and_wait(w):
    w.send("here")
    threading.Event().wait()


def test_interrupt(ctx, output):
    r, w = ctx.Pipe(duplex=False)
    child = ctx.Process(target=say_and_wait, args=(w,), name="Fred")
    child.start()
    assert r.recv() == "here"
    child.interrupt()
    child.join()
    assert child.exitcode == 1
    assert output.readouterr().err == "Fred was interrupted\n"


DAEMON_PARENT = textwrap.dedent(
    """
    import os, signal, sys, threading, time
    import kinfolk

    def be_daemon(ready):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready.put(os.getpid())
        time.sleep(600)

    def start(ctx, ready):
        ctx.Process(target=be_daemon, args=(ready,), daemon=True).start()

    if __name__ == "__main__":
        ctx = kinfolk.get_context(sys.argv[1])
        ready = ctx.Queue()
        # The thread that starts it ends, and that is nothing to the daemon.
        thread = threading.Thread(target=start, args=(ctx, ready))
        thread.start()
        pid = ready.get()
        thread.join()
        # A process that the parent forked must not stand in for it.
        other = os.fork()
        if other == 0:
            time.sleep(600)
        time.sleep(0.2)
        print(pid, other, *(child.is_alive() for child in kinfolk.active_children()), flush=True)
        time.sleep(600)
    """
)


@pytest.mark.parametrize("method", METHODS)
def test_a_daemon_ends_with_its_parent_however_that_ends(method, tmp_path):
    (tmp_path / "parent.py").write_text(DAEMON_PARENT)
    home = os.path.dirname(os.path.dirname(kinfolk.__file__))
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", method],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": home},
    )
    daemon, other, alive = parent.stdout.readline().split()
    fd = os.pidfd_open(int(daemon))
    try:
        assert alive == "True"
        assert not _wait.readable(fd, 0)
        parent.kill()
        assert _wait.readable(fd, 30), "the daemon is still there"
    finally:
        os.close(fd)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        os.kill(int(other), signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
def test_the_end_of_a_program(method, tmp_path):
    """Daemons are ended, other children are waited for."""
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            f"""
            import time, kinfolk

            def child(seconds, word):
                time.sleep(seconds)
                print(word, flush=True)

            if __name__ == "__main__":
                ctx = kinfolk.get_context({method!r})
                ctx.Process(target=child, args=(60, "daemon"), daemon=True).start()
                ctx.Process(target=child, args=(0.3, "child")).start()
                print("main", flush=True)
            """
        )
    )
    done = python(tmp_path / "program.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "main\nchild\n", "")


def test_parent_process_ends(ctx):
    """A grandchild sees its parent end."""
    queue = ctx.Queue()
    child = ctx.Process(target=start_and_linger, args=(ctx, queue))
    child.start()
    assert queue.get() is True
    child.kill()
    child.join()
    assert queue.get() is False


def start_and_linger(ctx, queue):
    ctx.Process(target=watch_parent, args=(queue,)).start()
    time.sleep(60)


def watch_parent(queue):
    parent = kinfolk.parent_process()
    queue.put(parent.is_alive())
    parent.join(30)
    queue.put(parent.is_alive())


# What cannot be started


def test_an_argument_that_cannot_be_sent_is_an_error_of_start(ctx):
    if ctx.get_start_method() == "fork":
        pytest.skip("a forked child has its arguments")
    child = ctx.Process(target=int, args=(Unsendable(),))
    with pytest.raises(ZeroDivisionError):
        child.start()
    assert child.pid is None and child not in kinfolk.active_children()


class Unsendable:
    def __reduce__(self):
        1 / 0


def test_an_argument_that_cannot_be_loaded_ends_the_child(ctx, output):
    if ctx.get_start_method() == "fork":
        pytest.skip("a forked child has its arguments")
    assert run(ctx, int, Unloadable()).exitcode == 1
    assert "ZeroDivisionError" in output.readouterr().err


class Unloadable:
    def __reduce__(self):
        return divmod, (1, 0)


def test_an_interpreter_that_is_not_there():
    ctx = kinfolk.get_context("spawn")
    before = kinfolk.spawn.get_executable()
    ctx.set_executable("/nowhere/python")
    try:
        child = ctx.Process(target=int)
        with pytest.raises(FileNotFoundError) as caught:
            child.start()
        assert caught.value.filename in (b"/nowhere/python", "/nowhere/python")
        ctx.set_executable(None)
        with pytest.raises(ValueError, match="set_executable"):
            child.start()
    finally:
        ctx.set_executable(before)


def test_no_descriptor_gets_into_a_clean_child(ctx):
    if ctx.get_start_method() == "fork":
        pytest.skip("a forked child has all that its parent has")
    queue = ctx.Queue()
    run(ctx, put_descriptors, queue)
    first = queue.get()
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        run(ctx, put_descriptors, queue)
    assert queue.get() == first


def put_descriptors(queue):
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the one that listed the others
            pass
    queue.put(sorted(found))


def test_without_pidfds(ctx, monkeypatch):
    from kinfolk import _watch

    monkeypatch.setattr(_watch, "_pidfd", False)
    child = ctx.Process(target=wait_for, args=(go := ctx.Event(),), daemon=True)
    child.start()
    assert not _wait.readable(child.sentinel, 0)
    assert child.is_alive()
    go.set()
    child.join()
    assert child.exitcode == 0
    assert _wait.readable(child.sentinel, 0)
    child.close()


def test_the_family_is_left_when_all_else_is_done():
    """A handler that was registered before kinfolk was imported runs last, and may use a queue."""
    code = """
import atexit
queue = None
@atexit.register
def last():
    queue.put("late")
    print(queue.get())
import kinfolk, kinfolk.util
queue = kinfolk.Queue()
"""
    done = python("-c", code)
    assert (done.stdout, done.stderr) == ("late\n", "")
