"""SharedDict: what a dict does, for all processes at once."""

import datetime
import decimal
import enum
import fractions
import gc
import pathlib
import pickle
import random
import threading
import uuid
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import pytest
from kin_children import blocks, run_forked

import kinfolk
from kinfolk import SharedDict, SharedList

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


def copy(thing):
    return pickle.loads(pickle.dumps(thing))


def same(shared, plain):
    assert len(shared) == len(plain)
    assert shared == plain and plain == shared
    assert list(shared) == list(plain)
    assert list(shared.values()) == list(plain.values())
    assert list(shared.items()) == list(plain.items())
    assert list(reversed(shared)) == list(reversed(plain))
    assert list(reversed(shared.values())) == list(reversed(plain.values()))
    assert repr(shared) == f"SharedDict({plain!r})"


def test_it_does_what_a_dict_does():
    shared, plain, rng = SharedDict(), {}, random.Random(1)
    values = [None, 7, "x" * 300, b"y" * 5000, [1, {"z": 2.5}], (), "äöü", 1 << 80, 0.5]
    for turn in range(4000):
        key = rng.choice([rng.randrange(60), str(rng.randrange(60)), (rng.randrange(5), "k")])
        value = rng.choice(values)
        match rng.randrange(9):
            case 0 | 1 | 2 | 3:
                shared[key] = plain[key] = value
            case 4:
                assert shared.pop(key, "none") == plain.pop(key, "none")
            case 5:
                assert shared.setdefault(key, value) == plain.setdefault(key, value)
            case 6:
                assert shared.get(key) == plain.get(key)
                assert (key in shared) == (key in plain)
            case 7 if plain and rng.random() < 0.5:
                assert shared.popitem() == plain.popitem()
            case 8 if rng.random() < 0.02:
                shared.clear()
                plain.clear()
        if turn % 200 == 0:
            same(shared, plain)
    same(shared, plain)
    while plain:
        key = next(iter(plain))
        del shared[key], plain[key]
    same(shared, plain)


def test_how_one_is_made():
    assert SharedDict() == {}
    assert SharedDict({"a": 1}) == {"a": 1}
    assert SharedDict([("a", 1), ("b", 2)], b=3) == {"a": 1, "b": 3}
    assert SharedDict(SharedDict(a=1)) == {"a": 1}
    assert SharedDict.fromkeys("ab", 0) == {"a": 0, "b": 0}
    with pytest.raises(TypeError):
        SharedDict(5)
    with pytest.raises(TypeError):
        SharedDict({}, {})


def test_mappings_in_all_directions():
    shared = SharedDict(a=1)
    assert isinstance(shared, Mapping) and isinstance(shared, MutableMapping)
    assert shared | {"b": 2} == {"a": 1, "b": 2} == {"a": 1} | SharedDict(b=2)
    assert type({"b": 2} | shared) is dict and type(shared.copy()) is dict
    shared |= {"c": 3}
    assert dict(shared) == {**shared} == {"a": 1, "c": 3}
    assert shared.keys() & {"a"} == {"a"} and ("c", 3) in shared.items() and 3 in shared.values()
    assert shared != {"a": 1} and shared != 5 and (shared == 5) is False
    with pytest.raises(TypeError):
        hash(shared)


def test_errors():
    shared = SharedDict(a=1)
    for missing in ("b", (1, 2)):
        with pytest.raises(KeyError) as caught:
            shared[missing]
        assert caught.value.args == (missing,)
        with pytest.raises(KeyError):
            del shared[missing]
        with pytest.raises(KeyError):
            shared.pop(missing)
    with pytest.raises(KeyError, match="empty"):
        SharedDict().popitem()
    with pytest.raises(TypeError):
        shared.get()
    with pytest.raises(TypeError):
        shared.pop("a", 1, 2)
    with pytest.raises(RuntimeError, match="__init__"):
        len(SharedDict.__new__(SharedDict))
    shared["generator"] = 1
    with pytest.raises(TypeError):
        shared["generator"] = (n for n in ())
    assert shared == {"a": 1, "generator": 1}


# -- Keys


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


@dataclass(frozen=True)
class Point:
    x: int
    y: float


class Text(str):
    pass


KEYS = [
    *(None, True, 0, -1, 255, 1 << 62, -(1 << 63), 1 << 64, -(1 << 200), 0.0, 1.5, float("inf")),
    *("", "a", "ä" * 100, "\ud800", b"", b"a", (), (1,), ((1, "a"), None), Text("text")),
    *(Colour.RED, Level.HIGH, Point(1, 2.0), datetime.date(2020, 2, 29), uuid.UUID(int=5)),
    *(decimal.Decimal("0.1"), fractions.Fraction(1, 3), complex(1, 2), frozenset({1, "a"})),
    *(pathlib.PurePosixPath("/a"), datetime.datetime(2020, 1, 1, 5), datetime.timedelta(1), int),
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys(key):
    shared = SharedDict({key: "value", "other": 1})
    assert shared[key] == "value" and key in shared
    (found, _) = shared
    assert found == key and type(found) is type(key)
    run_forked(lambda: shared.pop(key))
    assert key not in shared


def test_keys_that_are_equal_are_one_key():
    for first, *others in (
        (1, 1.0, True, Level(3) - 2, decimal.Decimal(1), fractions.Fraction(1), complex(1)),
        ("text", Text("text")),
        (0.5, decimal.Decimal("0.5"), fractions.Fraction(1, 2)),
        (decimal.Decimal("0.1"), fractions.Fraction(1, 10)),
        ((1, 2), (1.0, True + 1)),
        (frozenset({1, 2}), frozenset({2.0, 1})),
        (Point(1, 2.0), Point(True, 2)),
        (Point("a" * 9, one := "b" * 9), Point("".join(["a"] * 9), "".join(["b"] * 9))),
        (Point(one, one), Point(one, "".join(["b"] * 9))),
    ):
        for other in others:
            assert first == other and hash(first) == hash(other)
            shared = SharedDict({first: 1})
            shared[other] = 2
            assert len(shared) == 1 and shared[first] == 2
            assert type(next(iter(shared))) is type(first)  # the first one stays


def test_keys_that_differ_are_different_keys():
    shared = SharedDict()
    for n, key in enumerate(KEYS):
        shared[key] = n
    assert dict(shared) == {key: n for n, key in enumerate(KEYS)}


def test_keys_that_can_not_be_are_refused():
    class Plain:
        pass

    shared = SharedDict()
    for unhashable in ([], {}, set(), bytearray(), ([],)):
        with pytest.raises(TypeError, match="unhashable"):
            shared[unhashable] = 1
    for key in (Plain(), object(), (1, Plain())):
        with pytest.raises(TypeError, match="could not be told in another process"):
            shared[key] = 1
        with pytest.raises(TypeError):
            shared.get(key)
    assert shared == {}


# -- Many at once


def test_iteration_survives_changes():
    shared = SharedDict((n, n) for n in range(100))
    seen = []
    for key in shared:
        seen.append(key)
        if key % 3 == 0 and key < 100:
            shared.pop(key + 1, None)  # to come
            shared.pop(key - 2, None)  # gone by
        if key < 50:
            shared[1000 + key] = 0
    assert len(seen) == len(set(seen))
    assert set(range(0, 100, 3)) <= set(seen) and set(range(1000, 1050, 3)) <= set(seen)
    iterator = iter(shared.items())
    next(iterator)
    shared.clear()
    assert list(iterator) == [] and list(iterator) == []


def count_up(shared, turns):
    for _ in range(turns):
        shared.compute("n", lambda n: n + 1, 0)


def test_compute_is_one_step(ctx):
    shared = SharedDict()
    children = [ctx.Process(target=count_up, args=(shared, 300)) for _ in range(3)]
    for child in children:
        child.start()
    threads = [threading.Thread(target=count_up, args=(shared, 300)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for each in children + threads:
        each.join()
    assert shared["n"] == 1500


def fill(shared, queue, me):
    for n in range(200):
        shared[me, n] = "x" * n
    first = shared.setdefault("first", me)
    queue.put((me, first))


def test_from_many_processes(ctx):
    shared, queue = SharedDict(), ctx.Queue()
    children = [ctx.Process(target=fill, args=(shared, queue, me)) for me in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    told = dict(queue.get() for _ in children)
    assert set(told) == {0, 1, 2} and len(set(told.values())) == 1
    assert len(shared) == 601
    assert all(shared[me, n] == "x" * n for me in range(3) for n in range(200))


# -- What lives in it


def test_it_travels_and_is_the_same():
    shared = SharedDict(a=1)
    other = copy(shared)
    other["b"] = 2
    assert shared == {"a": 1, "b": 2} and type(other) is SharedDict
    shared.name = "Ida"
    assert copy(shared).name == "Ida"
    assert SharedDict[str, int].__origin__ is SharedDict


def test_what_is_in_it_lives_as_long_as_it():
    before = blocks()
    shared = SharedDict(lock=kinfolk.Lock(), inner=SharedDict(list=SharedList([1])))
    gc.collect()
    shared["inner"]["list"].append(2)
    assert shared["inner"]["list"] == [1, 2]
    assert shared["lock"].acquire() and not shared["lock"].acquire(False)
    run_forked(lambda: shared["inner"]["list"].append(3))
    assert shared["inner"]["list"].pop() == 3
    shared.clear()
    shared = None
    assert blocks() == before


def test_memory_is_given_back():
    before = blocks()
    shared = SharedDict()
    for n in range(3000):
        shared[n] = bytes(n % 700)
    for n in range(3000):
        del shared[n]
    assert blocks() <= before + 2
    shared.update((n, n) for n in range(100))
    del shared
    assert blocks() == before


def test_the_user_s_code_runs_without_the_lock():
    shared = SharedDict()

    class Nosy:
        def __init__(self, shared):
            self.shared = shared

        def __reduce__(self):
            self.shared["seen"] = self.shared.get("seen", 0) + 1
            return str, ("nosy",)

    shared["key"] = Nosy(shared)
    assert shared == {"seen": 1, "key": "nosy"}
