"""The main module in children: scripts, modules, packages, archives, and mains without a file.

Each program defines a function, a class, a lambda and a closure, sends them to a child and has them
back, by each start method, run by itself and under `python -m kinfolk`.
"""

import os
import subprocess
import sys
import textwrap
import zipfile

import pytest

import kinfolk

HOME = os.path.dirname(os.path.dirname(kinfolk.__file__))
METHODS = ("fork", "spawn", "forkserver")

PROGRAM = textwrap.dedent(
    """
    import sys
    if "kinfolk" in sys.modules:
        import multiprocessing as mp
    else:
        import kinfolk as mp

    def double(n):
        return 2 * n

    class Box:
        def __init__(self, value):
            self.value = value
        def __eq__(self, other):
            return type(other) is Box and other.value == self.value

    triple = lambda n: 3 * n

    def adder(k):
        def add(n):
            return n + k
        return add

    def child(queue, box, *functions):
        queue.put((box, functions, [f(box.value) for f in functions]))

    def main():
        ctx = mp.get_context(sys.argv[1])
        queue = ctx.Queue()
        class Guarded(Box):
            pass
        p = ctx.Process(target=child, args=(queue, Box(5), double, triple, adder(2)))
        p.start()
        p.join()
        box, functions, results = queue.get()
        assert p.exitcode == 0
        assert box == Box(5), box
        assert results == [10, 15, 7], results
        assert [f(1) for f in functions] == [2, 3, 3]
        print("good")
    """
)
GUARD = 'if __name__ == "__main__":\n    main()\n'
NO_GUARD = "main()\n"


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture(params=["plain", "runner"])
def run(request, tmp_path):
    prefix = ["-m", "kinfolk"] if request.param == "runner" else []

    def run(*args, **options):
        done = subprocess.run(
            [sys.executable, *prefix, *args],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": HOME},
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)

    return run


@pytest.mark.parametrize(
    "name", ["program.py", "no_suffix", "name with spaces.py", "naïve.py", "ipython", "a.b.py"]
)
def test_script(run, method, tmp_path, name):
    (tmp_path / name).write_text(PROGRAM + GUARD, encoding="utf-8")
    run(name, method)


def test_script_by_another_folder(run, method, tmp_path):
    (tmp_path / "over there").mkdir()
    (tmp_path / "over there" / "program.py").write_text(PROGRAM + GUARD)
    (tmp_path / "link.py").symlink_to("over there/program.py")
    run("over there/program.py", method)
    run("link.py", method)


def test_script_that_changes_folder(run, method, tmp_path):
    (tmp_path / "deep").mkdir()
    text = PROGRAM + GUARD.replace("main()", "import os; os.chdir('deep'); main()")
    (tmp_path / "program.py").write_text(text)
    run("program.py", method)


def test_compiled_script(run, method, tmp_path):
    import py_compile

    (tmp_path / "program.py").write_text(PROGRAM + GUARD)
    py_compile.compile(str(tmp_path / "program.py"), cfile=str(tmp_path / "program.pyc"))
    (tmp_path / "program.py").unlink()
    run("program.pyc", method)


def test_module(run, method, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM + GUARD)
    run("-m", "program", method)


def test_module_of_a_package(run, method, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "sibling.py").touch()
    (tmp_path / "package" / "part.py").write_text("from . import sibling\n" + PROGRAM + GUARD)
    run("-m", "package.part", method)


def test_main_of_a_package_is_not_run_again(run, method, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM + NO_GUARD)
    run("-m", "package", method)


def test_folder(run, method, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(PROGRAM + NO_GUARD)
    run("folder", method)


def test_archive(run, method, tmp_path):
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", PROGRAM + NO_GUARD)
    run("program.zip", method)


def test_command_line(run, method):
    run("-c", PROGRAM + NO_GUARD, method)


def test_standard_input(run, method):
    run("-", method, input=PROGRAM + NO_GUARD)


def test_folder_of_a_strange_name(run, method, tmp_path):
    (tmp_path / "zwölf Kröten").mkdir()
    (tmp_path / "zwölf Kröten" / "program.py").write_text(PROGRAM + GUARD)
    run("zwölf Kröten/program.py", method)


# Mains that somebody else runs


def python(tmp_path, *args, **options):
    return subprocess.run(
        [sys.executable, *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": HOME},
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.fixture(params=["import kinfolk as mp", "import multiprocessing as mp"])
def launcher(request):
    """Interpreter arguments before those that name a tool, by which the program meets kinfolk."""
    return [] if "kinfolk" in request.param else ["-m", "kinfolk"]


def test_prompt(method, tmp_path):
    typed = PROGRAM + "\nmain()\n"
    done = python(tmp_path, "-i", "-q", "-", method, input=typed)
    assert done.returncode == 0
    assert "good" in done.stdout
    assert "Error" not in done.stderr


def test_coverage(launcher, method, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM + GUARD)
    done = python(tmp_path, *launcher, "-m", "coverage", "run", "program.py", method)
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)


def test_pytest(launcher, method, tmp_path):
    test = f"def test_it():\n    sys.argv = ['', {method!r}]\n    main()\n"
    (tmp_path / "test_program.py").write_text(PROGRAM + test)
    done = python(tmp_path, *launcher, "-m", "pytest", "-q", "-s", "test_program.py")
    assert done.returncode == 0, done.stdout
    assert "good" in done.stdout


def test_debugger(launcher, method, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM + GUARD)
    done = python(
        tmp_path, *launcher, "-m", "pdb", "-c", "continue", "program.py", method, input="q\n"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("good\n")
    assert "Error" not in done.stdout + done.stderr


def test_runpy(method, tmp_path):
    """As debuggers do: `__main__` is another module while the program runs."""
    (tmp_path / "program.py").write_text(PROGRAM + GUARD)
    text = (
        "import runpy, sys, kinfolk; sys.modules['multiprocessing'] = kinfolk;"
        "runpy.run_path('program.py', run_name='__main__')"
    )
    done = python(tmp_path, "-c", text, method)
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)


NOTEBOOK = """
import sys
from jupyter_client import KernelManager

method, *launcher = sys.argv[1:]

def listen(message):
    if message["msg_type"] == "stream":
        print(message["content"]["text"], end="")

def execute(cell):
    answer = kernel.execute_interactive(cell, timeout=60, output_hook=listen)
    assert answer["content"]["status"] == "ok", answer["content"]

manager = KernelManager()
python, *rest = manager.kernel_spec.argv
manager.kernel_spec.argv[:] = [sys.executable, *launcher, *rest]
manager.start_kernel()
kernel = manager.blocking_client()
try:
    kernel.start_channels()
    kernel.wait_for_ready(timeout=60)
    execute(f"import sys; sys.argv = ['', {method!r}]")
    execute(open("program.py").read())
    execute("main()")
finally:
    kernel.stop_channels()
    manager.shutdown_kernel(now=True)
"""


def test_notebook(launcher, method, tmp_path):
    pytest.importorskip("jupyter_client")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "driver.py").write_text(NOTEBOOK)
    done = python(tmp_path, "driver.py", method, *launcher)
    assert (done.stdout, done.returncode) == ("good\n", 0), done.stderr


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """The program, made into an executable by PyInstaller."""
    pytest.importorskip("PyInstaller")
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "program.py").write_text(PROGRAM + GUARD)
    options = ["--noconfirm", "--log-level", "ERROR", "--collect-submodules", "kinfolk"]
    paths = ["--paths", HOME, "--specpath", str(folder), "--distpath", str(folder)]
    done = python(
        folder,
        "-m",
        "PyInstaller",
        *options,
        *paths,
        "--workpath",
        str(folder / "work"),
        "program.py",
    )
    assert done.returncode == 0, done.stderr
    return folder / "program" / "program"


def test_frozen(frozen, method):
    done = subprocess.run([frozen, method], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)


# What else a main module may do


FORGOTTEN_GUARD = """
import sys
import kinfolk

def child():
    print("child")

ctx = kinfolk.get_context(sys.argv[1])
p = ctx.Process(target=child)
p.start()
p.join()
sys.exit(p.exitcode)
"""


def test_a_guard_can_be_forgotten(method, tmp_path):
    (tmp_path / "program.py").write_text(FORGOTTEN_GUARD)
    done = python(tmp_path, "program.py", method)
    assert (done.returncode, done.stdout, done.stderr) == (0, "child\n", "")


def test_without_a_guard_all_travels(run, method, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM + "try:\n    main()\nfinally:\n    pass\n")
    run("program.py", method)


NOT_WITHOUT_GUARD = """
import sys, threading
import kinfolk

lock = threading.Lock()

def child():
    with lock:
        print("child")

p = kinfolk.get_context(sys.argv[1]).Process(target=child)
p.start()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_travel_asks_for_a_guard_in_the_parent(method, tmp_path):
    (tmp_path / "program.py").write_text(NOT_WITHOUT_GUARD)
    done = python(tmp_path, "program.py", method)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot pickle '_thread.lock' object" in done.stderr
    assert done.stderr.count("if __name__ == '__main__':") == 1
    assert done.stderr.count("Traceback") == 1  # nobody else says anything


HIDDEN = """
import sys
import kinfolk

def child():
    print("child")

if len(sys.argv) > 1:
    p = kinfolk.get_context(sys.argv[1]).Process(target=child)
    p.start()
    p.join()
    sys.exit(p.exitcode)
"""


def test_a_start_that_hides_is_no_fork_bomb(method, tmp_path):
    (tmp_path / "program.py").write_text(HIDDEN)
    done = python(tmp_path, "program.py", method)
    if method == "fork":
        assert (done.returncode, done.stdout, done.stderr) == (0, "child\n", "")
        return
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("RuntimeError: An attempt has been made to start a new process") == 1


def test_the_main_module_stays_one_module(tmp_path, method):
    """What a function of it assigns to a global is seen by others, in a child too."""
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """
            import sys, kinfolk
            count = 0
            def up():
                global count
                count += 1
            def child():
                import __main__, __mp_main__
                up()
                __main__.up()
                print(__main__.count, __mp_main__.count, __main__ is __mp_main__, __name__)
            if __name__ == "__main__":
                p = kinfolk.get_context(sys.argv[1]).Process(target=child)
                p.start()
                p.join()
            """
        )
    )
    done = python(tmp_path, "program.py", method)
    name = "__main__" if method == "fork" else "__mp_main__"
    assert (done.stdout, done.stderr) == (f"2 2 True {name}\n", "")


def test_a_main_that_fails_to_import_is_shown_once_and_first(tmp_path, method):
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """
            import sys, kinfolk
            if __name__ != "__main__":
                raise LookupError("not here")
            if __name__ == "__main__":
                p = kinfolk.get_context(sys.argv[1]).Process(target=int)
                p.start()
                p.join()
                print(p.exitcode)
            """
        )
    )
    done = python(tmp_path, "program.py", method)
    if method == "fork":
        assert (done.stdout, done.stderr) == ("0\n", "")
        return
    assert done.stdout == "1\n"
    assert done.stderr.count("LookupError: not here") == 1
    first, *rest = done.stderr.splitlines()
    assert first.endswith("Process-1 could not be started: LookupError: not here")
    assert "importing the main module" in rest[0]
    assert [line for line in rest if 'program.py", line 4' in line]
    assert "kinfolk" not in "".join(rest)


UNBUILDABLE = """
import sys, kinfolk

class Odd:
    def __reduce__(self):
        return int, ("odd",)

if __name__ == "__main__":
    p = kinfolk.get_context(sys.argv[1]).Process(target=print, args=(Odd(),), name="Fred")
    p.start()
    p.join()
    print(p.exitcode)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_built_in_the_child_is_said_in_a_line(tmp_path, method):
    (tmp_path / "program.py").write_text(UNBUILDABLE)
    done = python(tmp_path, "program.py", method)
    assert done.stdout == "1\n"
    assert done.stderr.splitlines() == [
        "Fred could not be started: ValueError: invalid literal for int() with base 10: 'odd'",
        "This happened while unpacking what it was started with.",
    ]


def test_the_main_module_need_not_have_a_spec(tmp_path, method):
    """Debuggers run programs in modules of their own making."""
    (tmp_path / "program.py").write_text(PROGRAM + GUARD)
    (tmp_path / "debugger.py").write_text(
        textwrap.dedent(
            """
            import sys, types
            main = types.ModuleType("__main__")
            main.__file__ = "program.py"
            del main.__spec__
            sys.modules["__main__"] = main
            exec(compile(open("program.py").read(), "program.py", "exec"), vars(main))
            """
        )
    )
    done = python(tmp_path, "debugger.py", method)
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)
