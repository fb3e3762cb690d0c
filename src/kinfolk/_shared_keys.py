"""Keys of a SharedDict that are neither numbers, strings, bytes, None nor tuples of those.

A key has to mean the same in every process, so what counts is what it is, in bytes, and not its
hash or identity.  That can be told of the types below; all others are refused.
"""

import datetime
import decimal
import enum
import fractions
import operator
import pathlib
import types
import uuid
from dataclasses import fields, is_dataclass

__all__ = ["encode"]

_BY_NAME = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_AS_THEY_ARE = (datetime.date, datetime.timedelta, uuid.UUID)


def encode(key):
    """Bytes that are equal just for keys that are; or a simpler key that `key` equals.

    TypeError if that can't be told of keys of its type.
    """
    if isinstance(key, enum.Enum):
        return _bytes("enum", type(key), key.name)
    if isinstance(key, _BY_NAME):
        return _bytes("name", key)
    if isinstance(key, (decimal.Decimal, fractions.Fraction)):
        return _number(key)
    if isinstance(key, complex):
        return key.real if key.imag == 0 else _bytes("complex", key.real, key.imag)
    if isinstance(key, frozenset):
        return _bytes("set", *sorted(_told(_plain(item)) for item in key))
    if isinstance(key, pathlib.PurePath):
        return _bytes("path", type(key), str(key))
    if isinstance(key, (datetime.datetime, datetime.time)):
        return _moment(key)
    if isinstance(key, _AS_THEY_ARE):
        return _bytes("value", key)
    if _is_frozen_dataclass(key):
        compared = (getattr(key, field.name) for field in fields(key) if field.compare)
        return _bytes("dataclass", type(key), *map(_plain, compared))
    if hasattr(key, "__index__") and key == operator.index(key):  # numpy's integers
        return operator.index(key)
    raise TypeError(
        f"{type(key).__name__} can't be a key of a SharedDict: whether two of them are equal could "
        "not be told in another process.  Use a str, a number, a tuple, an enum, a frozen dataclass"
    )


def _bytes(*parts):
    """What the parts are, and not which objects: a pickle of equal parts may differ."""
    told = [_told(part) for part in parts]
    return b"".join(len(each).to_bytes(4, "little") + each for each in told)


def _told(part):
    if isinstance(part, bytes):
        return b"b" + part
    if isinstance(part, tuple):
        return b"t" + _bytes(*part)
    if isinstance(part, types.ModuleType):
        return b"m" + part.__name__.encode()
    if isinstance(part, _BY_NAME):
        if "<locals>" in part.__qualname__:
            raise TypeError(f"{part.__qualname__!r} can't be in a key of a SharedDict: no other "
                            "process could find it by its name")  # fmt: skip
        return b"n" + f"{part.__module__}:{part.__qualname__}".encode()
    return b"r" + f"{type(part).__name__}:{part!r}".encode("utf-8", "surrogatepass")


def _plain(key):
    """A key inside of another one."""
    if type(key) in (int, str, bytes, type(None)):
        return key
    if isinstance(key, tuple):
        return tuple(map(_plain, key))
    if isinstance(key, (int, float)):
        return int(key) if key == key and abs(key) != float("inf") and key == int(key) else key
    if isinstance(key, (str, bytes)):
        return (str if isinstance(key, str) else bytes)(key)
    return encode(key)


def _number(key):
    if key != key or abs(key) == float("inf"):
        return float(key)
    if key == int(key):
        return int(key)
    if key == float(key):
        return float(key)
    return _bytes("ratio", *key.as_integer_ratio())


def _moment(key):
    """Those that know their time zone are equal if they mean the same moment."""
    if key.utcoffset() is None:
        return _bytes("moment", type(key).__name__, key.replace(fold=0, tzinfo=None).isoformat())
    if isinstance(key, datetime.time):
        naive = key.replace(fold=0, tzinfo=None)
        return _bytes("moment", "aware time", naive.isoformat(), key.utcoffset())
    moment = key.replace(fold=0).astimezone(datetime.timezone.utc)
    return _bytes("moment", "aware", moment.replace(tzinfo=None).isoformat())


def _is_frozen_dataclass(key):
    if not is_dataclass(key) or isinstance(key, type):
        return False
    how = type(key).__dataclass_params__
    return how.frozen and how.eq
