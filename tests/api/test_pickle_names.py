"""What a name means elsewhere: identity, the value as a spare, kin, modules.

A class keeps its identity over any number of journeys; a name is used where it leads
to the same thing, and only there.
"""

import os
from textwrap import dedent

import pickle_travel
import pytest
from pickle_travel import run

import kinfolk.pickle as kpickle

travels = pickle_travel.travels


# -- identity ---------------------------------------------------------------------------------------


def test_a_class_sent_twice_is_one_class(travels):
    travels(
        """
        def make():
            class Local: pass
            return Local
        Local = make()
        dumps = _pickle_under_test.dumps
        sent = [dumps(Local()), dumps(Local), dumps(lambda x: isinstance(x, Local)), dumps(make()())]
    """,
        """
        instance, cls, check, other = map(pickle.loads, got)
        assert type(instance) is cls and check(instance)
        assert type(other) is not cls and type(other).__name__ == "Local"
    """,
    )


def test_a_class_sent_again_is_brought_up_to_date(travels):
    travels(
        """
        def make():
            class Local:
                rate, mine = 1, 1
                def old(self): return 1
            return Local
        Local = make()
        first = _pickle_under_test.dumps(Local())
        Local.rate = 2
        Local.new = lambda self: "new"
        Local.old = lambda self: 2
        sent = first, _pickle_under_test.dumps(Local())
    """,
        """
        first = pickle.loads(got[0])
        assert first.old() == 1
        type(first).mine = "the receiver's"
        second = pickle.loads(got[1])
        assert type(first) is type(second) and first.new() == "new" and first.old() == 2
        assert first.rate == 2 and first.mine == "the receiver's"
    """,
    )


RELAY = """
import pickle, subprocess, sys
from kinfolk import pickle as kpickle
RELAY = '''
import pickle, sys
from kinfolk import pickle as kpickle
got = kpickle.loads(sys.stdin.buffer.read())
%s
sys.stdout.buffer.write(kpickle.dumps(got))
'''
def there_and_back(thing, doing=""):
    done = subprocess.run([sys.executable, "-c", RELAY % doing], input=kpickle.dumps(thing),
                          stdout=subprocess.PIPE, check=True)
    return kpickle.loads(done.stdout)
"""


def test_what_comes_home_is_of_its_own_class(tmp_path):
    script = tmp_path / "home.py"
    script.write_text(
        RELAY
        + dedent("""
        import enum, typing
        T = typing.TypeVar("T")
        class E(enum.Enum):
            A = 1
        class Main(typing.Generic[T]):
            def __init__(self, n): self.n = n
        def local():
            class Local: pass
            return Local
        Local = local()
        thing = Main(1), Local(), E.A, Main, T, [lambda: 5]
        back = there_and_back(thing, "got[0].n += 1")
        assert type(back[0]) is Main and back[0].n == 2 and thing[0].n == 1
        assert type(back[1]) is Local and back[2] is E.A and back[3] is Main and back[4] is T
        assert back[5][0]() == 5
    """)
    )
    run([script])


def test_two_threads_load_one_class(travels):
    travels(
        """
        class C:
            def __init__(self): self.x = 1
            def get(self): return self.x
        sent = C()
    """,
        """
        assert got == 400
    """,
        before="""
        import threading
        def load_in_threads(data):
            start, found = threading.Barrier(8), []
            def load():
                start.wait()
                for _ in range(50):
                    thing = pickle.loads(data)
                    found.append((type(thing), thing.get()))
            threads = [threading.Thread(target=load) for _ in range(8)]
            for each in threads: each.start()
            for each in threads: each.join()
            assert len(found) == 400 and len({cls for cls, _ in found}) == 1
            return len(found)
        sys.setswitchinterval(1e-6)
    """,
        loads="load_in_threads",
    )


# -- by name, with the value as the spare -----------------------------------------------------------


GUARDED = """
    class Outside:
        where = __name__
        def get(self): return self.where
    def outside(): return __name__
    if __name__ == "__main__":
        class Inside:
            where = __name__
            def get(self): return self.where
        def inside(): return Outside
        sent = Outside(), outside, Inside(), inside, Outside, lambda: outside
"""


def test_names_found_in_the_receiver_are_used(travels):
    travels(
        GUARDED,
        """
        outside_instance, outside, inside_instance, inside, Outside, late = got
        main = sys.modules["__main__"]
        assert Outside is main.Outside and outside is main.outside
        assert outside_instance.get() == "__mp_main__"
        assert not hasattr(main, "Inside")
        assert inside_instance.get() == "__main__" and inside() is main.Outside
        assert late() is main.outside
    """,
        has_main=True,
    )


def test_without_them_the_value_is(travels):
    travels(
        GUARDED,
        """
        outside_instance, outside, inside_instance, inside, Outside, late = got
        assert outside() == "__main__" and outside_instance.get() == "__main__"
        assert inside() is Outside is type(outside_instance) and late() is outside
    """,
    )


def test_a_namesake_is_not_taken_for_it(travels):
    travels(
        """
        class Foo:
            def get(self): return "sender"
        def f(): return 1
        def g(): return 2
        class Same:
            def get(self): return 3
        sent = Foo(), f, g, Same
    """,
        """
        assert got[0].get() == "sender" and got[1]() == 1
        assert got[2] is not g and got[2]() == 2
        assert got[3] is Same   # for all that can be told it is the same program
    """,
        before="""
        class Foo:
            def get(self): return "receiver"
        def f(): return 10
        class g: pass
        class Same:
            def get(self): return 3
    """,
    )


# -- modules ----------------------------------------------------------------------------------------


def test_modules(travels):
    travels(
        """
        import types, json, os.path, sys
        dynamic = types.ModuleType("dynamic", "Made at run time.")
        exec("n = 0\\ndef up():\\n    global n\\n    n += 1\\n    return n", dynamic.__dict__)
        dynamic.itself = dynamic
        in_table = types.ModuleType("in_table")
        sys.modules["in_table"] = in_table
        exec("class T:\\n    pass\\ndef g():\\n    return T()", in_table.__dict__)
        sent = json, os.path, dynamic, dynamic.up, in_table.g, in_table.T
    """,
        """
        import json, os.path
        module, path, dynamic, up, g, T = got
        assert module is json and path is os.path and "dynamic" not in sys.modules
        assert dynamic.up is up and dynamic.itself is dynamic and dynamic.__doc__ == "Made at run time."
        up()
        assert dynamic.n == 1 and up.__globals__ is vars(dynamic)
        assert type(g()) is T and T.__module__ == "in_table"
    """,
    )


def test_registered_modules_travel_by_value(travels, tmp_path):
    package = tmp_path / "lib" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("K = 3\ndef f():\n    return K\n")
    (package / "sub.py").write_text("class C:\n    k = 4\n")
    travels(
        """
        import mine.sub
        by_name = _pickle_under_test.dumps(mine.f)
        _pickle_under_test.register_pickle_by_value(mine)
        assert _pickle_under_test.list_registry_pickle_by_value() == {"mine"}
        sent = mine.f, mine.sub.C()
        data = _pickle_under_test.dumps(sent)
        _pickle_under_test.unregister_pickle_by_value(mine)
        assert _pickle_under_test.list_registry_pickle_by_value() == set()
        assert _pickle_under_test.dumps(mine.f) == by_name
        sent = data
    """,
        """
        f, c = pickle.loads(got)
        assert f() == 3 and c.k == 4 and "mine" not in sys.modules
    """,
    )


def test_registering_what_is_no_module():
    import types

    for wrong in ("json", types.ModuleType("never_imported")):
        with pytest.raises(ValueError):
            kpickle.register_pickle_by_value(wrong)
    with pytest.raises(ValueError):
        kpickle.unregister_pickle_by_value(os)


def test_module_that_is_not_on_the_path(travels, tmp_path):
    """As test runners and plugin loaders import: from a file, under a name of their own."""
    (tmp_path / "plugin.py").write_text("def run(): return helper()\ndef helper(): return 6\n")
    travels(
        """
        import importlib.util, os, sys
        path = os.path.join(os.path.dirname(__file__), "plugin.py")
        spec = importlib.util.spec_from_file_location("a_plugin", path)
        plugin = importlib.util.module_from_spec(spec)
        sys.modules["a_plugin"] = plugin
        spec.loader.exec_module(plugin)
        sent = plugin.run
    """,
        "assert got() == 6",
    )
