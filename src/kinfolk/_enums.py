"""Enums by value: what ext/pickle/by_value_class.c and by_value_class_make.c leave to Python.

The members of an enum are made with it, because whatever refers to one looks it up
in the class as soon as the class exists.  The tables in which an enum keeps them are left to
the enum machinery of the receiver; every other entry is sent as it is.

Called once for each sending or making of an enum, hence in Python.
"""

__all__ = ["Member", "creation", "make", "prune"]

_TABLES = frozenset(
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
_MAKERS = ("__new__", "__init__", "__new_member__", "_new_member_", "__reduce_ex__")

#: What it puts into a member.
_MEMBER_FIELDS = frozenset(("_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"))


class Member:
    """A member of an enum on its way: all that its making would have computed."""

    __slots__ = ("value", "payload", "extra")

    def __init__(self, value, payload, extra):
        self.value = value
        self.payload = payload
        self.extra = extra

    def __reduce__(self):
        return Member, (self.value, self.payload, self.extra)


# -- in the sender -------------------------------------------------------------------------------


def creation(cls):
    """What it takes to make the enum, besides what any class takes: (members, options)."""
    options = {"boundary": cls._boundary_} if hasattr(cls, "_boundary_") else {}
    return [(name, _member(member)) for name, member in cls._member_map_.items()], options


def prune(cls, attributes):
    """Take out of `attributes`, of an enum, what the receiver's enum machinery puts in.

    Returns the names that it will put in because of our makers, though the original has none.  (An
    enum without members gets fewer; then there is nothing to remove.)
    """
    for name in (*_TABLES, *cls._member_map_):
        attributes.pop(name, None)
    own = vars(cls)
    return tuple(name for name in _MAKERS if name not in own)


def _member(member):
    extra = {name: value for name, value in vars(member).items() if name not in _MEMBER_FIELDS}
    return Member(member._value_, _payload(member), extra)


def _payload(member):
    """What the data type of a mixed enum (`class E(str, Enum)`) is made of."""
    data_type = type(member)._member_type_
    if data_type is object:
        return ()
    if hasattr(data_type, "__getnewargs__"):
        return data_type.__getnewargs__(member)
    value = member._value_
    return value if isinstance(value, tuple) else (value,)


# -- in the receiver -----------------------------------------------------------------------------


def make(meta, name, bases, body, members, options):
    """Let the enum machinery build its tables, with makers that only put members together."""
    from enum import EnumMeta

    def __new__(cls, *wrapped):
        sent = wrapped
        while isinstance(sent, tuple):
            (sent,) = sent
        data_type = cls._member_type_
        made = data_type.__new__(cls, *sent.payload)
        made._value_ = sent.value
        made.__dict__.update(sent.extra)
        return made

    space = EnumMeta.__prepare__(name, bases)
    for key, value in body.items():
        space[key] = value
    space["__new__"] = __new__
    space["__init__"] = lambda self, *args: None
    for key, sent in members:
        space[key] = sent
    return EnumMeta.__new__(meta, name, bases, space, **options)
