"""What a class consists of: what it takes to make it, and what is put into it afterwards.

Most of a class is its `__dict__`.  Some entries are made with the class and must
not be sent (slots, `__dict__`, the tables of an abstract class); two things
must be there when it is made (`__slots__`, the qualified name).

An enum needs more: its members are made with it, because whatever refers to one
looks it up in the class as soon as the class exists.  The tables in which an
enum keeps its members are left to the enum machinery of the receiver; every
other entry is sent as it is.
"""

import sys
import types

from . import _rebuild

__all__ = ["class_parts", "creation_of"]

_MADE_WITH_CLASS = frozenset(
    ("__dict__", "__weakref__", "_abc_impl", "__slots__", "__annotations_cache__")
)

_ENUM_TABLES = frozenset(
    (
        "_member_names_",
        "_member_map_",
        "_value2member_map_",
        "_hashable_values_",
        "_unhashable_values_",
        "_unhashable_values_map_",
    )
)

#: What the enum machinery puts into a class because of our makers of members.
_ENUM_MAKERS = ("__new__", "__init__", "__new_member__", "_new_member_", "__reduce_ex__")

#: What it puts into a member.
_MEMBER_FIELDS = frozenset(("_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"))


def is_enum(cls):
    """Whether `cls` is an enum.  Where nothing has imported `enum`, there are none."""
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(cls, enum.EnumMeta)


def creation_of(cls):
    """The function of kinfolk._rebuild that makes such a class, and its last arguments."""
    arguments = _metaclass_of(cls), cls.__name__, cls.__bases__, _body_of(cls)
    if not is_enum(cls):
        return _rebuild.class_, arguments
    options = {"boundary": cls._boundary_} if hasattr(cls, "_boundary_") else {}
    members = [(name, _member(member)) for name, member in cls._member_map_.items()]
    return _rebuild.enum, (*arguments, members, options)


def class_parts(cls):
    """The contents of a class: (attributes, classes registered with it, names to be removed)."""
    attributes = dict(vars(cls))
    for name, value in list(attributes.items()):
        if name in _MADE_WITH_CLASS or _is_slot(cls, value) or _is_ctypes_field(value):
            del attributes[name]
    dropped = ()
    if is_enum(cls):
        for name in (*_ENUM_TABLES, *cls._member_map_):
            attributes.pop(name, None)
        dropped = tuple(_makers_left(cls))
    return attributes, _registered(cls), dropped


def _metaclass_of(cls):
    """The metaclass, or the index of a base that has the same: some have no name to go by."""
    kinds = [type(base) for base in cls.__bases__]
    return kinds.index(type(cls)) if type(cls) in kinds else type(cls)


def _body_of(cls):
    """The part of the class body that must be there when the class is made."""
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    own = vars(cls)
    if "__slots__" in own:
        body["__slots__"] = _slots_of(cls)
    if "__orig_bases__" in own:
        body["__orig_bases__"] = ()  # Generic only asks whether there are any; they come later
    return body


def _slots_of(cls):
    slots = vars(cls)["__slots__"]
    if isinstance(slots, (str, tuple, list, dict)):
        return slots
    # An iterator, used up when the class was made.
    names = [name for name, value in vars(cls).items() if _is_slot(cls, value)]
    return [*names, *(name for name in ("__dict__", "__weakref__") if name in vars(cls))]


def _is_slot(cls, value):
    return isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls


def _is_ctypes_field(value):
    """Made by a ctypes structure from its `_fields_`."""
    return type(value).__name__ == "CField" and type(value).__module__ in ("_ctypes", "ctypes")


def _registered(cls):
    """The classes that an abstract class counts as its own by `register()`."""
    if "_abc_impl" not in vars(cls):
        return ()
    try:
        from _abc import _get_dump  # CPython only, and private: nothing else tells
    except ImportError:
        return ()
    found = (reference() for reference in _get_dump(cls)[0])
    return tuple(each for each in found if each is not None)


def _member(member):
    extra = {name: value for name, value in vars(member).items() if name not in _MEMBER_FIELDS}
    return _rebuild.Member(member._value_, _payload(member), extra)


def _payload(member):
    """What the data type of a mixed enum (`class E(str, Enum)`) is made of."""
    data_type = type(member)._member_type_
    if data_type is object:
        return ()
    if hasattr(data_type, "__getnewargs__"):
        return data_type.__getnewargs__(member)
    value = member._value_
    return value if isinstance(value, tuple) else (value,)


def _makers_left(cls):
    """The names that the new class will have and the original has not.

    An enum without members gets fewer; then there is nothing to remove.
    """
    own = vars(cls)
    return [name for name in _ENUM_MAKERS if name not in own]
