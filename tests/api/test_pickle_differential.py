"""kinfolk.pickle beside the standard library's, on things made by Hypothesis.

Either loads what the other wrote, and what comes out is the same graph as went in: equal,
and shared in the same places (pickle_same).  Where the standard library refuses, or
brings back something else, kinfolk is not asked for more than that.
"""

import contextlib
import copyreg
import functools
import io
import pickle
import pickletools
import sys

import pickle_shapes as shapes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickle_same import Different, same

import kinfolk.pickle as kpickle

PROTOCOLS = range(kpickle.HIGHEST_PROTOCOL + 1)


def compare(make, protocol, **options):
    """What `make` makes, pickled by each and loaded by each."""
    try:
        standard = pickle.dumps(make(), protocol, **options)
    except Exception as error:
        with pytest.raises(type(error)):
            kpickle.dumps(make(), protocol, by_value=False, **options)
        return
    thing = make()
    try:
        same(thing, pickle.loads(standard))
        expected = thing
    except Different:  # a cycle that no pickle can close as it was
        expected = pickle.loads(standard)
    except Exception as error:  # or that cannot be loaded at all
        with pytest.raises(type(error)):
            kpickle.loads(standard)
        return
    same(expected, kpickle.loads(standard))
    ways = (
        kpickle.dumps(thing, protocol, **options),
        kpickle.dumps(thing, protocol, by_value=False, **options),
        streamed(thing, protocol, **options),
    )
    for written in set(ways):
        pickletools.dis(written, out=io.StringIO())
        same(expected, pickle.loads(written))
        same(expected, kpickle.loads(written))
        same(expected, kpickle.load(io.BytesIO(written)))
    same(expected, pickle._loads(written))


def streamed(thing, protocol, **options):
    file = io.BytesIO()
    kpickle.Pickler(file, protocol, **options).dump(thing)
    return file.getvalue()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(plan=shapes.plans())
def test_graphs(plan, protocol):
    compare(lambda: shapes.build(plan), protocol)


@given(atom=shapes.atoms(), protocol=st.sampled_from(PROTOCOLS))
@settings(max_examples=200)
def test_one_thing(atom, protocol):
    compare(lambda: atom, protocol)
    compare(lambda: [atom, (atom, atom)], protocol)


def plain_data():
    return st.recursive(
        shapes.atoms(),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=5)
        ),
        max_leaves=30,
    )


@given(thing=plain_data(), protocol=st.sampled_from(PROTOCOLS))
def test_plain_data(thing, protocol):
    compare(lambda: thing, protocol)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_each_shape(shape):
    """With no parts, with some, shared among two, and around itself."""
    make = shapes.SHAPES[shape]
    shared = ["shared"]

    def around_itself():
        inner = []
        thing = make(inner)
        inner.append(thing)
        return thing

    for protocol in PROTOCOLS:
        compare(around_itself, protocol)
        for parts in ((), (1,), ([1], "two"), (shared, shared, {"in": shared})):
            once = functools.partial(make, *parts)
            compare(once, protocol)
            compare(twice(once), protocol)
            compare(twice_the_same(once), protocol)


def twice(make):
    return lambda: [make(), make()]


def twice_the_same(make):
    return lambda: [make()] * 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 999, 1000, 1001])
def test_lengths_around_a_batch(count, protocol):
    for make in (
        lambda: list(range(count)),
        lambda: tuple([i] for i in range(count)),
        lambda: {i: [i] for i in range(count)},
        lambda: {(i,) for i in range(count)},
        lambda: frozenset(range(count)),
        lambda: shapes.MyList(*range(count)),
        lambda: shapes.MyDict(*range(count)),
        lambda: shapes.WithItems(*range(count)),
        lambda: shapes.WithPairs(*range(count)),
        lambda: shapes.MyOrdered.fromkeys(range(count)),
    ):
        compare(make, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_in_the_memo(protocol):
    """Indices of one byte, and of four."""
    things = [[i] for i in range(400)]
    compare(lambda: [things, things[::-1], tuple(things)], protocol)
    words = [f"word {i}" for i in range(400)]
    compare(lambda: [dict.fromkeys(words, words), words], protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 200_000])
def test_sizes_around_a_frame(size, protocol):
    for part in (b"x" * size, "x" * size, "é" * (size // 2), bytearray(size)):
        for thing in (part, [part, 1, part, [2, {"three": part}]]):
            compare(functools.partial(lambda it: it, thing), protocol)
    compare(lambda: [b"y" * (size // 8)] + [b"x" * (size // 8 + i) for i in range(8)], protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_deep(protocol):
    for wrap in (*DEEP, *([shapes.Slotted] if protocol > 1 else [])):
        thing = nested(100, wrap)
        written = kpickle.dumps(thing, protocol)
        pickletools.dis(written, out=io.StringIO())
        same(thing, pickle.loads(written))
        same(thing, kpickle.loads(pickle.dumps(thing, protocol)))


DEEP = [lambda x: [x], lambda x: (x,), lambda x: {"in": x}, shapes.Plain, shapes.WithReduce]


def nested(depth, wrap):
    thing = []
    for _ in range(depth):
        thing = wrap(thing)
    return thing


@pytest.mark.parametrize("wrap", DEEP)
def test_too_deep(wrap):
    thing = nested(sys.getrecursionlimit() * 50, wrap)
    with pytest.raises(RecursionError):
        kpickle.dumps(thing)
    assert kpickle.loads(kpickle.dumps([[1]])) == [[1]]


# -- Buffers and arrays -----------------------------------------------------------


@st.composite
def arrays(draw):
    numpy = pytest.importorskip("numpy")
    kind = draw(st.sampled_from(["u1", "<i8", ">f4", "c16", "U3", "S4", "M8[ns]", "?", "i4,f8"]))
    shape = draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
    made = numpy.zeros(shape, kind)
    if draw(st.booleans()):
        made = numpy.asfortranarray(made)
    if shape and draw(st.booleans()):
        made = made[::2]
    return made


@given(made=st.lists(arrays(), max_size=3), protocol=st.sampled_from(PROTOCOLS))
def test_numpy_arrays(made, protocol):
    compare(lambda: [made, made, (*made,)], protocol)


def buffers():
    kinds = st.sampled_from([bytes, bytearray, lambda b: memoryview(bytes(b))])
    return st.builds(lambda kind, data: kpickle.PickleBuffer(kind(data)), kinds, st.binary())


@given(made=st.lists(buffers(), max_size=4), keep=st.lists(st.booleans(), min_size=4, max_size=4))
def test_out_of_band(made, keep):
    """In the same order, the same ones left out, and the same objects given back."""

    def callback_into(given):
        def callback(buffer):
            given.append(buffer)
            return keep[(len(given) - 1) % len(keep)]

        return callback

    thing = [made, 1, *made[:1]]
    with contextlib.suppress(StopIteration):
        theirs, ours = [], []
        standard = pickle.dumps(thing, 5, buffer_callback=callback_into(theirs))
        written = kpickle.dumps(thing, 5, buffer_callback=callback_into(ours))
        assert [id(buffer) for buffer in ours] == [id(buffer) for buffer in theirs]
        left_out = [buffer for at, buffer in enumerate(theirs) if not keep[at % len(keep)]]
        for data in (standard, written):
            pickletools.dis(data, out=io.StringIO())
            for loads in (pickle.loads, kpickle.loads):
                back = loads(data, buffers=left_out)
                same_buffers(loads(standard, buffers=left_out), back)
        assert written.count(b"\x97") == standard.count(b"\x97")


def same_buffers(expected, back):
    """What is handed in is handed on as it is, the rest made anew."""
    assert [type(part) for part in expected[0]] == [type(part) for part in back[0]]
    for mine, its in zip(expected[0] + expected[2:], back[0] + back[2:]):
        assert (mine is its) or bytes(mine) == bytes(its)


def test_readonly_and_writable_arrive_as_such():
    for made, writable in ((b"abc", False), (bytearray(b"abc"), True)):
        given = []
        data = kpickle.dumps(kpickle.PickleBuffer(made), buffer_callback=given.append)
        assert data == pickle.dumps(pickle.PickleBuffer(made), 5, buffer_callback=[].append)
        back = kpickle.loads(data, buffers=given)
        assert memoryview(back).readonly is not writable
        back = kpickle.loads(data, buffers=[bytearray(b"abc")])
        assert memoryview(back).readonly is not writable
        in_band = kpickle.loads(kpickle.dumps(kpickle.PickleBuffer(made)))
        assert type(in_band) is type(made) and in_band == made


# -- The registry of codes ----------------------------------------------------------


@pytest.mark.parametrize("code", [1, 255, 256, 65535, 65536, 0x7FFFFFFF])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_extension_codes(code, protocol):
    where = shapes.Plain.__module__, "Plain"
    copyreg.add_extension(*where, code)
    try:
        compare(lambda: [shapes.Plain, shapes.Plain([1]), shapes.Plain(2)], protocol)
        written = kpickle.dumps(shapes.Plain, protocol)
        assert (b"Plain" in written) is (protocol < 2)
    finally:
        copyreg.remove_extension(*where, code)


@pytest.mark.parametrize("fix_imports", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_of_python_2(protocol, fix_imports):
    for thing in (range(3), map, functools.reduce, ValueError, FileNotFoundError, bytes):
        written = kpickle.dumps(thing, protocol, fix_imports=fix_imports)
        standard = pickle.dumps(thing, protocol, fix_imports=fix_imports)
        for name in (b"__builtin__", b"itertools", b"exceptions"):
            assert (name in written) is (name in standard)
        for loads in (pickle.loads, kpickle.loads):
            expected = pickle.loads(standard, fix_imports=fix_imports)
            assert loads(written, fix_imports=fix_imports) == expected
            assert loads(standard, fix_imports=fix_imports) == expected
