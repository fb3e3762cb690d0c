#!/usr/bin/env python3
"""kinfolk's Unpickler on hostile bytes, beside the standard library's.

    make fuzz-python                        build with coverage and ASan, and run for a minute
    make fuzz-python ARGS=-max_total_time=3600
    python tests/fuzz/fuzz_unpickler.py FILE ...      what one input does, without atheris

Each input is loaded by a subclass whose find_class knows harmless names only, by `loads` itself (an
audit hook sees to the names), with other options, and from files that give little at a
time.  The first two are compared with what the standard library makes of the input: both
fail, or both make the same graph.  tests/api/test_fuzz_corpus.py runs the corpus.

The standard library takes any size that a pickle asks for; inputs which ask for more than
they could justify are not given to it.  kinfolk has to manage: the fuzzer runs under
a limit for a single allocation.
"""

import io
import pickle
import pickletools
import sys

import harmless

import kinfolk.pickle as kpickle

__all__ = ["check"]

MOST_INDEX = 1 << 20  # the standard library's memo is an array
MOST_REPEATS = 24  # of one thing in another: what hashes it takes 2 ** so many steps
GIVING_UP = (RecursionError, MemoryError)  # where one gives up, the other may not


class Ours(kpickle.Unpickler):
    def find_class(self, module, name):
        return harmless.allowed(module, name)

    def persistent_load(self, pid):
        return "persistent", pid


class Theirs(pickle.Unpickler):
    find_class = Ours.find_class
    persistent_load = Ours.persistent_load


class Pieces:
    """A file that gives little at a time, and has neither peek nor readinto."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, size=-1):
        return self.file.read(size)

    def readline(self):
        return self.file.readline()


def audit(event, args):
    if event == "pickle.find_class" and guarded:
        harmless.allowed(*args)


guarded = False
sys.addaudithook(audit)


def check(data):
    """Raises AssertionError where the two differ.  Crashes and hangs are for the fuzzer to see."""
    if repeats(data) > MOST_REPEATS:
        return
    buffers = [b"first", bytearray(b"second")]
    by_subclass = outcome(lambda: Ours(io.BytesIO(data), buffers=buffers).load())
    by_loads = guarded_outcome(lambda: kpickle.loads(data, buffers=buffers))
    outcome(lambda: Ours(Pieces(data), encoding="bytes", buffers=iter(buffers)).load())
    outcome(lambda: Ours(io.BytesIO(data), fix_imports=False, encoding="latin-1").load())
    guarded_outcome(lambda: kpickle.load(io.BufferedReader(io.BytesIO(data), 16)))
    if asks_for_too_much(data):
        return
    compare(by_loads, guarded_outcome(lambda: pickle.loads(data, buffers=buffers)))
    if not any(name == "FRAME" for name, _ in opcodes(data)[0]):
        # where a line crosses the end of a frame in a file, the standard library loses its beginning
        compare(by_subclass, outcome(lambda: Theirs(io.BytesIO(data), buffers=buffers).load()))


def compare(ours, theirs):
    if any(isinstance(error, GIVING_UP) for error in (ours[1], theirs[1])):
        return
    assert (ours[1] is None) == (theirs[1] is None), f"kinfolk: {ours}\npickle:  {theirs}"
    if ours[1] is None:
        where = difference(ours[0], theirs[0])
        assert where is None, f"they differ: {where}"


def guarded_outcome(load):
    global guarded
    guarded = True
    try:
        return outcome(load)
    finally:
        guarded = False


def outcome(load):
    try:
        return load(), None
    except Exception as error:
        return None, error


def opcodes(data):
    """As far as pickletools can read them, and where that is."""
    found, end = [], 0
    try:
        for opcode, argument, place in pickletools.genops(data):
            found.append((opcode.name, argument))
            end = place + 1
    except Exception:  # an unpickler may be less strict, and go on
        return found, end
    return found, len(data)


def repeats(data):
    found, end = opcodes(data)
    again = ("DUP", "GET", "BINGET", "LONG_BINGET")
    rest = data[end:]
    return sum(name in again for name, _ in found) + sum(rest.count(code) for code in b"2ghj")


def asks_for_too_much(data):
    found, end = opcodes(data)
    if any("PUT" in name and argument > MOST_INDEX for name, argument in found):
        return True
    # behind what could be read, anything may be an operation with a size or an index
    for place in range(end, len(data)):
        if data[place] in b"\x8e\x8d\x96" and little_endian(data, place, 8) > len(data):
            return True
        if data[place] in b"BXT\x8br" and little_endian(data, place, 4) > len(data):
            return True
        if data[place] in b"p" and len(data[place:].partition(b"\n")[0]) > 6:
            return True
    return False


def little_endian(data, place, size):
    return int.from_bytes(data[place + 1 : place + 1 + size], "little")


ATOMS = (type(None), bool, int, float, complex, str, bytes, bytearray, type(...), slice)


def difference(a, b):
    """Where two graphs differ, or None.  Elements of sets are only counted: they may be unequal to
    themselves."""
    ours, theirs, todo = {}, {}, [(a, b, "it")]
    while todo:
        a, b, where = todo.pop()
        if type(a) is not type(b):
            return f"{where}: {type(a)}, {type(b)}"
        if type(a) in ATOMS:
            if repr(a)[:200] != repr(b)[:200] and a != b:
                return f"{where}: {a!r:.80}, {b!r:.80}"
            continue
        if isinstance(a, type) or callable(a):
            if a is not b:
                return f"{where}: {a}, {b}"
            continue
        if a == () and b == () and type(a) is tuple:
            continue
        met = ours.get(id(a)), theirs.get(id(b))
        if met != (None, None):
            if met[0] is None or met[1] is None or met[0][1] is not b or met[1][1] is not a:
                return f"{where}: shared in one only"
            continue
        ours[id(a)], theirs[id(b)] = (a, b), (b, a)
        pairs = list(parts(a, b, where))
        if None in pairs:
            return f"{where}: other parts"
        todo += pairs
    return None


def parts(a, b, where):
    for kind in (list, tuple, dict):
        if isinstance(a, kind):
            if len(a) != len(b):
                yield None
            each = zip(kind.__iter__(a), kind.__iter__(b))
            yield from ((x, y, f"{where}[{i}]") for i, (x, y) in enumerate(each))
    if isinstance(a, dict):
        each = zip(dict.values(a), dict.values(b))
        yield from ((x, y, f"{where}{{{i}}}") for i, (x, y) in enumerate(each))
    if isinstance(a, (set, frozenset, str)) and len(a) != len(b):
        yield None
    if isinstance(a, BaseException):
        yield a.args, b.args, f"{where}.args"
    if hasattr(a, "__dict__") and not isinstance(a, type):
        yield vars(a), vars(b), f"{where}.__dict__"
    if isinstance(a, harmless.Slotted):
        for name in ("a", "b"):
            yield getattr(a, name, None), getattr(b, name, None), f"{where}.{name}"


def main():
    if len(sys.argv) > 1 and not any(word.startswith("-") for word in sys.argv[1:]):
        for name in sys.argv[1:]:
            with open(name, "rb") as file:
                data = file.read()
            print(name, outcome(lambda data=data: Ours(io.BytesIO(data)).load()))
            check(data)
        return
    import atheris

    atheris.Setup(sys.argv, check, enable_python_coverage=False)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
