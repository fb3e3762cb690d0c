"""SharedList: a list that all processes of a family see, without a server.

As kinfolk.shared_dict has it: each method is one step for all others, items are pickled, what is
taken out is a copy.  Items come and go at both ends quickly; insert(), del and slices in the middle
cost a walk over the list, as does what compares items (index, count, remove, sort).
"""

import types
from collections.abc import MutableSequence
from functools import total_ordering

from . import _kin

__all__ = ["SharedList"]


@total_ordering
class SharedList(_kin.SharedList):
    """SharedList(iterable=(), /): a list in the family's memory.

    It can be pickled at any time, and is the same list wherever it comes.  Iterating goes from index
    to index, as with a list, and never ends in an error because others change it meanwhile.
    """

    __slots__ = ("__dict__",)
    __hash__ = None

    def __init__(self, values=(), /):
        super().__init__()
        self.extend(values)

    def copy(self):
        """A plain list of the items, as they are at one moment."""
        return self._values()[0]

    def _get_slice(self, index):
        if index.step in (None, 1):
            start = 0 if index.start is None else index.start
            return (
                self._values(start)[0] if index.stop is None else self._values(start, index.stop)[0]
            )
        return self.copy()[index]

    def _set_slice(self, index, value):
        values = list(value)
        fresh = [-1 - i for i in range(len(values))]
        self._reorder(lambda order: order.__setitem__(index, fresh), values)

    def _delete_slice(self, index):
        self._reorder(lambda order: order.__delitem__(index))

    def _reorder(self, change, values=()):
        """Rearrange the items as `change` does with a list of their indices."""
        values = list(values)
        while True:
            version = self._version()
            order = list(range(len(self)))
            change(order)
            if self._rearrange(order, values, version):
                return

    def _version(self):
        return self._values(0, 0)[1]

    def __iter__(self):
        index = 0
        while True:
            try:
                value = self[index]
            except IndexError:
                return
            yield value
            index += 1

    def __reversed__(self):
        for index in range(len(self) - 1, -1, -1):
            try:
                value = self[index]
            except IndexError:  # it has become shorter
                continue
            yield value

    def __contains__(self, value):
        return value in self.copy()

    def index(self, value, start=0, stop=None, /):
        """The first index, from `start` to before `stop`, with an item that equals `value`."""
        values = self.copy()
        return values.index(value, start, len(values) if stop is None else stop)

    def count(self, value, /):
        """How many items equal `value`."""
        return self.copy().count(value)

    def remove(self, value, /):
        """Take out the first item that equals `value`.  ValueError if there is none."""
        while True:
            values, version = self._values()
            try:
                index = values.index(value)
            except ValueError:
                raise ValueError("list.remove(x): x not in list") from None
            order = [i for i in range(len(values)) if i != index]
            if self._rearrange(order, [], version):
                return

    def clear(self):
        """Take everything out."""
        self._rearrange([], [], None)

    def reverse(self):
        """Turn the order round."""
        self._reorder(list.reverse)

    def sort(self, /, *, key=None, reverse=False):
        """Sort the items; again, if others changed the list meanwhile."""
        while True:
            values, version = self._values()
            by = values if key is None else [key(value) for value in values]
            order = sorted(range(len(values)), key=by.__getitem__, reverse=reverse)
            if self._rearrange(order, [], version):
                return

    def __add__(self, other):
        return self.copy() + _plain(other) if _is_list(other) else NotImplemented

    def __radd__(self, other):
        return other + self.copy() if isinstance(other, list) else NotImplemented

    def __iadd__(self, other):
        self.extend(other)
        return self

    def __mul__(self, times):
        return self.copy() * times

    __rmul__ = __mul__

    def __imul__(self, times):
        while True:
            values, version = self._values()
            if times <= 0:
                done = self._rearrange([], [], version)
            else:
                more = values * (times - 1)
                order = [*range(len(values)), *(-1 - i for i in range(len(more)))]
                done = self._rearrange(order, more, version)
            if done:
                return self

    def __eq__(self, other):
        return self.copy() == _plain(other) if _is_list(other) else NotImplemented

    def __lt__(self, other):
        return self.copy() < _plain(other) if _is_list(other) else NotImplemented

    def __repr__(self):
        return f"{type(self).__name__}({self.copy()!r})"

    __class_getitem__ = classmethod(types.GenericAlias)


def _is_list(other):
    return isinstance(other, (list, _kin.SharedList))


def _plain(other):
    return other if isinstance(other, list) else other.copy()


MutableSequence.register(SharedList)
