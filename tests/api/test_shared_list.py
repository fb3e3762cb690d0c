"""SharedList: what a list does, for all processes at once."""

import pickle
import random
from collections.abc import MutableSequence

import pytest
from kin_children import blocks

import kinfolk
from kinfolk import SharedList

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


def copy(thing):
    return pickle.loads(pickle.dumps(thing))


def outcome(function, thing):
    """What it returns, or the type of what it raises."""
    try:
        return function(thing)
    except (IndexError, ValueError, TypeError) as error:
        return type(error)


def changes(rng):
    """A function that does something to a list."""
    n, m, value = rng.randint(-12, 12), rng.randint(-12, 12), rng.choice([0, "x", None, [1], 2.5])
    more = [rng.randrange(9) for _ in range(rng.randrange(5))]
    part = slice(n, m, rng.choice([None, None, 1, 2, -1, -3]))
    return rng.choice(
        [
            lambda x: x.append(value),
            lambda x: x.append(n),
            lambda x: x.insert(n, value),
            lambda x: x.extend(more),
            lambda x: x.__iadd__(more) == 0,
            lambda x: x.pop(),
            lambda x: x.pop(n),
            lambda x: x.remove(value),
            lambda x: x.reverse(),
            lambda x: x.sort(key=str, reverse=bool(n % 2)),
            lambda x: x.__setitem__(n, value),
            lambda x: x.__delitem__(n),
            lambda x: x.__setitem__(slice(n, m), more),
            lambda x: x.__setitem__(part, more),
            lambda x: x.__delitem__(part),
            lambda x: x.__imul__(n % 3) == 0,
            lambda x: (x[part], x[n:], x[:m], x[:]),
            lambda x: x[n],
            lambda x: (x.index(value), x.count(value), value in x),
            lambda x: x.clear() if n == m else None,
        ]
    )


def test_it_does_what_a_list_does():
    rng = random.Random(1)
    shared, plain = SharedList(), []
    for _ in range(3000):
        change = changes(rng)
        assert outcome(change, shared) == outcome(change, plain)
        if len(plain) > 60:
            del shared[5:], plain[5:]
        assert shared.copy() == plain
    assert list(shared) == plain and list(reversed(shared)) == plain[::-1]
    assert repr(shared) == f"SharedList({plain!r})" and len(shared) == len(plain)


def test_a_sequence_in_all_directions():
    shared = SharedList("ab")
    assert isinstance(shared, MutableSequence)
    assert shared + ["c"] == ["a", "b", "c"] and ["c"] + shared == ["c", "a", "b"]
    assert shared * 2 == 2 * shared == ["a", "b"] * 2
    assert shared == SharedList("ab") and shared != ["a"] and shared != "ab"
    assert shared < ["b"] and shared >= ["a"] and SharedList() <= shared
    with pytest.raises(TypeError):
        hash(shared)
    with pytest.raises(TypeError):
        shared["a"]
    with pytest.raises(IndexError, match="pop from empty list"):
        SharedList().pop()
    with pytest.raises(TypeError):
        shared.append(n for n in ())
    assert shared == ["a", "b"]


def test_many_items():
    shared, plain = SharedList(range(20000)), list(range(20000))
    for _ in range(5000):
        assert shared.pop(0) == plain.pop(0) and shared.pop() == plain.pop()
    shared.insert(7000, "x")
    plain.insert(7000, "x")
    assert shared == plain and shared[-5:] == plain[-5:]


def test_it_travels_and_is_the_same():
    shared = SharedList([1])
    copy(shared).append(shared)
    assert len(shared) == 2 and shared[1][1][0] == 1
    shared.clear()


def push(shared, me):
    for n in range(200):
        shared.append((me, n))
    shared.extend([me] * 50)


def test_from_many_processes(ctx):
    shared = SharedList()
    children = [ctx.Process(target=push, args=(shared, me)) for me in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert len(shared) == 750
    items = shared.copy()
    for me in range(3):
        assert [n for who, n in (i for i in items if isinstance(i, tuple)) if who == me] == list(
            range(200)
        )
        first = items.index(me)
        assert items[first : first + 50] == [me] * 50  # with nothing in between


def test_memory_is_given_back():
    before = blocks()
    shared = SharedList(bytes(n % 400) for n in range(3000))
    shared.sort()
    while shared:
        shared.pop(len(shared) // 2 if len(shared) < 50 else -1)
    assert blocks() <= before + 2
    del shared
    assert blocks() == before
