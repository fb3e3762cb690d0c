"""What the pickles of the fuzzer may name: nothing that reaches out of the process, or takes long."""

import collections
import copyreg

__all__ = ["NAMES", "allowed"]


class Plain:
    pass


class Slotted:
    __slots__ = ("a", "b")


class Setstate:
    def __setstate__(self, state):
        self.state = state


class Newargs:
    def __new__(cls, *args, **options):
        self = super().__new__(cls)
        self.args, self.options = args, options
        return self


class Bag:
    """Takes items, but is no list."""

    def __init__(self, *items):
        self.items = list(items)

    def append(self, item):
        self.items.append(item)

    def extend(self, items):
        self.items.extend(items)


class Appends:
    """Takes items one at a time."""

    def __init__(self):
        self.items = []

    def append(self, item):
        self.items.append(item)


class Pairs:
    def __init__(self):
        self.pairs = []

    def __setitem__(self, key, value):
        self.pairs.append((key, value))


class Adds(set):
    def add(self, item):
        super().add(len(self))


class MyList(list):
    pass


class MyDict(dict):
    pass


class MyTuple(tuple):
    pass


class MyStr(str):
    pass


class Raises:
    def __init__(self, *args):
        raise ValueError

    def __setstate__(self, state):
        raise KeyError


def pair(*args):
    return args


class Outer:
    class Inner:
        pass


HERE = [
    *(Plain, Slotted, Setstate, Newargs, Bag, Appends, Pairs, Adds, MyList, MyDict, MyTuple),
    *(MyStr, Raises, pair, Outer, Outer.Inner),
]
BUILTINS = [list, dict, set, frozenset, tuple, str, int, float, complex, object, ValueError, slice]
OTHERS = [collections.OrderedDict, copyreg._reconstructor]

NAMES = {(one.__module__, one.__qualname__): one for one in HERE + BUILTINS + OTHERS}
#: As pickles of Python 2 call them.
NAMES.update({("__builtin__", one.__name__): one for one in BUILTINS})
NAMES["__builtin__", "unicode"] = str
NAMES["__builtin__", "long"] = int
NAMES["copy_reg", "_reconstructor"] = copyreg._reconstructor


def allowed(module, name):
    try:
        return NAMES[module, name]
    except (KeyError, TypeError):
        raise ImportError("not for the fuzzer") from None
