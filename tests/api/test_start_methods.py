"""Contexts and start methods: how one is chosen, and what each of them promises."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import kinfolk
from kinfolk import context, forkserver, queues, spawn, util

METHODS = ("fork", "spawn", "forkserver")
DEFAULT = "forkserver" if sys.version_info >= (3, 14) else "fork"


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


@pytest.fixture
def unsettled():
    before = kinfolk.get_start_method(allow_none=True)
    kinfolk.set_start_method(None, force=True)
    yield
    kinfolk.set_start_method(before, force=True)


def call(ctx, target, *args):
    """What target(*args) returns in a child."""
    queue = ctx.Queue()
    child = ctx.Process(target=put_result, args=(queue, target, args))
    child.start()
    result = queue.get()
    child.join()
    assert child.exitcode == 0
    child.close()
    return result


def put_result(queue, target, args):
    queue.put(target(*args))


# Choosing


def test_all_methods():
    assert sorted(kinfolk.get_all_start_methods()) == sorted(METHODS)
    assert kinfolk.get_all_start_methods()[0] == DEFAULT


def test_the_default_is_settled_by_use(unsettled):
    assert kinfolk.get_start_method(allow_none=True) is None
    assert kinfolk.get_start_method() == DEFAULT
    assert kinfolk.get_start_method(allow_none=True) == DEFAULT
    with pytest.raises(RuntimeError, match="context has already been set"):
        kinfolk.set_start_method("spawn")
    kinfolk.set_start_method("spawn", force=True)
    assert kinfolk.get_start_method() == "spawn"
    assert kinfolk.get_context() is kinfolk.get_context("spawn")


def test_an_unknown_method(unsettled):
    for choose in (kinfolk.get_context, kinfolk.set_start_method):
        with pytest.raises(ValueError, match="cannot find context for 'telepathy'"):
            choose("telepathy")


def test_a_concrete_context_is_what_it_is(ctx):
    assert ctx.get_context() is ctx
    assert type(ctx).__name__.lower().startswith(ctx.get_start_method())
    assert ctx.Process.__name__.lower().startswith(ctx.get_start_method())
    with pytest.raises(ValueError, match="cannot set start method of concrete context"):
        ctx.set_start_method("fork")
    assert ctx.get_context("spawn").get_start_method() == "spawn"


def test_the_child_has_the_method_of_its_context(ctx):
    assert call(ctx, kinfolk.get_start_method) == ctx.get_start_method()


def test_contexts_travel(ctx):
    for one in (ctx, context._default_context):
        assert pickle.loads(pickle.dumps(one)) is one
    queue = call(ctx, make_queue, ctx)
    queue.put(1)
    assert queue.get() == 1
    assert pickle.loads(pickle.dumps(ctx.Queue))().empty()


def make_queue(ctx):
    return ctx.Queue()


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_queues_are_generic(ctx, name):
    for where in (ctx, kinfolk):
        assert getattr(where, name)[int].__origin__ is getattr(queues, name)
        assert isinstance(getattr(where, name)(), getattr(queues, name))


def test_what_the_package_exports():
    expected = {name for name in dir(context._default_context) if not name.startswith("_")}
    assert set(kinfolk.__all__) == expected
    for name in kinfolk.__all__:
        assert getattr(kinfolk, name) is not None
    assert kinfolk.reducer is kinfolk.reduction
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        kinfolk.nonsense


def test_import_is_lean():
    program = """
        import sys
        before = set(sys.modules)
        import kinfolk
        print(*sorted(set(sys.modules) - before))
    """
    home = os.path.dirname(os.path.dirname(kinfolk.__file__))
    out = subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"socket", "ctypes", "logging", "subprocess", "threading", "signal", "enum", "re"}
    assert not heavy.intersection(out)
    assert not any(name.startswith("multiprocessing") for name in out)


def test_exceptions():
    assert issubclass(kinfolk.TimeoutError, kinfolk.ProcessError)
    assert issubclass(kinfolk.BufferTooShort, kinfolk.ProcessError)
    assert issubclass(kinfolk.AuthenticationError, kinfolk.ProcessError)
    assert kinfolk.get_context("spawn").ProcessError is kinfolk.ProcessError


# Things that travel


def test_locks_made_in_one_context_go_to_children_of_another():
    for made in METHODS:
        lock, event = kinfolk.get_context(made).Lock(), kinfolk.get_context(made).Event()
        lock.acquire()
        for started in METHODS:
            assert call(kinfolk.get_context(started), try_lock, lock, event) == (False, False)


def try_lock(lock, event):
    return lock.acquire(False), event.is_set()


def test_a_queue_made_after_the_child(ctx):
    inbox, outbox = ctx.Queue(), ctx.Queue()
    child = ctx.Process(target=answer_all, args=(inbox, outbox))
    child.start()
    later = ctx.Queue()
    inbox.put({"nested": [later]})
    assert outbox.get() == "sent"
    assert later.get() == "hello"
    child.join()


def answer_all(inbox, outbox):
    inbox.get()["nested"][0].put("hello")
    outbox.put("sent")


def test_functions_that_no_child_can_import(ctx):
    base = 40

    def add(n):
        return base + n

    class Local:
        def __init__(self, n):
            self.n = n

    assert call(ctx, add, 2) == 42
    assert call(ctx, lambda thing: thing.n * 2, Local(21)) == 42


# Settings of the interpreter


@pytest.mark.parametrize(
    "flags",
    [["-O"], ["-OO", "-B"], ["-E", "-s"], ["-b"], ["-bb"], ["-X", "dev"], ["-W", "error::UserWarning"],
     ["-X", "utf8=0"], ["-X", "faulthandler", "-q"], ["-I"], ["-S"]],
    ids=" ".join,
)  # fmt: skip
def test_flags_are_handed_on(flags, tmp_path):
    program = f"""
        import sys
        sys.path.append({os.path.dirname(os.path.dirname(kinfolk.__file__))!r})
        import kinfolk

        def show(queue):
            queue.put((tuple(sys.flags), sys.warnoptions, sys._xoptions))

        if __name__ == "__main__":
            queue = kinfolk.Queue()
            for method in ("spawn", "forkserver"):
                child = kinfolk.get_context(method).Process(target=show, args=(queue,))
                child.start()
                child.join()
                assert child.exitcode == 0, method
                assert queue.get() == (tuple(sys.flags), sys.warnoptions, sys._xoptions), method
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, *flags, tmp_path / "program.py"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_command_line_has_the_known_form():
    line = spawn.get_command_line(pipe_handle=3)
    assert line[0] == os.fsencode(sys.executable)
    assert line[-1] == "--multiprocessing-fork"
    assert line[-3] == "-c" and line[-2].endswith("spawn_main(pipe_handle=3)")
    assert spawn.is_forking(["-c", "--multiprocessing-fork"])
    assert not spawn.is_forking(["-c"])


def test_a_frozen_program_is_told_by_arguments(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    told = {
        "arena_fd": 3,
        "locker_fd": 4,
        "data": 2**300,
        "obj": 5,
        "parent_pid": 1,
        "lifeline": None,
    }
    line = spawn.get_command_line(**told)
    assert line[:2] == [sys.executable, "--multiprocessing-fork"]
    got = {}
    monkeypatch.setattr(spawn, "spawn_main", lambda **kwds: got.update(kwds))
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit):
        kinfolk.freeze_support()
    assert got == told


def test_freeze_support_of_a_program_that_is_not_frozen():
    assert kinfolk.freeze_support() is None


def test_without_an_executable():
    code = "import sys; sys.executable = None; import kinfolk, kinfolk.spawn"
    home = os.path.dirname(os.path.dirname(kinfolk.__file__))
    env = {**os.environ, "PYTHONPATH": home}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


# Logging


def test_level_is_handed_on(ctx):
    logger = kinfolk.get_logger()
    before = logger.level
    try:
        logger.setLevel(37)
        assert call(ctx, level_here) == 37
    finally:
        logger.setLevel(before)


def level_here():
    return kinfolk.get_logger().getEffectiveLevel()


def test_records_know_their_process(ctx, tmp_path):
    """The logging module only looks for the name multiprocessing."""
    program = f"""
        import kinfolk
        def child():
            kinfolk.get_logger().warning("said %s", "so")
        if __name__ == "__main__":
            kinfolk.log_to_stderr()
            p = kinfolk.get_context({ctx.get_start_method()!r}).Process(target=child, name="Ida")
            p.start()
            p.join()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    home = os.path.dirname(os.path.dirname(kinfolk.__file__))
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        env={**os.environ, "PYTHONPATH": home},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "[WARNING/Ida] said so\n"


# The fork server


def test_children_of_the_server_share_it(own_server):
    ctx = kinfolk.get_context("forkserver")
    own_server.ensure_running()
    server = own_server._forkserver_pid
    assert call(ctx, os.getppid) == server
    assert call(ctx, grandchilds_parent, ctx) == server
    assert own_server._forkserver_pid == server


def grandchilds_parent(ctx):
    return call(ctx, os.getppid)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_server_that_dies_is_replaced(own_server, signum):
    ctx = kinfolk.get_context("forkserver")
    running = ctx.Process(target=wait_for, args=(go := ctx.Event(),))
    running.start()
    server = own_server._forkserver_pid
    os.kill(server, signum)
    if signum == signal.SIGSTOP:
        os.kill(server, signal.SIGKILL)
    assert call(ctx, os.getppid) == own_server._forkserver_pid != server
    assert running.is_alive() and running.exitcode is None
    go.set()
    running.join()
    assert running.exitcode in (0, 255)  # who knew is dead, or had been heard in time


def wait_for(event):
    event.wait()


def test_the_server_sits_out_an_interrupt(own_server):
    ctx = kinfolk.get_context("forkserver")
    call(ctx, int)  # it is ready by now
    server = own_server._forkserver_pid
    os.kill(server, signal.SIGINT)
    assert call(ctx, os.getppid) == server
    assert call(ctx, signal.getsignal, signal.SIGINT) is signal.default_int_handler


def test_the_server_has_imported_what_it_was_told(own_server, tmp_path, monkeypatch):
    (tmp_path / "kin_preloaded.py").write_text("import os\nwhere = os.getpid()\n")
    (tmp_path / "kin_broken.py").write_text("import kin_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kinfolk.set_forkserver_preload(["kin_broken", "kin_preloaded", "kin_missing"])
    ctx = kinfolk.get_context("forkserver")
    assert call(ctx, where_imported) == (own_server._forkserver_pid, own_server._forkserver_pid)


def where_imported():
    import kin_preloaded

    return kin_preloaded.where, os.getppid()


def test_preload_takes_names():
    with pytest.raises(TypeError, match="module_names must be a list of strings"):
        kinfolk.set_forkserver_preload([1, 2])


def test_the_server_ends_with_its_last_client(tmp_path):
    program = """
        import kinfolk
        from kinfolk.forkserver import _forkserver
        if __name__ == "__main__":
            p = kinfolk.get_context("forkserver").Process(target=int)
            p.start()
            p.join()
            print(_forkserver._forkserver_pid)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    home = os.path.dirname(os.path.dirname(kinfolk.__file__))
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        env={**os.environ, "PYTHONPATH": home},
        capture_output=True,
        text=True,
    )
    server = int(done.stdout)
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{server}/stat") and time.monotonic() < deadline:
        with open(f"/proc/{server}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "Z":
                return  # an orphan that nobody here waits for
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{server}"), "the server is still there"


def test_inherited_descriptors(ctx):
    assert forkserver.get_inherited_fds() is None
    inherited = call(ctx, inherited_here)
    assert inherited == ([] if ctx.get_start_method() == "forkserver" else None)


def inherited_here():
    return forkserver.get_inherited_fds()


def test_many_children_at_once(ctx):
    count = 5 if ctx.get_start_method() == "spawn" else 60
    children = [ctx.Process(target=sys.exit, args=(n % 7,)) for n in range(count)]
    starters = [
        threading.Thread(
            target=lambda some: [child.start() for child in some], args=(children[n::3],)
        )
        for n in range(3)
    ]
    for thread in starters:
        thread.start()
    for thread in starters:
        thread.join()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [n % 7 for n in range(count)]


# After a fork, and at the end


def test_after_fork_functions_run_in_order_and_in_children_only(ctx):
    class Owner:
        pass

    owner, said = Owner(), []
    for word in "abc":
        util.register_after_fork(owner, lambda obj, word=word: said.append(word))
    assert said == []
    if ctx.get_start_method() == "fork":
        queue = ctx.Queue()
        child = ctx.Process(target=lambda: queue.put(said))
        child.start()
        child.join()
        assert queue.get() == ["a", "b", "c"]
    del owner
    gc.collect()
    assert said == []


def test_a_lock_held_at_the_fork_is_free_in_the_child():
    lock = util.ForkAwareThreadLock()
    with lock:
        child = kinfolk.get_context("fork").Process(
            target=lambda: sys.exit(not lock.acquire(False))
        )
        child.start()
        child.join()
    assert child.exitcode == 0
