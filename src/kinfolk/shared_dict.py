"""SharedDict: a dict that all processes of a family see, without a server.

It lives in the family's arena (ext/shared_dict.c over libkin/src/table).  Each of its methods is one
step for all others, but update(), which puts one item in after the other; a process that is killed
in the middle of one leaves the dict as it was before or as it is after it.

Keys and values are pickled: what is taken out is a copy, and to change it changes nothing here.  Put a
SharedDict or a SharedList in where that is wanted: those travel as what they are.  `d[key] += 1` is
two steps; `d.compute(key, lambda n: n + 1, 0)` is one.

Keys are equal as they are in a dict.  Of objects that are not numbers, strings, bytes, None, tuples,
enums, frozen dataclasses and the like nobody could say so in another process: TypeError.
"""

import types
from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView

from . import _kin

__all__ = ["SharedDict"]

_KEYS, _VALUES, _ITEMS = range(3)


class SharedDict(_kin.SharedDict):
    """SharedDict(mapping_or_pairs=(), /, **items): a dict in the family's memory.

    It can be pickled at any time, and is the same dict wherever it comes.  Its order is that in which
    the keys were put in.  Iterating over it meets every item that is there all the time, none twice,
    and never ends in an error because others change it meanwhile.
    """

    __slots__ = ("__dict__",)
    __hash__ = None

    def __init__(self, /, *args, **items):
        super().__init__()
        self.update(*args, **items)

    @classmethod
    def fromkeys(cls, keys, value=None, /):
        """A new one with these keys, each with the same value."""
        return cls((key, value) for key in keys)

    def update(self, other=(), /, **items):
        """Put the items of a mapping, or of an iterable of pairs, in; then those by name."""
        if isinstance(other, (Mapping, _kin.SharedDict)):
            pairs = other.items()
        elif hasattr(other, "keys"):
            pairs = ((key, other[key]) for key in other.keys())  # noqa: SIM118
        else:
            pairs = other
        for key, value in pairs:
            self[key] = value
        for key, value in items.items():
            self[key] = value

    def compute(self, key, function, default=None, /):
        """Put function(value) in place of the key's value, in one step, and return it.

        `function` gets `default` if there is no such key.  It is called without anything locked, and
        again if the value was changed meanwhile: so it is to have no other effect.
        """
        while True:
            value, serial = self._look(key) or (default, None)
            value = function(value)
            if self._put_if(key, value, serial):
                return value

    def keys(self):
        """A view of the keys."""
        return _Keys(self)

    def values(self):
        """A view of the values."""
        return _Values(self)

    def items(self):
        """A view of the pairs of key and value."""
        return _Items(self)

    def __reversed__(self):
        return self._iterate(_KEYS, True)

    def copy(self):
        """A plain dict of the items."""
        return dict(self.items())

    def __eq__(self, other):
        if self is other:
            return True
        if isinstance(other, _kin.SharedDict):
            return self.copy() == other.copy()
        return self.copy() == other if isinstance(other, Mapping) else NotImplemented

    def __or__(self, other):
        if not isinstance(other, (Mapping, _kin.SharedDict)):
            return NotImplemented
        return {**self.copy(), **other}

    def __ror__(self, other):
        if not isinstance(other, (Mapping, _kin.SharedDict)):
            return NotImplemented
        return {**other, **self.copy()}

    def __ior__(self, other):
        self.update(other)
        return self

    def __repr__(self):
        return f"{type(self).__name__}({self.copy()!r})"

    __class_getitem__ = classmethod(types.GenericAlias)


class _Keys(KeysView):
    def __iter__(self):
        return iter(self._mapping)

    def __reversed__(self):
        return self._mapping._iterate(_KEYS, True)


class _Values(ValuesView):
    def __iter__(self):
        return self._mapping._iterate(_VALUES, False)

    def __reversed__(self):
        return self._mapping._iterate(_VALUES, True)

    def __contains__(self, value):
        return any(value is each or value == each for each in self)


class _Items(ItemsView):
    def __iter__(self):
        return self._mapping._iterate(_ITEMS, False)

    def __reversed__(self):
        return self._mapping._iterate(_ITEMS, True)

    def __contains__(self, item):
        key, value = item
        found = self._mapping._look(key)
        return found is not None and (found[0] is value or found[0] == value)


MutableMapping.register(SharedDict)
