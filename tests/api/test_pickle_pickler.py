"""kinfolk.pickle as a pickle module: its functions, its classes, what they write."""

import io
import os
import pathlib
import pickletools
import subprocess
import sys

import pickle_travel
import pytest

import kinfolk.pickle as kpickle

travels = pickle_travel.travels


def test_plain_pickles_stay_plain():
    import decimal
    import pickle

    things = [
        None,
        1,
        [1.5, "x", b"y"],
        {"a": (1, 2)},
        {1, 2},
        decimal.Decimal("1.5"),
        os.path.join,
        pathlib.PurePosixPath("/a"),
        int,
        len,
        OSError(1, "x"),
        subprocess.Popen,
    ]
    for thing in things:
        # A Pickler remembers everything, as the standard one; dumps() what can be met again.
        file = io.BytesIO()
        kpickle.Pickler(file).dump(thing)
        assert file.getvalue() == pickle.dumps(thing, 5)
        assert _opcodes(kpickle.dumps(thing)) == _opcodes(pickle.dumps(thing, 5))


def _opcodes(pickled):
    """What a pickle does, but for what it remembers and how it is framed."""
    return [
        (opcode.name, argument)
        for opcode, argument, _ in pickletools.genops(pickled)
        if opcode.name not in ("MEMOIZE", "FRAME", "BINGET")
    ]


@pytest.mark.parametrize("protocol", range(kpickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(travels, protocol):
    travels(
        """
        def make(n):
            class C:
                def get(self): return n
            return C()
        sent = make(3), lambda: 4, memoryview(b"abc")
    """,
        "assert got[0].get() == 3 and got[1]() == 4 and bytes(got[2]) == b'abc'",
        dumps=f"(lambda x: _pickle_under_test.dumps(x, {protocol}))",
    )


def test_by_value_can_be_refused():
    import pickle

    class Local:
        pass

    for thing in (lambda: 1, Local, Local(), [Local()], property()):
        with pytest.raises((AttributeError, pickle.PicklingError, TypeError)) as standard:
            pickle.dumps(thing)
        with pytest.raises(standard.type):
            kpickle.dumps(thing, by_value=False)
        with pytest.raises(standard.type):
            import io

            kpickle.Pickler(io.BytesIO(), by_value=False).dump(thing)


def test_state_is_asked_for_once():
    asked = []

    class Talks:
        def __getstate__(self):
            asked.append(self)
            return {"a": 1}

    talks = Talks()
    kpickle.dumps([talks, talks, lambda: talks])
    assert asked == [talks]


def test_out_of_band_buffers():
    data = bytearray(b"x" * 100)
    buffers = []
    pickled = kpickle.dumps(
        [kpickle.PickleBuffer(data), memoryview(data)[10:20]], buffer_callback=buffers.append
    )
    assert len(buffers) == 2 and len(pickled) < 200
    whole, part = kpickle.loads(pickled, buffers=buffers)
    assert bytes(whole) == data and part == b"x" * 10
    data[10] = 0
    assert part[0] == 0


def test_subclasses_of_the_pickler():
    import copyreg
    import io

    class Point:
        def __init__(self, x):
            self.x = x

    class P(kpickle.Pickler):
        dispatch_table = copyreg.dispatch_table | {Point: lambda p: (complex, (p.x, 0))}

        def persistent_id(self, obj):
            return "nobody" if obj == "somebody" else None

        def reducer_override(self, obj):
            return (str, ("an int type",)) if obj is int else NotImplemented

    class Q(P):
        def reducer_override(self, obj):
            return (str, ("a float type",)) if obj is float else super().reducer_override(obj)

    class Mixin:
        def reducer_override(self, obj):
            return (str, ("mixed in",)) if obj is int else NotImplemented

    class R(kpickle.Pickler, Mixin):
        pass

    class U(kpickle.Unpickler):
        def persistent_load(self, pid):
            return pid

    def through(pickler, thing):
        file = io.BytesIO()
        pickler(file).dump(thing)
        file.seek(0)
        return U(file).load()

    nobody, point, kind, function = through(P, ["somebody", Point(1), int, lambda: 3])
    assert (nobody, point, kind, function()) == ("nobody", 1 + 0j, "an int type", 3)
    assert through(Q, [int, float]) == ["an int type", "a float type"]
    assert through(Q, lambda: 5)() == 5
    assert through(R, [int])[0] == "mixed in" and through(R, lambda: 6)() == 6


def test_one_pickler_many_dumps():
    import io

    count = 0

    def up():
        nonlocal count
        count += 1
        return count

    file = io.BytesIO()
    pickler = kpickle.Pickler(file)
    pickler.dump(up)
    pickler.dump(up)
    end = file.tell()
    pickler.clear_memo()
    pickler.dump(up)
    file.seek(0)
    unpickler = kpickle.Unpickler(file)
    first, second = unpickler.load(), unpickler.load()
    file.seek(end)
    third = kpickle.Unpickler(file).load()
    assert first is second and first is not third
    assert first() == 1 and second() == 2 and third() == 1


def test_small_things():
    import types
    import weakref

    class Key:
        pass

    key, mapping = Key(), {"a": 1}
    weak = weakref.WeakKeyDictionary({key: 1})
    grid = memoryview(bytearray(12)).cast("B").cast("i", [3, 1])
    things = (
        mapping,
        types.MappingProxyType(mapping),
        mapping.keys(),
        mapping.values(),
        mapping.items(),
        key,
        weak,
        types.FunctionType,
        types.ModuleType,
        type({}.keys()),
        grid,
        types.MethodType,
        Ellipsis,
        NotImplemented,
        type(None),
        type(...),
    )
    got = kpickle.loads(kpickle.dumps(things))
    got[0]["b"] = 2
    assert dict(got[1]) == {"a": 1, "b": 2} == dict(got[4])
    assert list(got[2]) == ["a", "b"] and list(got[3]) == [1, 2]
    assert got[6][got[5]] == 1
    assert got[7] is types.FunctionType and got[8] is types.ModuleType and got[9] is type({}.keys())
    assert got[10] == grid and got[10].shape == (3, 1) and got[10].format == "i"
    assert got[11:] == things[11:]


def test_nothing_is_kept_alive():
    import gc
    import weakref

    def make():
        class Local:
            def get(self):
                return Local

        return Local

    cls = make()
    function = (lambda value: lambda: value)(cls)
    function_ref, cls_ref = weakref.ref(function), weakref.ref(cls)
    kpickle.loads(kpickle.dumps([cls(), function]))
    del cls, function
    gc.collect()
    assert function_ref() is None and cls_ref() is None


class Link:
    def __init__(self, next):
        self.next = next


class SlotLink:
    __slots__ = ("next",)

    def __init__(self, next):
        self.next = next


class StatefulLink(Link):
    def __getstate__(self):
        return {"next": self.next}


LINKS = [Link, SlotLink, StatefulLink, lambda next: [next], lambda next: (next, 1)]


@pytest.mark.parametrize("link", LINKS)
def test_what_is_too_deep_is_an_error(link):
    chain, depth = None, 100_000
    for _ in range(depth):
        chain = link(chain)
    with pytest.raises(RecursionError):
        kpickle.dumps(chain)
    while chain is not None:  # from the top: the interpreter, too, is not for such depths
        chain = chain[0] if isinstance(chain, (list, tuple)) else chain.next


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="C has a limit of its own")
def test_as_deep_as_the_limit_allows():
    chain = None
    for _ in range(5_000):
        chain = Link(chain)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    try:
        assert kpickle.dumps(chain).count(b"\x81") == 5_000
    finally:
        sys.setrecursionlimit(limit)
        while chain is not None:
            chain = chain.next
