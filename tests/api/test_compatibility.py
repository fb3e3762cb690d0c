"""The names that other packages look for: docs/compatibility.md has them, and is read here."""

import importlib
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys

import pytest

import kinfolk

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "compatibility.md"
MODULES = [
    "", "connection", "context", "dummy", "dummy.connection", "forkserver", "heap", "managers",
    "pool", "popen_fork", "popen_forkserver", "popen_spawn_posix", "process", "queues", "reduction",
    "resource_sharer", "resource_tracker", "shared_memory", "sharedctypes", "spawn", "synchronize",
    "util",
]  # fmt: skip
HERE = sys.version_info[:2]


def find(package, module):
    return importlib.import_module(f"{package}.{module}".rstrip("."))


def listed():
    """The rows of the page's table: module, name, and whether this version of Python has it."""
    for line in PAGE.read_text().splitlines():
        row = re.fullmatch(r"\| `([\w.]+)` \| (.*) \| .* \|", line)
        if not row:
            continue
        for name, since, before in re.findall(
            r"`([\w.]+)`(?: \((\d\.\d+)\+\))?(?: \(<(\d\.\d+)\))?", row[2]
        ):
            if not (since and HERE < version(since)) and not (before and HERE >= version(before)):
                yield "" if row[1] == "multiprocessing" else row[1], name


def version(text):
    return tuple(map(int, text.split(".")))


@pytest.mark.parametrize("module", MODULES)
def test_all_that_is_public(module):
    theirs, ours = find("multiprocessing", module), find("kinfolk", module)
    names = getattr(theirs, "__all__", [])
    assert not [name for name in names if not hasattr(ours, name)]
    assert not [name for name in names if name not in ours.__all__]


@pytest.mark.parametrize("module", MODULES)
def test_public_attributes_of_public_classes(module):
    theirs, ours = find("multiprocessing", module), find("kinfolk", module)
    missing = []
    for name in getattr(theirs, "__all__", []):
        cls = getattr(theirs, name)
        if isinstance(cls, type):
            attributes = (each for each in dir(cls) if not each.startswith("_"))
            missing += [
                f"{name}.{each}" for each in attributes if not hasattr(getattr(ours, name), each)
            ]
    assert not missing


def test_the_page_lists_something():
    assert len(list(listed())) > 100


@pytest.mark.parametrize("module, name", sorted(set(listed())))
def test_what_others_look_for(module, name):
    thing = find("kinfolk", module)
    real = find("multiprocessing", module)
    for part in name.split("."):
        thing = getattr(thing, part)
        real = getattr(real, part)
    assert callable(thing) == callable(real)


USES = {
    "process": """
        from multiprocessing import process, current_process
        assert process.current_process()._config["authkey"] == current_process().authkey
        assert isinstance(process.ORIGINAL_DIR, str)
        assert not process._children and not process._dangling
        """,
    "util": """
        import atexit
        from multiprocessing import util
        atexit.unregister(util._exit_function)
        told = []
        util.Finalize(None, told.append, args=(1,), exitpriority=5)
        assert any(key[0] == 5 for key in util._finalizer_registry)
        util._run_finalizers()
        assert told == [1]
        assert isinstance(util._args_from_interpreter_flags(), list)
        class Thing: pass
        thing = Thing()
        util.register_after_fork(thing, id)
        assert thing in util._afterfork_registry.values()
        """,
    "semlock": """
        from multiprocessing import synchronize, Lock
        synchronize.SemLock._make_name = staticmethod(str)
        assert isinstance(Lock(), synchronize.SemLock) and not isinstance(1, synchronize.SemLock)
        assert issubclass(synchronize.Semaphore, synchronize.SemLock)
        """,
    "tracker": """
        from multiprocessing import resource_tracker
        tracker = resource_tracker._resource_tracker
        tracker.ensure_running()
        assert tracker._pid and isinstance(tracker._fd, int)
        assert tracker.getfd() == tracker._fd and "shared_memory" in resource_tracker._CLEANUP_FUNCS
        """,
    "spawn": """
        from multiprocessing import spawn, context
        data = spawn.get_preparation_data("x")
        assert data["sys_argv"] and data["orig_dir"]
        assert context.get_spawning_popen() is None
        """,
    "pickler": """
        import io, pickle
        from multiprocessing.reduction import ForkingPickler
        class Thing: pass
        ForkingPickler.register(Thing, lambda thing: (int, (7,)))
        file = io.BytesIO()
        ForkingPickler(file, pickle.HIGHEST_PROTOCOL).dump(Thing())
        assert pickle.loads(file.getvalue()) == 7 == ForkingPickler.loads(ForkingPickler.dumps(Thing()))
        """,
    "bootstrap": """
        # as coverage does
        import multiprocessing
        from multiprocessing.process import BaseProcess
        class Covered(BaseProcess):
            _before = BaseProcess._bootstrap
            def _bootstrap(self, *args, **kwargs):
                return self._before(*args, **kwargs) or 5
        BaseProcess._bootstrap = Covered._bootstrap
        BaseProcess._before = Covered._before
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        assert child.exitcode == 5, child.exitcode
        """,
}


@pytest.mark.parametrize("use", USES)
def test_uses(use):
    import textwrap

    done = subprocess.run(
        [sys.executable, "-m", "kinfolk", "-c", textwrap.dedent(USES[use])],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(kinfolk.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr


def test_multiprocessing_is_the_standard_librarys_here():
    assert multiprocessing is not kinfolk
