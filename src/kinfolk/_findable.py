"""Which names mean the same thing to the receiver of a pickle.

A function or class travels by its name when the receiver can look that name up
and find the same thing.  This module decides, in the sender.  Three answers:

    by name      an attribute of a module that any process of this program can
                 import.  The name is enough, as with the standard pickle.
    by spare     the name means the thing here, but the receiver may not find
                 it: the main program's, and modules made at run time.  The name
                 travels with the value; the receiver tries the name first.
    by value     no name leads to the thing: nested functions, lambdas, what was
                 replaced under its name, modules registered by the user.

`can_import` is about modules, and is remembered as long as the module object is
the same.  Whether a name leads to the thing is looked up each time: modules
change, and a look-up costs less than noticing that.

Members of one family share more than strangers do, see kinfolk._mainnames.
"""

import os
import sys
import types
import weakref

from . import _mainnames
from ._mainnames import MAIN_MODULES

__all__ = [
    "BY_NAME",
    "BY_SPARE",
    "BY_VALUE",
    "can_import",
    "home_by_name",
    "list_registry_pickle_by_value",
    "register_pickle_by_value",
    "resolve",
    "standing",
    "unregister_pickle_by_value",
]

BY_NAME, BY_SPARE, BY_VALUE = "by name", "by spare", "by value"

MISSING = object()
_registered = set()
_verdicts = {}


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


def is_registered(name):
    """Whether the module called `name`, or a package around it, was registered."""
    if not _registered:
        return False
    while name not in _registered:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return False
    return True


def standing(thing, module_name, qualname, kin):
    """How `thing` can travel: BY_NAME, BY_SPARE or BY_VALUE.

    `kin`: the receiver is a member of this program's family.
    """
    if type(module_name) is not str or type(qualname) is not str or "<" in qualname:
        return BY_VALUE
    if resolve(module_name, qualname) is not thing or is_registered(module_name):
        return BY_VALUE
    if module_name in MAIN_MODULES:
        return BY_NAME if kin and _mainnames.kin_have(qualname, thing) else BY_SPARE
    if can_import(sys.modules[module_name], module_name):
        return BY_NAME
    return BY_NAME if kin and _mainnames.kin_have_module(module_name) else BY_SPARE


def home_by_name(namespace, kin):
    """The name of the module whose globals are `namespace`, if all receivers have it, else None.

    The main program does not count, not even among kin: what its functions
    see there is sent with them.
    """
    name = namespace.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if module is None or name in MAIN_MODULES or is_registered(name):
        return None
    if getattr(module, "__dict__", None) is not namespace:
        return None
    if can_import(module, name) or (kin and _mainnames.kin_have_module(name)):
        return name
    return None


def resolve(module_name, qualname):
    """What the name means in this process; `MISSING` if nothing.

    Nothing is imported.  The main module is looked for under both its names: a
    spawned child knows it as `__mp_main__`.
    """
    if module_name not in MAIN_MODULES:
        return _attribute_of(module_name, qualname)
    for name in (module_name, *MAIN_MODULES):
        thing = _attribute_of(name, qualname)
        if thing is not MISSING:
            return thing
    return MISSING


def _attribute_of(module_name, qualname):
    thing = sys.modules.get(module_name, MISSING)
    try:
        if "." not in qualname:
            return getattr(thing, qualname)
        for name in qualname.split("."):
            thing = getattr(thing, name)
    except Exception:  # modules and metaclasses may answer with anything
        return MISSING
    return thing


def can_import(module, name):
    """Whether another process of this program gets `module` by importing `name`."""
    verdict = _verdicts.get(name)
    if verdict is None or verdict[0]() is not module:
        try:
            reference = weakref.ref(module)
        except TypeError:  # anything may stand in sys.modules
            return True
        _verdicts[name] = verdict = reference, _can_import(module, name)
    return verdict[1]


def _can_import(module, name):
    spec = getattr(module, "__spec__", None)
    parent = name.rpartition(".")[0]
    if parent:
        package = sys.modules.get(parent)
        # What lives in a package comes with it, often by ways of its own.
        return package is not None and can_import(package, parent)
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
