"""Write the seeds of the corpus, from what the standard library writes.

    python tests/fuzz/make_corpus.py [FOLDER]

What the fuzzer found worth keeping is put beside them by hand, after `-merge=1`.
"""

import collections
import hashlib
import pathlib
import pickle
import sys

import harmless

FOLDER = pathlib.Path(__file__).parent / "corpus"


def things():
    shared, cycle = ["shared"], []
    cycle.append({"cycle": (cycle, 1)})
    plain = harmless.Plain()
    plain.a, plain.b = 1, [plain]
    slotted = harmless.Slotted()
    slotted.a = (1, 2)
    newargs = harmless.Newargs(1, 2)
    listed = harmless.MyList([1, 2])
    listed.attribute = 1
    yield from (None, True, 1, -1, 255, 65536, -(2**31), 2**70, -(2**2050), 1.5, float("nan"), 2j)
    yield from ("", "abc", "é\u4e2d", "\ud800", "a\nb\\", "x" * 300, b"", b"abc\n'", b"x" * 300)
    yield from (bytearray(b"abc"), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], {}, {"a": 1})
    yield from ({1, 2}, frozenset("ab"), [shared, shared, (shared, shared)], cycle, [[]] * 5)
    yield from (list(range(1100)), {i: str(i) for i in range(1100)}, [[[[[]]]]], ("same", "same"))
    yield from (plain, slotted, newargs, listed, harmless.MyDict(a=1), harmless.MyTuple((1,)))
    yield from (harmless.MyStr("abc"), harmless.Outer.Inner, harmless.Outer.Inner(), harmless.pair)
    yield from (collections.OrderedDict(a=1), ValueError(1), list, int, slice(1, 2, 3))


def by_hand():
    yield from (b"", b".", b"N", b"N.N.", b"\x80\x05", b"\x80\x06N.", b"0.", b"N0.", b"(.", b"1.")
    yield from (
        b"]2\x86.",
        b"](K\x01e.",
        b"}(K\x01K\x02u.",
        b"\x8f(K\x01\x90.",
        b"(K\x01l.",
        b"(d.",
    )
    yield from (b"I01\n.", b"I00\n.", b"I12\n.", b"L12L\n.", b"F1.5\n.", b"S'abc'\n.", b"Vabc\n.")
    yield from (
        b"T\x03\x00\x00\x00abc.",
        b"U\x03abc.",
        b"\x8a\x01\xff.",
        b"\x8b\x01\x00\x00\x00\x01.",
    )
    yield from (b"(ccollections\nOrderedDict\no.", b"(icollections\nOrderedDict\n.")
    yield from (b"c__builtin__\nlist\n)R.", b"c__builtin__\nlist\n)\x81.", b"Pid\n.", b"K\x01Q.")
    yield from (b"charmless\nPlain\n)\x81}U\x01aK\x01sb.", b"charmless\nBag\n)R(K\x01K\x02e.")
    yield from (
        b"charmless\nNewargs\n)}\x92.",
        b"charmless\nSetstate\n)R]b.",
        b"\x97.",
        b"\x97\x98.",
    )
    yield from (
        b"Np0\n0g0\n.",
        b"Nq\x000h\x00.",
        b"Nr\x00\x00\x00\x000j\x00\x00\x00\x00.",
        b"g0\n.",
    )
    yield from (b"\x82\x01.", b"\x83\x01\x00.", b"\x84\x01\x00\x00\x00.", b"\x80\x04N\x94.")
    # asking for much in few bytes
    yield from (b"Nr\xff\xff\xff\x7f.", b"Np999999999999\n.", b"\x96" + b"\xff" * 7 + b"\x7f.")
    yield from (
        b"\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x8d" + b"\xff" * 8 + b".",
        b"B\xff\xff\xff\xff.",
    )
    yield from (
        b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
        b"\x8b\xff\xff\xff\x7f.",
        b"L" + b"9" * 5000 + b"L\n.",
    )


def pickles():
    yield from by_hand()
    for thing in things():
        for protocol in (2, 5) if isinstance(thing, harmless.Slotted) else (0, 2, 5):
            yield pickle.dumps(thing, protocol)
    given = []
    yield pickle.dumps(
        [pickle.PickleBuffer(bytearray(b"abc"))] * 2, 5, buffer_callback=given.append
    )


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(exist_ok=True)
    for data in pickles():
        if len(data) <= 4096:
            name = hashlib.sha1(data).hexdigest()[:16]
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
