"""kinfolk.explain and `python -m kinfolk explain`: how things would travel, part by part."""

import collections
import ctypes
import dataclasses
import enum
import io
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import types

import pytest

import kinfolk
from kinfolk import _explain
from kinfolk._explain import (
    ABOVE,
    BESIDE,
    BY_NAME,
    BY_REF,
    BY_VALUE,
    CANNOT,
    COPIED,
    DESCRIPTOR,
    OUT_OF_BAND,
)

HOME = os.path.dirname(os.path.dirname(kinfolk.__file__))
LOCK = threading.Lock()


class Holder:
    def __init__(self, **names):
        self.__dict__.update(names)


@dataclasses.dataclass
class Sink:
    name: str
    size: int = 3


Point = collections.namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = 1


def function_over(thing):
    def function():
        return thing

    return function


def parts(thing, **options):
    """label -> node, of the parts of `thing`."""
    return {part.label: part for part in kinfolk.explain(thing, **options).root.parts}


def how(thing, **options):
    return kinfolk.explain(thing, **options).root.how


# -- each way of travelling ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing, what",
    [
        (3, "3"),
        ("text", "'text'"),
        (None, "None"),
        ((), "()"),
        ([1, 2], "[1, 2]"),
        ({"a": (1,)}, "1 entry"),
        (Holder(x=1), f"{__name__}.Holder"),
        (Color.RED, f"{__name__}.Color.RED"),
        (collections.Counter("aab"), ""),
    ],
)
def test_copied(thing, what):
    root = kinfolk.explain(thing).root
    assert (root.how, root.what) == (COPIED, what)


def test_by_name():
    for thing in (os.path.join, Holder, print, collections, Point):
        root = kinfolk.explain(thing).root
        assert root.how == BY_NAME and not root.parts
    assert kinfolk.explain(os.path.join).root.what == "posixpath.join"
    assert kinfolk.explain(Holder).root.what == f"{__name__}.Holder"


def test_by_value_and_why():
    def local():
        return parts

    class Local:
        pass

    for thing, why in (
        (lambda: 1, "a lambda (test_explain.py:"),
        (local, "a function local to test_by_value_and_why()"),
        (Local, "a class local to test_by_value_and_why()"),
    ):
        root = kinfolk.explain(thing).root
        assert root.how == BY_VALUE and root.what.startswith(why)
    (klass,) = kinfolk.explain(Local()).root.parts
    assert (klass.label, klass.how) == (".__class__", BY_VALUE)


def test_replaced_under_its_name(monkeypatch):
    original = function_over
    monkeypatch.setitem(globals(), "function_over", lambda: None)
    root = kinfolk.explain(original).root
    assert root.how == BY_VALUE
    assert root.what == f"replaced: {__name__}.function_over is another thing by now"


def test_registered():
    module = sys.modules["colorsys"] = types.ModuleType("colorsys_of_ours")
    exec("def f(): pass", vars(module))
    try:
        import textwrap as registered

        kinfolk.pickle.register_pickle_by_value(registered)
        root = kinfolk.explain(registered.dedent).root
        assert root.how == BY_VALUE and "registered" in root.what
    finally:
        kinfolk.pickle.unregister_pickle_by_value(registered)
        del sys.modules["colorsys"]


def test_modules_made_at_run_time():
    module = types.ModuleType("made")
    module.x = [LOCK]
    explanation = kinfolk.explain(module)
    assert explanation.root.how == BY_VALUE
    assert [problem.path for problem in explanation.problems] == ["obj.x[0]"]


def test_what_a_function_takes_along():
    found = parts(function_over([1, 2]))
    assert found[".__closure__['thing']"].what == "[1, 2]"
    assert not parts(lambda: (os, LOCK))  # the child imports this module
    namespace = {"os": os, "lock": LOCK, "unused": LOCK}
    exec("def function(): return os, lock", namespace)
    found = parts(namespace["function"])
    assert found[".__globals__['os']"].how == BY_NAME
    assert found[".__globals__['lock']"].how == CANNOT and len(found) == 2


@pytest.mark.parametrize(
    "make",
    [
        kinfolk.Lock,
        kinfolk.RLock,
        kinfolk.Semaphore,
        kinfolk.Condition,
        kinfolk.Event,
        lambda: kinfolk.Barrier(2),
        kinfolk.Queue,
        kinfolk.JoinableQueue,
        kinfolk.SimpleQueue,
        lambda: kinfolk.Value("i", 1),
        lambda: kinfolk.Array("d", 3),
    ],
)
def test_by_ref(make):
    explanation = kinfolk.explain([make()])
    (node,) = explanation.root.parts
    assert explanation.travels and node.how == BY_REF and not node.parts and node.size


def test_descriptors_are_not_duplicated():
    before = len(os.listdir("/proc/self/fd"))
    one, other = kinfolk.Pipe()
    here, there = socket.socketpair()
    with one, other, here, there:
        assert how(one) == how(here) == DESCRIPTOR
        assert str(here.fileno()) in kinfolk.explain(here).root.what
        assert len(os.listdir("/proc/self/fd")) == before + 4
        assert kinfolk.context.get_spawning_popen() is None


def test_out_of_band():
    numpy = pytest.importorskip("numpy")
    explanation = kinfolk.explain({"a": numpy.zeros(OUT_OF_BAND), "b": numpy.zeros(8)})
    large, small = explanation.root.parts
    assert (large.how, small.how) == (BESIDE, COPIED)
    assert explanation.out_of_band == OUT_OF_BAND * 8 and explanation.buffers == 1
    assert explanation.size < 1000


def test_attributes_slots_and_fields():
    class Slotted:
        __slots__ = ("a", "b")

    Slotted.__qualname__, Slotted.__module__ = "nothing", __name__
    slotted = Slotted()
    slotted.a = 1
    assert ".a" in parts(slotted) and ".b" not in parts(slotted)
    assert list(parts(Sink("x"))) == [".name", ".size"]
    assert list(parts(Point(1, [2]))) == [".x", ".y"]
    assert list(parts({"k": [Sink], 3: Sink})) == ["['k']", "[3]"]
    assert list(parts({(1, "a"): [Sink], Color.RED: 1})) == [
        ".keys()[(1, 'a')]",
        "[(1, 'a')]",
        ".keys()[<Color>]",
        "[<Color>]",
    ]


# -- what does not travel ------------------------------------------------------------------------


def test_every_problem_is_found():
    explanation = kinfolk.explain([LOCK, {"x": Holder(lock=threading.Lock())}, 3], name="job")
    assert not explanation.travels
    assert [problem.path for problem in explanation.problems] == ["job[0]", "job[1]['x'].lock"]
    path, why, hint = explanation.problems[0]
    assert why == "cannot pickle '_thread.lock' object" and "kinfolk.Lock()" in hint
    assert explanation.size is None
    text = str(explanation)
    assert text.splitlines()[0] == "✗ job cannot travel:"
    assert "job[0]: cannot pickle" in text.splitlines()[1]


def test_reducers_that_fail():
    class Failing:
        def __reduce__(self):
            raise ValueError("never")

    class Wrong:
        def __reduce__(self):
            return 42

    explanation = kinfolk.explain([Failing(), Wrong(), (x for x in ())])
    assert [problem.why.partition(":")[0] for problem in explanation.problems] == [
        "ValueError",
        "__reduce__ must return a string or a tuple of two to six",
        "cannot pickle 'generator' object",
    ]


def test_what_fails_only_as_a_whole():
    thing = []
    for _ in range(20_000):
        thing = [thing]
    explanation = kinfolk.explain(thing)
    assert not explanation.travels and "deep" in explanation.problems[0].hint
    assert len(str(explanation).splitlines()) < 40


def test_hostile_objects():
    class Nasty:
        __class__ = property(lambda self: 1 / 0)

        def __getattribute__(self, name):
            raise ZeroDivisionError(name)

        def __eq__(self, other):
            raise ZeroDivisionError

        def __repr__(self):
            raise ZeroDivisionError

        __hash__ = None

    assert not kinfolk.explain([Nasty()]).travels


def test_it_agrees_with_the_pickler():
    things = [Holder(x=LOCK), [1], lambda: LOCK, print, Sink, LOCK.acquire, sys.stdout, Point(1, 2)]
    for thing in things:
        try:
            kinfolk.pickle.dumps(thing)
            travels = True
        except Exception:
            travels = False
        assert kinfolk.explain(thing).travels == travels


# -- the walk ------------------------------------------------------------------------------------


def test_each_reducer_is_called_once():
    calls = []

    class Counting:
        def __reduce__(self):
            calls.append(self)
            return Holder, (), {"x": 1}

    one = Counting()
    explanation = kinfolk.explain([one, {"again": one}, Counting()])
    assert len(calls) == 2 and explanation.travels and explanation.size
    del calls[:]


def test_iterators_are_used_once():
    class Items:
        def __reduce__(self):
            return list, (), None, iter([1, Sink("x")])

    explanation = kinfolk.explain(Items())
    assert explanation.travels and [part.label for part in explanation.root.parts] == ["[0]", "[1]"]


def test_shared_things_and_cycles():
    shared = Sink("x")
    holder = Holder(one=shared, other=[shared])
    holder.itself = holder
    found = {part.label: part for part in kinfolk.explain(holder, name="h").root.parts}
    assert found[".one"].how == COPIED
    assert (found[".other"].parts[0].how, found[".other"].parts[0].what) == (ABOVE, "h.one")
    assert (found[".itself"].how, found[".itself"].what) == (ABOVE, "inside h")


def test_long_containers_are_shortened():
    root = kinfolk.explain([Sink(str(i)) for i in range(1000)]).root
    assert len(root.parts) == 3 and root.more == (997, True)
    mixed = [*range(5000), "x", *range(5000), LOCK]
    root = kinfolk.explain(mixed).root
    assert [part.label for part in root.parts] == ["[0]", "[1]", "[2]", "[5000]", "[10001]"]
    assert root.more == (9997, True)
    assert kinfolk.explain(list(range(100_000))).root.more == (99_997, True)
    assert "… 99,997 more like these" in str(kinfolk.explain([None] * 100_000))


def test_it_gives_up(monkeypatch):
    monkeypatch.setattr(_explain, "MAX_THINGS", 50)
    explanation = kinfolk.explain([Sink(str(i)) for i in range(100)])
    assert explanation.travels and "not looked at" in str(explanation)
    explanation = kinfolk.explain([*(Sink(str(i)) for i in range(100)), Holder(x=LOCK)])
    (problem,) = explanation.problems
    assert problem.path == "obj[100].x" and "lock" in problem.why


def test_sizes():
    explanation = kinfolk.explain({"a": "x" * 1000, "b": [1] * 100})
    a, b = explanation.root.parts
    assert 1000 < a.size < 1020 and 200 <= b.size < 220
    assert a.size + b.size < explanation.size < a.size + b.size + 50


def test_what_is_shared_counts_once():
    text = "x" * 1000
    shared = [text, [text]]
    holder = Holder(one=shared, two=[shared, shared])
    explanation = kinfolk.explain(holder)
    one, two = explanation.root.parts
    assert one.size > 1000 and two.size < 30 and explanation.size < one.size + 100


# -- methods -------------------------------------------------------------------------------------


def test_methods():
    with pytest.raises(ValueError):
        kinfolk.explain(1, method="telepathy")
    for method in ("fork", "spawn", "forkserver"):
        explanation = kinfolk.explain(1, method=method)
        assert f"✓ obj travels to a child started by {method}" in str(explanation)
    assert "✓ obj travels to any child" in str(kinfolk.explain(1))


PROGRAM = """
import kinfolk, sys, threading

def outside():
    pass

if __name__ == "__main__":
    lock = threading.Lock()

    def guarded():
        return lock

    for method in (None, "fork", "spawn"):
        explanation = kinfolk.explain([outside, guarded], method=method)
        first, second = explanation.root.parts
        print(method, first.how, first.what, second.how, second.what, explanation.travels, sep="|")
    explanation = kinfolk.explain(guarded)
    print(len(explanation.problems), len(explanation.problems_of("fork")))
    explanation = kinfolk.explain([guarded, lock])
    print([[path for path, _, _ in explanation.problems_of(each)] for each in ("fork", "spawn")])
    explanation = kinfolk.explain(guarded)
    print(explanation.root.inherited, "rich" in sys.modules)
"""


def test_the_main_program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("program.py", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "None|by name|__main__.outside|by value|"
        "__main__.guarded, under the guard, which a fresh child does not run|False",
        "fork|by name|__main__.outside|by name|__main__.guarded|True",
        "spawn|by name|__main__.outside|by value|"
        "__main__.guarded, under the guard, which a fresh child does not run|False",
        "1 0",
        """[['obj[1]'], ["obj[0].__globals__['lock']"]]""",
        "True False",
    ]


# -- how it looks --------------------------------------------------------------------------------

GOLDEN = """\
✓ job travels to any child

            as an argument            in a message
fork        ✓ inherited as it is      ✓ pickled
spawn       ✓ pickled                 ✓ pickled
forkserver  ✓ pickled                 ✓ pickled

job              Holder    #  ● copied    test_explain.Holder
├─ .name         str       #  ● copied    'nightly'
├─ .done         Event     #  ⇄ by ref    it stays in the family's arena
├─ .sinks        list      #  ● copied    1,000 items
│  ├─ [0]        Sink      #  ● copied    test_explain.Sink
│  │  ├─ .name   str       #  ● copied    '0'
│  │  └─ .size   int       #  ● copied    3
│  ├─ [1]        Sink      #  ● copied    test_explain.Sink
│  │  ├─ .name   str       #  ● copied    '1'
│  │  └─ .size   int       #  ● copied    3
│  ├─ [2]        Sink      #  ● copied    test_explain.Sink
│  │  ├─ .name   str       #  ● copied    '2'
│  │  └─ .size   int       #  ● copied    3
│  └─ … 997 more like these
├─ .then         list      #  ● copied    2 items
│  ├─ [0]        function  #  → by name   posixpath.join
│  └─ [1]        method    #  ● copied    a method, Holder.__init__
│     └─ .__self__  Holder  #  ↑ as above  inside job
└─ .first        Sink      #  ↑ as above  job.sinks[0]

pickle: #
● copied: its contents are in the pickle · → by name: the child has it, or imports it
⇄ by ref: the pickle names it, and it stays where it is
"""


def job():
    made = Holder(name="nightly", done=kinfolk.Event())
    made.sinks = [Sink(str(number)) for number in range(1000)]
    made.then = [os.path.join, made.__init__]
    made.first = made.sinks[0]
    return made


def squeezed(text):
    """Without sizes, which are the pickler's business, and the columns that depend on them."""
    text = re.sub(r"\d[\d.]* (B|KiB)", "#", text).replace(" # ", " ")
    return [re.sub(" +", " ", line).strip() for line in text.splitlines()]


def test_the_plain_text():
    assert squeezed(str(kinfolk.explain(job(), name="job"))) == squeezed(GOLDEN)


def test_columns_are_aligned():
    for width in (60, 72, 100, 140):
        text = kinfolk.explain(job(), name="job").text(width=width)
        tree = [
            line for line in text.splitlines() if re.search("(copied|by ref|by name) +[a-z']", line)
        ]
        columns = {re.search("● copied|⇄ by ref|→ by name", line).start() for line in tree}
        assert len(columns) == 1
        assert max(map(len, text.splitlines())) <= width


def test_depth():
    text = kinfolk.explain(job()).text(depth=1)
    assert "… 1,000 parts within" in text and ".name" in text and "'nightly'" in text
    assert "[0]" not in text.partition("pickle:")[0].replace("sinks[0]", "")
    text = kinfolk.explain([1, {"a": (2, LOCK)}]).text(depth=0)
    tree = text.partition("obj  ")[2]
    assert "['a']" in tree and "✗ cannot" in tree and "1 part within" in tree
    thing = LOCK
    for _ in range(5000):
        thing = [thing]
    assert "cannot travel" in str(kinfolk.explain(thing))


def test_colours_only_where_they_are_wanted(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "CI"):
        monkeypatch.delenv(name, raising=False)
    explanation = kinfolk.explain(job())
    file = io.StringIO()
    explanation.print(file)
    assert file.getvalue() == explanation.text() + "\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    explanation.print(file, width=100)
    assert "\x1b[" in file.getvalue()
    assert re.sub("\x1b\\[[0-9;]*m", "", file.getvalue()) == explanation.text() + "\n"
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    explanation.print(file, width=100)
    assert not re.search("\x1b\\[[0-9;]*3[0-9]m", file.getvalue())


def test_ascii(tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as file:
        kinfolk.explain({"schlüssel": job()}).print(file)
    text = (tmp_path / "out").read_text("ascii")
    assert "|- .name" in text and "* copied" in text and "schl?ssel" in text


def test_notebooks_and_rich():
    from rich.console import Console

    explanation = kinfolk.explain([LOCK, "<b>"])
    assert "&lt;b&gt;" in explanation._repr_html_() and "color" in explanation._repr_html_()
    console = Console(file=io.StringIO(), width=100)
    console.print(explanation)
    assert console.file.getvalue() == explanation.text() + "\n"
    assert repr(explanation) == str(explanation)


# -- the command ---------------------------------------------------------------------------------

SCRIPT = """
import multiprocessing, sys, threading

class Job:
    def __init__(self, lock=None):
        self.queue = multiprocessing.Queue()
        self.lock = lock

def make(lock=None):
    return Job(lock)

bad = make(threading.Lock())
print("imported as", __name__, sys.argv, file=sys.stderr)

if __name__ == "__main__":
    guarded = 1
    sys.exit("the program was run")
"""


def run(*words, cwd, **env):
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": HOME, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


@pytest.fixture
def explain(tmp_path):
    (tmp_path / "app.py").write_text(SCRIPT)
    (tmp_path / "broken.py").write_text("import sys\nsys.nothing\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    return lambda *words, **env: run("-m", "kinfolk", "explain", *words, cwd=tmp_path, **env)


def test_a_script(explain):
    done = explain("app.py:make()")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("✓ make() travels to any child\n")
    assert "__main__.Job" in done.stdout and "⇄ by ref" in done.stdout
    assert done.stderr == "imported as __mp_main__ ['app.py']\n"


def test_a_module(explain):
    done = explain("app:bad")
    assert done.returncode == 1
    assert "bad.lock: cannot pickle '_thread.lock' object" in done.stdout
    assert "app.Job" in done.stdout
    assert explain("json:dumps").returncode == 0
    assert explain("json.decoder:JSONDecoder").returncode == 0


def test_options(explain):
    done = explain("app.py:make()", "--method", "fork", "--depth", "0", "--width", "60")
    assert done.returncode == 0 and "spawn" not in done.stdout
    assert "parts within" in done.stdout and max(map(len, done.stdout.splitlines())) <= 60
    assert explain("--help").returncode == 0
    assert "module:expression" in explain("--help").stdout


@pytest.mark.parametrize(
    "words, complaint",
    [
        ([], "usage"),
        (["app.py"], "not of the form module:expression"),
        (["app.py:"], "not of the form module:expression"),
        (["app.py:1", "--method", "telepathy"], "invalid choice"),
        (["nothing.py:x"], "can't open file"),
        (["nothing:x"], "No module named 'nothing'"),
        (["app.py:guarded"], "under `if __name__ == '__main__':` is not there"),
        (["app.py:make("], "could not get make( of app.py"),
        (["app.py:make().nothing"], "could not get make().nothing of app.py"),
        (["broken.py:x"], 'broken.py", line 2'),
        (["ends.py:x"], "has ended with the exit code 3"),
    ],
)
def test_misuse(explain, words, complaint):
    done = explain(*words)
    assert done.returncode == 2
    assert complaint in done.stderr and not done.stdout


def test_a_script_called_explain(tmp_path):
    (tmp_path / "explain").write_text("import sys\nprint('the script', __name__, sys.argv)")
    done = run("-m", "kinfolk", "./explain", "x", cwd=tmp_path)
    assert done.stdout == "the script __main__ ['./explain', 'x']\n"


def test_a_terminal_without_unicode(explain):
    done = explain("app.py:make()", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.startswith("v make()")


def test_importing_kinfolk_is_still_cheap(tmp_path):
    program = textwrap.dedent(
        """
        import sys, kinfolk
        print(sorted({"rich", "kinfolk._explain"} & set(sys.modules)), "explain" in kinfolk.__all__)
        """
    )
    assert run("-c", program, cwd=tmp_path).stdout == "[] False\n"


def test_queues_of_the_standard_library(tmp_path):
    """The question that this project began with."""
    program = """
        import multiprocessing, kinfolk
        theirs, ours = multiprocessing.Queue(), kinfolk.Queue()
        explanation = kinfolk.explain([theirs, ours])
        (problem,) = explanation.problems
        print(problem.path, problem.why, problem.hint, explanation.root.parts[1].how, sep="\\n")
    """
    done = run("-c", textwrap.dedent(program), cwd=tmp_path)
    path, why, hint, how_ours = done.stdout.splitlines()
    assert path == "obj[0]" and why.endswith("through inheritance")
    assert "kinfolk's counterpart" in hint and how_ours == BY_REF


def test_secrets_are_not_shown():
    key = kinfolk.current_process().authkey
    explanation = kinfolk.explain({"key": key, "process": kinfolk.Process(target=print)})
    assert explanation.travels and "a secret" in str(explanation)
    assert repr(bytes(key))[2:12] not in str(explanation)


def test_values_and_arrays():
    from kinfolk import sharedctypes

    shared = kinfolk.explain([kinfolk.Value("i"), kinfolk.RawArray("d", 3), kinfolk.Array("c", 9)])
    assert [part.how for part in shared.root.parts] == ["by ref"] * 3
    private = kinfolk.explain(sharedctypes.synchronized(ctypes.c_int(5)))
    assert private.root.how == "copied"
    assert [part.label for part in private.root.parts] == [".get_obj()", ".get_lock()"]
    assert [part.how for part in private.root.parts] == ["copied", "by ref"]
    stuck = kinfolk.explain(kinfolk.Value("i", lock=threading.Lock()), name="v")
    assert [problem.path for problem in stuck.problems] == ["v.get_lock()"]
