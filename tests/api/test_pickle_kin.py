"""Between the members of a family: what all have goes by name alone, the rest by value.

So a program that works with names only (the standard library's pickles) works here, and
one that could not work with them does, too.
"""

import os
import subprocess
import sys
from textwrap import dedent

import pickle_travel
import pytest
from pickle_travel import run


def test_a_program_full_of_definitions(tmp_path):
    """Guarded and late classes, closures and enums, among things that must not be sent."""
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
        import enum, threading
        import kinfolk
        lock = threading.Lock()   # used by name: never sent
        class Outside:
            def __init__(self): self.n = 1
        def worker(inbox, outbox, *things):
            with lock:
                outbox.put([each() for each in things])
            for each in iter(inbox.get, None):
                outbox.put((each, Outside()))
        if __name__ == "__main__":
            class Guarded:
                def __init__(self, n): self.n = n
                def __eq__(self, other): return type(other) is Guarded and other.n == self.n
            class Kind(enum.Enum):
                A = 1
            def nested(secret):
                return lambda: secret
            for method in ("fork", "spawn", "forkserver"):
                context = kinfolk.get_context(method)
                inbox, outbox = context.SimpleQueue(), context.SimpleQueue()
                child = context.Process(target=worker, args=(
                    inbox, outbox, nested(5), lambda: Kind.A, nested(Guarded(2))))
                child.start()
                class Late(Guarded):
                    pass
                five, kind, guarded = outbox.get()
                assert five == 5 and kind is Kind.A and guarded == Guarded(2)
                for sent in (Guarded(3), Late(4), Outside, Kind.A):
                    inbox.put(sent)
                    back, outside = outbox.get()
                    assert type(back) is type(sent) and type(outside) is Outside
                inbox.put(None)
                child.join()
                assert child.exitcode == 0
                try:
                    context.Process(target=worker, args=(inbox, {"k": [lock]})).start()
                except TypeError as error:
                    assert str(error).startswith("args[1]['k'][0]: cannot pickle"), error
                else:
                    assert method == "fork"
    """)
    )
    run([script])


def test_kin_names_suffice(tmp_path):
    """To its family, a program sends what all members have by name, and nothing with it."""
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
        import os, threading
        from kinfolk import pickle as kpickle
        lock = threading.Lock()
        def outside():
            with lock: return 1
        class Outside: pass
        try:
            def tried(): return lock
        except ImportError:
            pass
        if __name__ == "__main__":
            def send(thing): return kpickle.dumps(thing, kin=True)
            def by_value(thing): return b"kinfolk._kin" in send(thing)
            class Inside: pass
            def inside(): return 1
            def needs_lock(): return lock
            kpickle.expect_fresh_member()
            assert not by_value([outside, Outside(), tried])
            assert by_value(Inside()) and by_value(inside) and by_value(lambda: outside)
            try:
                send(needs_lock)
            except TypeError as error:
                assert str(error).startswith("obj.__globals__['lock']: cannot pickle"), error
            else:
                raise AssertionError
            assert b"kinfolk._kin" in kpickle.dumps(Outside())   # strangers get the spare
    """)
    )
    run([script])


def test_what_ended_children_lack_does_not_matter(tmp_path):
    """A pool, then a new function, then a new pool: as in a notebook."""
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
        import os, threading
        from kinfolk import _mainnames
        from kinfolk import pickle as kpickle
        lock = threading.Lock()
        def by_value(thing): return b"kinfolk._kin" in kpickle.dumps(thing, kin=True)
        class Popen:
            returncode = None
            def __init__(self):
                self.pid = os.fork()
                if self.pid == 0:
                    os._exit(0)
                _mainnames.note_child(self)
            def poll(self):
                if self.returncode is None:
                    os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                    self.returncode = os.waitpid(self.pid, 0)[1]
                return self.returncode
        if __name__ == "__main__":
            first = Popen()
            def later(): return lock
            living = Popen()
            living.poll = lambda: None
            assert not by_value(later)   # whoever lacks it has ended
            def last(): return 1
            assert by_value(last) and not by_value(later)
            for _ in range(100):
                Popen()
            assert len(_mainnames._forks) <= 3
            assert sum(len(fork.known) for fork in _mainnames._forks) <= 3
    """)
    )
    run([script])


def test_kin_by_fork_have_what_was_there_before(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
        import os, threading
        from kinfolk import pickle as kpickle
        lock = threading.Lock()
        def by_value(thing): return b"kinfolk._kin" in kpickle.dumps(thing, kin=True)
        def outside(): return 1
        if __name__ == "__main__":
            def before(): return lock
            class Again: pass
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            def after(): return 1
            class Again: pass
            assert not by_value([before, outside])
            assert by_value(after) and by_value(Again)
            globals()["outside"] = lambda: 2
            outside.__qualname__ = "outside"
            assert by_value(outside)
            kpickle.expect_fresh_member()
            try:
                by_value(before)
            except TypeError:
                pass
            else:
                raise AssertionError
    """)
    )
    run([script])


@pytest.mark.parametrize("how", ["-c", "stdin"])
def test_programs_that_cannot_be_run_again(how, tmp_path):
    program = dedent("""
        import pickle, subprocess, sys
        from kinfolk import pickle as kpickle
        class C:
            def get(self): return 5
        def f(x): return x.get()
        kpickle.expect_fresh_member()
        data = kpickle.dumps((f, C()), kin=True)
        loaded = "import pickle, sys; f, c = pickle.loads(sys.stdin.buffer.read()); print(f(c))"
        done = subprocess.run([sys.executable, "-c", loaded], input=data, stdout=subprocess.PIPE)
        assert done.stdout.strip() == b"5"
    """)
    env = dict(os.environ, PYTHONPATH=pickle_travel.PACKAGE_ROOT)
    if how == "-c":
        subprocess.run([sys.executable, "-c", program], env=env, check=True)
    else:
        subprocess.run([sys.executable, "-"], input=program.encode(), env=env, check=True)
