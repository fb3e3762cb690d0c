#!/usr/bin/env python3
"""Seeds for the fuzzers of pickles: what the standard library writes, by every protocol.

    seed_pickles.py DIR

Each file is named by the hash of its bytes, as libFuzzer names its own.
"""

import hashlib
import pickle
import sys
from pathlib import Path

REF = bytes(range(36))


class Ref:
    """Pickles as an object of the family does."""

    def __init__(self, state=None):
        self.state = state

    def __reduce__(self):
        parts = (_open, (Queue, REF))
        return parts if self.state is None else (*parts, self.state)


class Queue:
    pass


def _open(cls, ref):
    pass


# Pickled as names, which are looked up first.
for thing in (Queue, _open):
    thing.__module__ = "kinfolk._kin"
    thing.__qualname__ = thing.__name__
fake = type(sys)("kinfolk._kin")
fake.Queue, fake._open = Queue, _open
sys.modules["kinfolk._kin"] = fake


def cycles():
    a = []
    a.append(a)
    yield a
    b = {}
    b["self"] = (b, 1)
    yield b
    inner = []
    c = (inner, 2)
    inner.append(c)
    yield c
    ref = Ref([])
    ref.state.append(ref)
    yield ref


def plain():
    shared = ["shared", b"bytes"]
    yield from (
        None,
        True,
        False,
        0,
        1,
        255,
        256,
        65535,
        65536,
        -1,
        2**31,
        -(2**31),
        2**63,
        -(2**63),
    )
    yield from (2**64, -(2**64), 10**50, -(10**50), 2**2050)
    yield from (0.0, -0.0, 1.5, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
    yield from ("", "abc", "é", "漢字", "\U0001f600", "\ud800", "\0\n\\\x1a", "x" * 300)
    yield from (b"", b"abc", bytes(range(256)), b"y" * 300, bytearray(), bytearray(b"abc\xff"))
    yield from ([], [1], [1, 2, None], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": 1})
    yield {"a": [1, (2, {"b": {3, 4}})], 5: frozenset("xy"), (6,): None, b"7": 8.0}
    yield from (set(), {1}, {1, "two", 3.0}, frozenset(), frozenset([1]), {frozenset([(), 1])})
    yield [shared, shared, {"again": shared}, (shared, shared)]
    yield [(i,) for i in range(40)]
    yield ["same", "same", [], [], "same"]
    yield [[[[[[[[[[]]]]]]]]]]
    yield from (Ref(), [Ref(), Ref({"name": "x"})], {"queue": Ref(())})
    yield from cycles()


BY_HAND = [
    b"(lp0\nI1\na.",
    b"(dp0\nS'a'\np1\nI01\ns.",
    b"S'it\\'s \\x41 \\101 \\n'\n.",
    b'S"two"\n.',
    b"U\x03abc.",
    b"T\x03\0\0\0abc.",
    b"V\\u0041\\U0001f600\\\\u\n.",
    b"I-7\n.",
    b"L-123456789012345678901234567890L\n.",
    b"F1e-5\n.",
    b"]2a.",
    b"(N1N0(t.",
    b"\x80\x05\x97\x98\x97\x86.",
    b"\x80\x05\x97\x97\x98\x97\x98\x87.",
    b"\x80\x04\x95\x02\0\0\0\0\0\0\0N.",
    b"c__main__\nThing\n.",
    b"(i__main__\nThing\n.",
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x82\x01.",
    b"Pid\n.",
    b"]q\xff.",
    b"]r\xff\xff\xff\xff.",
    b"g0\n.",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    b"\x8b\xff\xff\xff\xff.",
    b"c__builtin__\nbytearray\n(V\xe9\nS'latin-1'\ntR.",
]


def seeds():
    buffers = [pickle.PickleBuffer(bytearray(b"abc")), pickle.PickleBuffer(b"def")]
    yield pickle.dumps(buffers, 5, buffer_callback=[].append)
    yield from BY_HAND
    for value in plain():
        for protocol in range(6):
            yield pickle.dumps(value, protocol)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        if len(seed) < 2048:
            (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
