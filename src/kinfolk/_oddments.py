"""Reducers for small things that the standard pickle refuses, or takes apart.

They are met inside the functions and classes that travel by value: a property,
a cell, the dict of a dataclass field, the registry of a generic function.  Sent
by themselves they work just as well.

Some types live in modules that a program may never import, and importing them
here would make every start slower: `learn_late_types` adds those that have come
up since, whenever a class is about to be sent by value.
"""

import functools
import gc
import sys
import types
import weakref
from _pickle import PickleBuffer

from . import _rebuild
from ._findable import BY_NAME, standing
from ._identity import token_of

__all__ = ["learn_late_types", "reducers", "reduces", "standing_of"]

#: Type -> reducer(pickler, thing).  kinfolk.pickle looks here first.
reducers = {}


def standing_of(pickler, thing):
    """How `thing` can travel, in what `pickler` writes (see kinfolk._findable)."""
    module_name = getattr(thing, "__module__", None)
    qualname = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    return standing(thing, module_name, qualname, pickler.kin)


def reduces(*kinds):
    """Decorator: the function reduces things of exactly these types."""

    def register(reducer):
        reducers.update(dict.fromkeys(kinds, reducer))
        return reducer

    return register


@reduces(types.MethodType)
def _reduce_method(pickler, method):
    """Methods travel as attributes of what they are bound to, if that is what they are."""
    holder, function = method.__self__, method.__func__
    name = getattr(function, "__name__", None)
    cls = holder if isinstance(holder, type) else type(holder)
    for owner in cls.__mro__:
        if name in vars(owner):
            found = vars(owner)[name]
            if getattr(found, "__func__", found) is not function:
                break
            if standing_of(pickler, cls) == BY_NAME:
                return NotImplemented
            return _rebuild.method, (holder, name, function)
    return types.MethodType, (function, holder)


@reduces(types.MappingProxyType)
def _reduce_mapping_proxy(pickler, proxy):
    (mapping,) = gc.get_referents(proxy)  # the mapping behind it, which others may share
    return types.MappingProxyType, (mapping,)


@reduces(type({}.keys()), type({}.values()), type({}.items()))
def _reduce_dict_view(pickler, view):
    (mapping,) = gc.get_referents(view)
    return getattr(dict, type(view).__name__.removeprefix("dict_")), (mapping,)


@reduces(property)
def _reduce_property(pickler, prop):
    return property, (prop.fget, prop.fset, prop.fdel, prop.__doc__)


@reduces(classmethod, staticmethod)
def _reduce_wrapped_method(pickler, method):
    return type(method), (method.__func__,)


@reduces(functools.cached_property)
def _reduce_cached_property(pickler, prop):
    # Before 3.12 it holds a lock, which its maker makes.
    names = {name: value for name, value in vars(prop).items() if name != "lock"}
    return functools.cached_property, (prop.func,), names


@reduces(memoryview)
def _reduce_view(pickler, view):
    """A view over a copy; out of band, where the receiver is given the buffer itself."""
    if view.format not in _CASTABLE or not view.nbytes and view.ndim > 1:
        return NotImplemented
    in_place = pickler.protocol >= 5 and view.c_contiguous
    buffer = PickleBuffer(view) if in_place else view.tobytes()
    return _rebuild.view, (buffer, view.format, view.shape)


#: The formats that memoryview.cast() knows.
_CASTABLE = frozenset("cbB?hHiIlLqQnNfdeP")


@reduces(weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
def _reduce_weak_mapping(pickler, mapping):
    """What nothing else in the receiver holds is gone from it as soon as it has arrived."""
    return type(mapping), (), None, None, iter(list(mapping.items()))


@reduces(weakref.WeakSet)
def _reduce_weak_set(pickler, weak_set):
    return weakref.WeakSet, (list(weak_set),)


# -- types that may not be there yet -------------------------------------------------------------


def learn_late_types():
    """Add the reducers for types of modules that have been imported meanwhile."""
    for module_name in list(_LATE):
        if module_name in sys.modules:
            _LATE.pop(module_name)(sys.modules[module_name])


def _learn_typing(typing):
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple"):
        if hasattr(typing, name):
            reducers[getattr(typing, name)] = _reduce_type_variable
    reducers[typing.NewType] = _reduce_new_type
    for name in ("ParamSpecArgs", "ParamSpecKwargs"):
        reducers[getattr(typing, name)] = _reduce_origin_attribute
    if hasattr(typing, "TypeAliasType"):
        reducers[typing.TypeAliasType] = _reduce_type_alias


def _learn_dataclasses(dataclasses):
    # Fields are told apart by the identity of these.
    for name in _DATACLASSES_CONSTANTS:
        constant = getattr(dataclasses, name, None)
        if constant is not None:
            reducers[type(constant)] = _reduce_dataclasses_constant


_DATACLASSES_CONSTANTS = (
    "MISSING",
    "KW_ONLY",
    "_FIELD",
    "_FIELD_CLASSVAR",
    "_FIELD_INITVAR",
    "_HAS_DEFAULT_FACTORY",
)

_LATE = {"typing": _learn_typing, "dataclasses": _learn_dataclasses}


def _reduce_type_variable(pickler, variable):
    if standing_of(pickler, variable) == BY_NAME:
        return NotImplemented
    options = {}
    for option in ("covariant", "contravariant", "infer_variance"):
        if getattr(variable, f"__{option}__", False):
            options[option] = True
    if getattr(variable, "__bound__", None) is not None:
        options["bound"] = variable.__bound__
    if getattr(variable, "has_default", bool)():
        options["default"] = variable.__default__
    constraints = getattr(variable, "__constraints__", ())
    return _rebuild.type_variable, (
        token_of(variable),
        type(variable),
        variable.__name__,
        constraints,
        options,
        variable.__module__,
    )


def _reduce_new_type(pickler, made):
    if standing_of(pickler, made) == BY_NAME:
        return NotImplemented
    return _rebuild.new_type, (
        made.__name__,
        made.__qualname__,
        made.__module__,
        made.__supertype__,
    )


def _reduce_origin_attribute(pickler, part):
    return getattr, (part.__origin__, type(part).__name__.removeprefix("ParamSpec").lower())


def _reduce_type_alias(pickler, alias):
    if standing_of(pickler, alias) == BY_NAME:
        return NotImplemented
    return _rebuild.type_alias, (alias.__name__, alias.__value__, alias.__type_params__)


def _reduce_dataclasses_constant(pickler, constant):
    names = vars(sys.modules["dataclasses"])
    for name in _DATACLASSES_CONSTANTS:
        if names.get(name) is constant:
            return _rebuild.attribute, ("dataclasses", name)
    return NotImplemented
