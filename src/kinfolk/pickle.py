"""Pickling for sending: the standard pickle, and what it refuses.

The names are those of the standard library's `pickle`, with the additions of
cloudpickle, and mean the same.  What is different:

    Functions and classes that the receiver cannot import travel by value:
    lambdas, closures, what is defined in the main program or while it runs
    (docs/by-value.md).  `by_value=False` gives the standard library's refusal.

    What cannot travel at all raises, as it does there, an error of the same
    type; its message also says where in the object the culprit is, and what
    could be done (kinfolk._culprit).

What can be imported, and plain data, is pickled to the same bytes as by the
standard library at protocol 5.  Any unpickler loads them; for what travelled by
value it must be able to import kinfolk.

It stands on the interpreter's own pickler, which asks `reducer_override` about
everything that is not plain data.  There a look at the type decides: functions,
classes, modules and a few small types have reducers, all else goes its usual
way.  Each object is asked for its state once.
"""

import _pickle
import copyreg
import functools
import io
from _pickle import PickleBuffer, PickleError, PicklingError, UnpicklingError
from types import FunctionType

from . import _kin
from ._findable import (
    list_registry_pickle_by_value,
    register_pickle_by_value,
    unregister_pickle_by_value,
)
from ._kin import Unpickler, load, loads
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

_SCALARS = frozenset((type(None), bool, int, float, str, bytes))


class _ByValuePickler(_pickle.Pickler):
    """The interpreter's pickler, with by-value reducers.  What `dumps` uses, one for each call."""

    #: Whether the receiver is a member of this program's family.  To kin, what every member has
    #: of the main program goes by name alone (kinfolk._mainnames).  A subclass may set it.
    kin = False
    by_value = True
    protocol = DEFAULT_PROTOCOL
    _homes = None
    _met = None  # id -> type, of those whose instances have been seen; they keep their addresses

    @property
    def homes(self):
        if self._homes is None:
            self._homes = {}
        return self._homes

    def reducer_override(self, obj):
        """The reduction of `obj` by value; NotImplemented where the standard one is right.

        A subclass that overrides it need not call it: where the override returns
        NotImplemented this one is asked.
        """
        kind = type(obj)
        if not self.by_value:
            return NotImplemented
        if kind not in (FunctionType, type) and kind in dispatch_table_of(self):
            return NotImplemented  # the program's own reducers come first
        reduced = _kin._reduce_by_value(obj, self.kin, self.homes, self.protocol)
        if reduced is NotImplemented and not issubclass(kind, (FunctionType, type)):
            met = self._met
            if met is None or id(kind) not in met:
                return self._meet(kind, obj)
        return reduced

    def _meet(self, kind, obj):
        """The first instance of `kind`: let a class that goes by value be written before it.

        The class's own value may lead to the instance, through a closure or a global.  The
        standard order, class after state, would then ask the instance for its state twice.
        """
        if self._met is None:
            self._met = {}
        self._met[id(kind)] = kind
        if not _kin._class_goes_by_value(kind, self.kin):
            return NotImplemented
        # This time round `obj` is written in the standard way, and what it was written as is then
        # taken for the outcome of this reduction, too.
        return _kin._instance, (kind, obj)


def dispatch_table_of(pickler):
    """Where `pickler` looks up the reducers that were registered for a type."""
    return getattr(pickler, "dispatch_table", copyreg.dispatch_table)


class Pickler(_ByValuePickler):
    """Writes pickles to `file`, as `pickle.Pickler` does.

    by_value   functions and classes that cannot be imported are pickled by value

    Subclasses may override `reducer_override`, `persistent_id` and
    `dispatch_table`, with the meaning that they have in the standard library.
    """

    def __init__(
        self, file, protocol=None, fix_imports=True, buffer_callback=None, *, by_value=True
    ):
        super().__init__(
            file, DEFAULT_PROTOCOL if protocol is None else protocol, fix_imports, buffer_callback
        )
        if not by_value:
            self.by_value = False
        if protocol is not None:
            self.protocol = protocol if protocol >= 0 else HIGHEST_PROTOCOL

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        override = _override_in(cls)
        if override is not None:
            cls.reducer_override = _with_fallback(override)

    def dump(self, obj):
        """Write the pickle of `obj`.

        Raises what keeps it from being pickled, with the path to it in the message.
        """
        try:
            super().dump(obj)
        except Exception as error:
            explain_failure(error, obj, pickler=self)
            raise


def explain_failure(error, obj, root="obj", *, parts=None, pickler=None):
    """Say in `error`, which pickling `obj` raised, where in it the culprit is.  Returns `error`.

    root     what the caller calls `obj`
    parts    in place of `obj`: a mapping from names to objects, for a path that begins with one of
             the names (`args[0].sinks[2]._lock`)
    pickler  the pickler that failed; by default one of this module

    Keeps the error's type and identity.  An error that was explained before is explained anew: the
    caller further out knows better names.
    """
    from . import _culprit

    return _culprit.explain(
        error, parts if parts is not None else {root: obj}, pickler or Pickler(io.BytesIO())
    )


#: cloudpickle's name for it.
CloudPickler = Pickler


def _override_in(cls):
    """The `reducer_override` that a subclass brings along, unless it is taken care of.

    Also one from a base that comes after ours: the standard library's pickler has
    none that could hide it.
    """
    for base in cls.__mro__:
        override = vars(base).get("reducer_override")
        if isinstance(override, FunctionType) and override is not _ByValuePickler.reducer_override:
            return None if hasattr(override, _FALLS_BACK) else override
    return None


_FALLS_BACK = "__falls_back_to_by_value__"


def _with_fallback(override):
    @functools.wraps(override)
    def reducer_override(self, obj):
        reduced = override(self, obj)
        return _ByValuePickler.reducer_override(self, obj) if reduced is NotImplemented else reduced

    setattr(reducer_override, _FALLS_BACK, True)
    return reducer_override


def dumps(obj, protocol=None, buffer_callback=None, *, fix_imports=True, by_value=True, kin=False):
    """The pickle of `obj`, as bytes.

    protocol         0 to 5, negative for the highest; None: DEFAULT_PROTOCOL
    buffer_callback  called with each PickleBuffer; where it returns false the buffer is left
                     out of the pickle, and to be given to `loads`
    fix_imports      names as in Python 2, for protocols below 3
    by_value         pickle by value what cannot be imported
    kin              the receiver is a member of this program's family: names that every member
                     has in the main program suffice

    Raises PicklingError, TypeError or AttributeError, with the path to what cannot be pickled, and
    whatever the reducers of the objects raise.
    """
    if type(obj) in _SCALARS:
        return _pickle.dumps(
            obj, DEFAULT_PROTOCOL if protocol is None else protocol, fix_imports=fix_imports
        )
    file = io.BytesIO()
    _dump(obj, file, protocol, buffer_callback, fix_imports, by_value, kin)
    return file.getvalue()


def dump(
    obj, file, protocol=None, buffer_callback=None, *, fix_imports=True, by_value=True, kin=False
):
    """Write the pickle of `obj` to `file`; the other arguments are those of `dumps`."""
    _dump(obj, file, protocol, buffer_callback, fix_imports, by_value, kin)


def _dump(obj, file, protocol, buffer_callback, fix_imports, by_value, kin):
    if protocol is None:
        pickler = _ByValuePickler(file, DEFAULT_PROTOCOL, fix_imports, buffer_callback)
    else:
        pickler = _ByValuePickler(file, protocol, fix_imports, buffer_callback)
        pickler.protocol = protocol if protocol >= 0 else HIGHEST_PROTOCOL
    if kin:
        pickler.kin = True
    if not by_value:
        pickler.by_value = False
    try:
        pickler.dump(obj)
    except Exception as error:
        explain_failure(error, obj, pickler=pickler)
        raise
