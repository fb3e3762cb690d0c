"""Which modules another process of this program can import, and which the user has registered.

How a thing can travel is decided in ext/pickle/by_value_standing.c, for each
thing anew.  Here is the part of it that is done once for each module: the import system
is asked (`verdict`), and the answer is kept there as long as the module is the same.
"""

import os
import sys
import types

from . import _kin
from ._mainnames import MAIN_MODULES

__all__ = [
    "BY_NAME",
    "BY_SPARE",
    "BY_VALUE",
    "MAIN_MODULES",
    "MISSING",
    "is_registered",
    "list_registry_pickle_by_value",
    "register_pickle_by_value",
    "resolve",
    "standing",
    "unregister_pickle_by_value",
    "verdict",
]

#: How a thing can travel.
BY_NAME, BY_SPARE, BY_VALUE = range(3)

MISSING = object()
_registered = _kin._registered

#: standing(thing, module_name, qualname, kin): how a thing can travel.
#: `kin`: the receiver is a member of this program's family.
standing = _kin._standing

#: is_registered(name): whether the module, or a package around it, was registered.
is_registered = _kin._is_registered


def resolve(module_name, qualname):
    """What the name means in this process; `MISSING` if nothing.  Nothing is imported."""
    return _kin._resolve(module_name, qualname, MISSING)


def register_pickle_by_value(module):
    """Send the functions and classes of `module`, and of its submodules, by value.

    For a module that the receivers do not have, or have in another version.
    Raises ValueError if `module` is no module or has not been imported.
    """
    _registered.add(_checked_name(module))


def unregister_pickle_by_value(module):
    """Undo `register_pickle_by_value(module)`.

    Raises ValueError if `module` was not registered.
    """
    name = _checked_name(module, imported=False)
    if name not in _registered:
        raise ValueError(f"{module!r} is not registered for pickle by value")
    _registered.discard(name)


def list_registry_pickle_by_value():
    """The names of the registered modules, as a new set."""
    return set(_registered)


def _checked_name(module, imported=True):
    if not isinstance(module, types.ModuleType):
        raise ValueError(f"Input should be a module object, got {module!r} instead")
    if imported and module.__name__ not in sys.modules:
        raise ValueError(f"{module!r} is not in sys.modules: import it before registering it")
    return module.__name__


def verdict(module, name):
    """Whether another process of this program gets `module` by importing `name`."""
    spec = getattr(module, "__spec__", None)
    parent = name.rpartition(".")[0]
    if parent:
        package = sys.modules.get(parent)
        # What lives in a package comes with it, often by ways of its own.
        return package is not None and _kin._can_import(package, parent)
    if spec is None or not isinstance(getattr(spec, "name", None), str):
        return False
    if spec.origin in ("built-in", "frozen"):
        return True
    if not spec.has_location:  # a namespace package has folders, a module made by hand nothing
        return bool(spec.loader or spec.submodule_search_locations)
    return _is_on_path(name, spec) or _finders_find(name, spec)


def _is_on_path(name, spec):
    path = _search_path()
    for place in spec.submodule_search_locations or [spec.origin]:
        folder, file = os.path.split(os.path.abspath(place))
        if folder in path and file.partition(".")[0] == name:
            return True
    return False


def _search_path():
    return {os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)}


def _finders_find(name, spec):
    """Ask the import system itself: archives, editable installs, finders of the user's own."""
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, None)
        except Exception:  # somebody else's finder
            continue
        if found is not None:
            return found.origin == spec.origin
    return False
