"""A Namespace, a Value and an Array, as a manager's server has them."""

import array

__all__ = ["Namespace", "Value", "Array"]


class Namespace:
    """An object with the attributes that it is given."""

    def __init__(self, /, **kwds):
        self.__dict__.update(kwds)

    def __repr__(self):
        public = sorted(
            f"{name}={value!r}" for name, value in self.__dict__.items() if not name.startswith("_")
        )
        return f"{type(self).__name__}({', '.join(public)})"


class Value:
    """A value that can be replaced.  `typecode` and `lock` are accepted as by kinfolk.Value."""

    def __init__(self, typecode, value, lock=True):
        self._typecode = typecode
        self._value = value

    def get(self):
        return self._value

    def set(self, value):
        self._value = value

    value = property(get, set)

    def __repr__(self):
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"


def Array(typecode, sequence, lock=True):
    """An array.array.  `lock` is accepted as by kinfolk.Array."""
    return array.array(typecode, sequence)
