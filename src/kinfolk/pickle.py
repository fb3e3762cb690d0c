"""Pickling for sending: the standard pickle, and what it refuses.

The names are those of the standard library's `pickle`, with the additions of
cloudpickle, and mean the same.  What is different:

    Functions and classes that the receiver cannot import travel by value:
    lambdas, closures, what is defined in the main program or while it runs
    (docs/by-value.md).  `by_value=False` gives the standard library's refusal.

    What cannot travel at all raises, as it does there, an error of the same
    type; its message also says where in the object the culprit is, and what
    could be done (kinfolk._culprit).

What can be imported, and plain data, becomes a pickle of protocol 5 that any
unpickler loads; for what travelled by value it must be able to import kinfolk.

Pickler and unpickler are C: kinfolk._kin, ext/pickle (docs/pickle.md).
"""

from _pickle import PickleBuffer, PickleError, PicklingError, UnpicklingError

from ._findable import (
    list_registry_pickle_by_value,
    register_pickle_by_value,
    unregister_pickle_by_value,
)
from ._kin import Pickler, Unpickler, dump, dumps, load, loads
from ._mainnames import expect_fresh_member

__all__ = [
    "CloudPickler",
    "DEFAULT_PROTOCOL",
    "HIGHEST_PROTOCOL",
    "PickleBuffer",
    "PickleError",
    "Pickler",
    "PicklingError",
    "Unpickler",
    "UnpicklingError",
    "dump",
    "dumps",
    "expect_fresh_member",
    "explain_failure",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]

HIGHEST_PROTOCOL = 5
DEFAULT_PROTOCOL = 5

#: cloudpickle's name for it.
CloudPickler = Pickler


def explain_failure(error, obj, root="obj", *, parts=None):
    """Have `error`, which pickling raised, call what was pickled by a better name.

    obj    what was pickled, and `root` what the caller calls it
    parts  in place of them: a mapping from names to things, for a path that begins with one
           of the names (`args[0].sinks[2]._lock`)

    Returns `error`, the same object.  Does nothing if none of them is on the way to the culprit.
    """
    from . import _culprit

    return _culprit.rename(error, {root: obj} if parts is None else parts)
