"""What users of multiprocessing suffer from when they start processes, and do not here.

The names of the tests follow the list of pains that the project keeps; some of them have a place
elsewhere: mains of all kinds (test_main_kinds), children of daemons and orphans (test_process).
"""

import os
import pty
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest

import kinfolk

HOME = os.path.dirname(os.path.dirname(kinfolk.__file__))
METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


def program(tmp_path, text, *args, **options):
    """Run a program of its own; what it wrote, and how it ended."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    env = {**os.environ, "PYTHONPATH": HOME, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *options.pop("flags", ()), str(path), *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def call(ctx, target, *args):
    """What target(*args) returns in a child."""
    queue = ctx.SimpleQueue()
    child = ctx.Process(target=lambda: queue.put(target(*args)))
    child.start()
    result = queue.get()
    child.join()
    return result


# Forkserver is as permissive as fork (2)


def test_a_child_gets_what_a_method_refers_to(ctx):
    class Session:
        def __init__(self):
            self.lock = ctx.Lock()
            self.inbox = ctx.Queue()
            self.rate = lambda n: n * factor

        def work(self):
            with self.lock:
                self.inbox.put(self.rate(4))

    factor = 3
    session = Session()
    child = ctx.Process(target=session.work)
    child.start()
    assert session.inbox.get() == 12
    child.join()


# The program's state goes along, as it is at the start


def test_changes_of_the_environment_arrive(ctx, monkeypatch):
    call(ctx, int)  # the fork server is there by now
    monkeypatch.setenv("KINFOLK_TEST_NEW", "new")
    monkeypatch.delenv("KINFOLK_TEST_GONE", raising=False)
    assert call(ctx, os.environ.get, "KINFOLK_TEST_NEW") == "new"
    monkeypatch.setenv("KINFOLK_TEST_NEW", "newer")
    assert call(ctx, os.getenv, "KINFOLK_TEST_NEW") == "newer"
    monkeypatch.delenv("KINFOLK_TEST_NEW")
    assert call(ctx, os.environ.get, "KINFOLK_TEST_NEW") is None


def test_what_was_in_the_environment_of_the_server_and_is_not_now(own_server, monkeypatch):
    monkeypatch.setenv("KINFOLK_TEST_GONE", "here")
    own_server.ensure_running()
    monkeypatch.delenv("KINFOLK_TEST_GONE")
    ctx = kinfolk.get_context("forkserver")
    assert call(ctx, os.environ.get, "KINFOLK_TEST_GONE") is None


def test_folder_path_and_arguments_arrive(ctx, tmp_path, monkeypatch):
    call(ctx, int)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["one", "two"])
    monkeypatch.syspath_prepend(str(tmp_path))
    assert call(ctx, lambda: (os.getcwd(), sys.argv, sys.path[0])) == (
        str(tmp_path),
        ["one", "two"],
        str(tmp_path),
    )


# Nothing is imported again and again (13)


def test_the_fork_server_imports_main_once(tmp_path):
    done = program(
        tmp_path,
        """
        import os, sys
        import kinfolk
        print("imported", flush=True)

        def work():
            print("worked", flush=True)

        if __name__ == "__main__":
            ctx = kinfolk.get_context("forkserver")
            for _ in range(5):
                child = ctx.Process(target=work)
                child.start()
                child.join()
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines.count("worked") == 5
    assert lines.count("imported") == 2  # by the program, and by the server


def test_a_fresh_child_imports_little(tmp_path):
    text = """
        import kinfolk, sys

        def work():
            print(*sys.modules)

        if __name__ == "__main__":
            child = kinfolk.get_context("spawn").Process(target=work)
            child.start()
            child.join()
        """
    modules = set(program(tmp_path, text, flags=["-S"]).stdout.split())
    assert "kinfolk" in modules
    for name in "ast enum functools importlib re signal threading traceback weakref".split():
        assert name not in modules


# Fork among threads (14)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the interpreter itself says nothing")
def test_the_warning_of_a_fork_names_the_threads():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="collector of butterflies")
    thread.start()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            child = kinfolk.get_context("fork").Process(target=int)
            child.start()
            child.join()
    finally:
        stop.set()
        thread.join()
    (warning,) = [each for each in caught if each.category is DeprecationWarning]
    assert "multi-threaded" in str(warning.message)
    assert "collector of butterflies" in str(warning.message)
    assert warning.filename == __file__


# ^C: one traceback, and nobody is left (19)


def test_an_interrupt_gives_one_traceback(tmp_path):
    text = """
        import os, signal, sys, time
        import kinfolk

        def work(ready):
            ready.put(1)
            time.sleep(100)

        if __name__ == "__main__":
            ctx = kinfolk.get_context(sys.argv[1])
            ready = ctx.Queue()
            children = [ctx.Process(target=work, args=(ready,)) for _ in range(4)]
            for child in children:
                child.start()
            for child in children:
                ready.get()
            os.killpg(0, signal.SIGINT)
            for child in children:
                child.join()
        """
    for method in METHODS:
        done = program(tmp_path, text, method, start_new_session=True)
        assert done.returncode == -2
        assert done.stderr.count("Traceback") == 1
        assert done.stderr.count("KeyboardInterrupt") == 1


# A long TMPDIR (33)


def test_no_path_in_the_file_system_is_needed(tmp_path):
    folder = tmp_path / ("a" * 120) / ("b" * 120)
    folder.mkdir(parents=True)
    text = """
        import os, sys
        import kinfolk

        if __name__ == "__main__":
            queue = kinfolk.get_context("forkserver").Queue()
            child = kinfolk.get_context("forkserver").Process(target=queue.put, args=(1,))
            child.start()
            print(queue.get(), os.listdir(os.environ["TMPDIR"]))
            child.join()
        """
    done = program(tmp_path, text, env={"TMPDIR": str(folder)})
    assert (done.stdout, done.stderr) == ("1 []\n", "")


# The debugger in a child (34)


STOPS = """
    import sys
    import kinfolk

    def work(n):
        secret = n * 6
        breakpoint()
        print("went on with", secret)

    if __name__ == "__main__":
        child = kinfolk.get_context(sys.argv[1]).Process(target=work, args=(7,), name="Fred")
        child.start()
        child.join()
    """


@pytest.mark.parametrize("method", METHODS)
def test_breakpoint_talks_to_the_terminal(method, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(STOPS))
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**os.environ, "PYTHONPATH": HOME}
        env.pop("PYTHONBREAKPOINT", None)
        os.execve(sys.executable, [sys.executable, str(path), method], env)
    said = b""

    def hear(what):
        nonlocal said
        while what not in said:
            said += os.read(terminal, 1000)

    try:
        hear(b"(Pdb Fred) ")
        os.write(terminal, b"p secret\n")
        hear(b"\r\n42\r\n")
        os.write(terminal, b"continue\n")
        hear(b"went on with 42")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def test_breakpoint_without_a_terminal_is_as_usual(tmp_path):
    done = program(tmp_path, STOPS, "spawn", start_new_session=True)
    assert done.returncode == 0
    assert "BdbQuit" in done.stderr


# What the fork server says when it cannot be


def test_a_module_of_ours_that_the_server_cannot_import_is_left_to_the_children(
    own_server, monkeypatch
):
    monkeypatch.setitem(sys.modules, "kinfolk.not_there", sys)
    assert call(kinfolk.get_context("forkserver"), abs, -1) == 1


def test_modules_that_cannot_be_preloaded(own_server):
    with pytest.raises(ValueError, match="on_error must be one of"):
        kinfolk.set_forkserver_preload(["no_such_module"], on_error="shrug")
    ctx = kinfolk.get_context("forkserver")
    kinfolk.set_forkserver_preload(["no_such_module"])
    assert call(ctx, abs, -1) == 1


def test_a_server_that_may_not_fail_to_import(tmp_path):
    text = """
        import sys
        import kinfolk

        if __name__ == "__main__":
            kinfolk.set_forkserver_preload(["no_such_module"], on_error=sys.argv[1])
            child = kinfolk.get_context("forkserver").Process(target=print, args=("child",))
            try:
                child.start()
                child.join()
            except OSError as error:
                print(error)
        """
    done = program(tmp_path, text, "warn", flags=["-W", "default::ImportWarning"])
    assert done.stdout == "child\n"
    assert "the fork server could not import no_such_module" in done.stderr
    done = program(tmp_path, text, "fail")
    assert "the fork server ended before it had made this child, with exit code 1" in done.stdout
    assert done.stderr.count("No module named 'no_such_module'") == 1
