"""BUILD by kinfolk's unpickler, and by the interpreter's own: nothing may tell them apart.

For plain classes kinfolk's takes short ways (ext/pickle/load_state.c).  Here are the classes for
which it must not, and the code that comes between.
"""

import _pickle
import sys
import types

import pytest
from unpickler_same import (
    ODD,
    STATES,
    Dict,
    DictSubclass,
    Getattribute,
    Plain,
    Setattr,
    Slots,
    SlotsAndDict,
    SlotsBelow,
    SlotsSetattr,
    alike,
    name_of,
)

from kinfolk import _kin


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("cls", ODD)
def test_build(cls, state):
    made = name_of(cls) + b")\x81"
    alike(b"\x80\x04" + made + STATES[state] + b"b.")
    alike(b"\x80\x04" + made + b"\x94" + STATES[state] + b"b.")
    # many, so that what is known of the class is used, and what is memoised asked for again
    alike(b"\x80\x04](" + (made + STATES[state] + b"b") * 3 + b"e.")
    alike(b"\x80\x04](" + made + b"\x94" + STATES[state] + b"bh\x00e.")


@pytest.mark.parametrize("state", ["memoised", "slots memoised"])
@pytest.mark.parametrize("index", range(5))
def test_build_state_asked_for_again(state, index):
    cls = Slots if "slots" in state else Plain
    alike(
        b"\x80\x04(" + name_of(cls) + b")\x81\x94" + STATES[state] + b"bh" + bytes([index]) + b"t."
    )


@pytest.mark.parametrize("cls", ODD)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_build_of_what_is_written(cls, protocol):
    one = cls()
    if cls in (Slots, SlotsAndDict, SlotsBelow, SlotsSetattr):
        one.a = [1]
    elif cls not in (Dict, Getattribute, Setattr):
        one.__dict__.update(a=1, b={"x": one})
    try:
        data = _pickle.dumps([one, [one], cls], protocol)
    except Exception:
        pytest.skip("cannot be pickled")
    alike(data)


def test_build_with_a_state_set_by_new():
    class Changing:
        def __setstate__(self, state):
            del type(self).__setstate__
            type(self).y = property()
            self.state = state

    module = types.ModuleType("changing")
    original = {"__setstate__": Changing.__setstate__}

    def fresh():
        cls = type("Changing", (), dict(original))
        cls.__module__ = "changing"
        module.Changing = cls
        return cls

    sys.modules["changing"] = module
    try:
        made = b"\x8c\x08changing\x8c\x08Changing\x93\x94)\x81}(\x8c\x01xK\x01\x8c\x01zK\x02ub"
        again = b"h\x00)\x81}(\x8c\x01zK\x01\x8c\x01wK\x02ub"
        results = []
        for loads in (_pickle.loads, _kin.loads):
            fresh()
            found = loads(b"\x80\x04](" + made + again * 3 + b"e.")
            results.append([vars(one) for one in found])
        assert results[0] == results[1]
    finally:
        del sys.modules["changing"]


def test_build_of_a_blank_that_code_has_seen():
    """Between NEWOBJ and BUILD a reducer gets the instance, and puts something into it."""
    calls = name_of(setter_of_dict) + b"h\x00\x85R0"
    made = name_of(Plain) + b")\x81\x94"
    for state in STATES.values():
        alike(b"\x80\x04" + made + calls + state + b"b.")
        alike(b"\x80\x04" + made + b"}(\x8c\x01p" + calls.replace(b"R0", b"R") + b"ub.")


def setter_of_dict(obj):
    obj.__dict__ = DictSubclass()
    obj.__setstate__ = setter_of_dict


def test_state_keys_are_interned():
    name = f"attribute_{id(object())}"
    data = _pickle.dumps([Plain(**{name: 1}), Plain(**{name: 2})], 5)
    for _ in range(2):
        first, second = _kin.loads(data)
        keys = [next(iter(vars(one))) for one in (first, second)]
        assert keys[0] is keys[1] is sys.intern(name)


def test_instances_share_their_keys():
    """As those that are made by calling the class: no larger, where that can be seen."""
    made = Plain.__new__(Plain)
    made.__dict__["a"] = 1
    made.__dict__["b"] = 2
    loaded = _kin.loads(_pickle.dumps([made] * 2 + [Plain(a=1, b=2)], 5))[2]
    assert vars(loaded) == {"a": 1, "b": 2}
