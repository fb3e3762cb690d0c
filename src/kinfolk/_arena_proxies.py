"""What lies between a proxy and an object in the arena: its name, and its manager's life.

Such an object is named by its token's ident, a text that any peer can carry:

    arena.TYPEID.OBJECT.LIFE.MORE

OBJECT and LIFE are refs, in hex, of the object and of a piece of the arena whose first byte says
that the manager was shut down.  MORE is what its type wants to know besides (_arena_types).
A member of the family opens it; the server opens it for whoever else has it
(Server._entry), as long as somebody in the family holds the object.
"""

import errno
import weakref
from traceback import format_exc
from typing import NamedTuple

from . import _kin
from ._arena_types import TYPES, Type
from ._manager_wire import RemoteError

__all__ = ["Backing", "Life", "create", "is_named", "open_named"]

_PREFIX = "arena."


class Life:
    """Whether a manager was shut down, for all of its family to see."""

    _known = weakref.WeakValueDictionary()

    def __init__(self, memory=None):
        self.memory = memory or _kin.Memory(1)
        self.ended = memoryview(self.memory)
        self._known[self.memory.ref] = self

    @classmethod
    def named(cls, ref):
        """The one with this ref."""
        return cls._known.get(ref) or cls(_kin._open(_kin.Memory, ref))

    def end(self):
        """Have every proxy refuse from now on."""
        self.ended[0] = 1

    def check(self):
        """Raise what a socket does whose peer has gone, if the manager was shut down."""
        if self.ended[0]:
            raise BrokenPipeError(errno.EPIPE, "the manager was shut down")


class Backing(NamedTuple):
    """What a proxy has of its object: a handle, and what the calls of its type are given."""

    handle: object
    target: object
    type: Type
    life: Life

    def mention(self):
        """Have the message that is just being pickled hold what our ident names."""
        self.handle.__reduce__()
        self.life.memory.__reduce__()
        if isinstance(self.handle, _kin.Condition):
            self.handle._lock.__reduce__()


def create(typeid, life, args, kwds):
    """Make an object; return its ident and a handle, to be kept until the ident was opened.

    None if it must live in the server.  Wrong arguments are a RemoteError, as from there; what
    cannot be pickled raises as it is.
    """
    life.check()
    try:
        made = TYPES[typeid].make(*args, **kwds)
    except Exception:
        raise RemoteError(format_exc()) from None
    if made is None:
        return None
    make, more = made
    handle = make()
    return f"{_PREFIX}{typeid}.{handle.ref.hex()}.{life.memory.ref.hex()}.{more}", handle


def is_named(ident):
    """Whether an ident is of an object in an arena."""
    return ident.startswith(_PREFIX)


def open_named(ident):
    """The Backing that an ident names; None if that is of another family, or has gone."""
    try:
        _prefix, typeid, ref, life, more = ident.split(".", 4)
        its_type = TYPES[typeid]
        handle = _kin._open(its_type.kind, bytes.fromhex(ref))
        life = Life.named(bytes.fromhex(life))
        target = its_type.wrap(handle, more, life) if its_type.wrap else handle
    except (RuntimeError, ValueError, TypeError, KeyError):
        return None
    return Backing(handle, target, its_type, life)
