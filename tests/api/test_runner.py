"""python -m kinfolk: the program finds what it would have found by itself, only that
multiprocessing is kinfolk."""

import os
import subprocess
import sys
import textwrap
import zipfile

import pytest

import kinfolk

HOME = os.path.dirname(os.path.dirname(kinfolk.__file__))
METHODS = ("fork", "spawn", "forkserver")

SHOW = textwrap.dedent(
    """
    import sys

    def show():
        main = sys.modules["__main__"]
        for name, value in sorted(vars(main).items()):
            if name.startswith("__") and name != "__doc__":
                print(name, repr(value).partition(" object at ")[0], type(value).__name__)
        print("argv", sys.argv)
        print("path", sys.path[0])
        print("main", main is sys.modules["__main__"], __name__)

    show()
    """
)


def python(*args, cwd, **options):
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": HOME, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def both_ways(*args, cwd, **options):
    """What the interpreter does by itself, and what it does with -m kinfolk before the program."""
    flags = [arg for arg in args if arg in ("-I", "-P", "-O")]
    rest = list(args)[len(flags) :]
    return (
        python(*flags, *rest, cwd=cwd, **options),
        python(*flags, "-m", "kinfolk", *rest, cwd=cwd, **options),
    )


@pytest.fixture
def programs(tmp_path):
    """A folder with a program of every kind."""
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "with no suffix").write_text(SHOW)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(SHOW)
    (tmp_path / "package").mkdir()
    for name in ("__init__.py", "sub.py", "__main__.py"):
        (tmp_path / "package" / name).write_text("" if name == "__init__.py" else SHOW)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to("../show.py")
    return tmp_path


@pytest.mark.parametrize(
    "args",
    [
        ["show.py"],
        ["show.py", "a", "-m", "--b"],
        ["./show.py"],
        ["elsewhere/../show.py"],
        ["with no suffix"],
        ["elsewhere/link.py"],
        ["folder", "x"],
        ["archive.zip", "x"],
        ["-m", "package", "x"],
        ["-m", "package.sub", "-x"],
        ["-mpackage.sub"],
        ["-m", "show"],
        ["-c", SHOW, "x", "y"],
        ["-c" + SHOW],
    ],
    ids=lambda args: " ".join(args).replace(SHOW, "CODE"),
)
def test_program_finds_what_it_would_have_found(programs, args):
    alone, ours = both_ways(*args, cwd=programs)
    assert alone.returncode == 0, alone.stderr
    assert (ours.stdout, ours.stderr, ours.returncode) == (alone.stdout, "", 0)


def test_program_from_standard_input(programs):
    alone, ours = both_ways("-", "x", cwd=programs, input=SHOW)
    assert (ours.stdout, ours.stderr, ours.returncode) == (alone.stdout, "", 0)


def test_a_compiled_script(programs):
    import py_compile

    compiled = py_compile.compile(str(programs / "show.py"), cfile=str(programs / "show.pyc"))
    alone, ours = both_ways(compiled, cwd=programs)
    assert (ours.stdout, ours.returncode) == (alone.stdout, 0)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in 3.11")
def test_safe_path(programs):
    """-P keeps the program's folder out; kinfolk itself comes from PYTHONPATH here."""
    alone, ours = both_ways("-P", "show.py", cwd=programs)
    assert (ours.stdout, ours.stderr) == (alone.stdout, "")


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        "import sys; sys.exit('bye')",
        "import sys; sys.exit()",
        "def f(): g()\ndef g(): 1/0\nf()",
        "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e",
        "x = (",
        "raise KeyboardInterrupt",
        "import os; os.kill(os.getpid(), 15)",
        "import atexit; atexit.register(print, 'bye'); 1/0",
        "import sys; sys.excepthook = lambda *info: print('hook', info[0]); 1/0",
        "import sys\nsys.excepthook = lambda k, v, tb: print(tb.tb_frame.f_code.co_name)\n1/0",
        "import sys, atexit\natexit.register(lambda: print(sys.last_traceback.tb_lineno))\n1/0",
    ],
)
def test_ends_as_it_would_have_ended(tmp_path, code):
    (tmp_path / "program.py").write_text(code)
    alone, ours = both_ways("program.py", cwd=tmp_path)
    assert ours.returncode == alone.returncode
    assert ours.stdout == alone.stdout
    assert ours.stderr == alone.stderr


@pytest.mark.parametrize(
    "args",
    [["missing.py"], ["-m", "kin_missing"], ["-m", "package_without_main"], ["empty_folder"]],
    ids=" ".join,
)
def test_program_that_is_not_there(tmp_path, args):
    (tmp_path / "package_without_main").mkdir()
    (tmp_path / "package_without_main" / "__init__.py").touch()
    (tmp_path / "empty_folder").mkdir()
    alone, ours = both_ways(*args, cwd=tmp_path)
    assert ours.returncode == alone.returncode
    assert ours.stderr == alone.stderr


def test_usage(tmp_path):
    for args, code in (([], 2), (["--help"], 0), (["-c"], 2), (["-m"], 2), (["--nonsense"], 2)):
        done = python("-m", "kinfolk", *args, cwd=tmp_path)
        assert done.returncode == code
        assert "usage: python -m kinfolk" in done.stdout + done.stderr


SAME = """
import multiprocessing, multiprocessing.queues, multiprocessing.connection as c
from multiprocessing import process, util
import kinfolk, kinfolk.connection, kinfolk.queues

def check(queue):
    import multiprocessing.synchronize, kinfolk.synchronize
    assert multiprocessing is kinfolk
    assert c is kinfolk.connection and process is kinfolk.process and util is kinfolk.util
    assert multiprocessing.synchronize is kinfolk.synchronize
    assert kinfolk.synchronize.__name__ == kinfolk.synchronize.__spec__.name == "kinfolk.synchronize"
    queue.put(type(queue).__module__)

if __name__ == "__main__":
    import sys
    multiprocessing.set_start_method(sys.argv[1])
    queue = multiprocessing.Queue()
    check(queue)
    p = multiprocessing.Process(target=check, args=(queue,))
    p.start()
    p.join()
    print(p.exitcode, queue.get(), queue.get())
    assert sys.modules["__main__"] is sys.modules["__mp_main__"]
"""


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_is_kinfolk_everywhere(tmp_path, method):
    (tmp_path / "same.py").write_text(SAME)
    done = python("-m", "kinfolk", "same.py", method, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("0 kinfolk.queues kinfolk.queues\n", "")


def test_the_standard_librarys_users_get_kinfolk(tmp_path):
    code = """
import logging, concurrent.futures.process, kinfolk
print(concurrent.futures.process.mp is kinfolk)
print(logging.makeLogRecord({}) and logging.LogRecord("n", 1, "p", 1, "m", (), None).processName)
"""
    done = python("-m", "kinfolk", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("True\nMainProcess\n", "")


def test_a_submodule_that_is_not_there(tmp_path):
    done = python("-m", "kinfolk", "-c", "import multiprocessing.nonsense", cwd=tmp_path)
    assert "ModuleNotFoundError: No module named 'multiprocessing.nonsense'" in done.stderr
    assert "kinfolk, which stands in for multiprocessing here" in done.stderr


def test_kinfolk_never_imports_the_standard_librarys(tmp_path):
    code = """
import sys, importlib, pkgutil
class Refuse:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("multiprocessing"), name
sys.meta_path.insert(0, Refuse())
import kinfolk
for module in pkgutil.walk_packages(kinfolk.__path__, "kinfolk."):
    if "win32" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_import_before_the_alias_is_refused(tmp_path):
    code = "import multiprocessing, kinfolk._alias as a; a.install()"
    done = python("-c", code, cwd=tmp_path)
    assert "has been imported before" in done.stderr
