"""Reducers by value for types of modules that a program may never import: typing, dataclasses.

ext/pickle/by_value.c asks for them (`reducers_for`) when it is about to send a class,
or a function with annotations, and finds that such a module has been imported.  A reducer is
called with (kin, thing), `kin` saying that the receiver is of this program's family, and returns
what `__reduce__` returns, or NotImplemented.
"""

import sys

from . import _kin
from ._findable import BY_NAME, standing

__all__ = ["new_type", "reducers_for", "type_alias"]


def reducers_for(module_name):
    """The reducers for the types of one of the modules: a dict by type."""
    return _LATE[module_name](sys.modules[module_name])


def _for_typing(typing):
    found = {typing.NewType: _reduce_new_type}
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple"):
        if hasattr(typing, name):
            found[getattr(typing, name)] = _reduce_type_variable
    for name in ("ParamSpecArgs", "ParamSpecKwargs"):
        found[getattr(typing, name)] = _reduce_origin_attribute
    if hasattr(typing, "TypeAliasType"):
        found[typing.TypeAliasType] = _reduce_type_alias
    return found


def _for_dataclasses(dataclasses):
    # Fields are told apart by the identity of these.
    constants = (getattr(dataclasses, name, None) for name in _DATACLASSES_CONSTANTS)
    return {type(each): _reduce_dataclasses_constant for each in constants if each is not None}


_DATACLASSES_CONSTANTS = (
    "MISSING",
    "KW_ONLY",
    "_FIELD",
    "_FIELD_CLASSVAR",
    "_FIELD_INITVAR",
    "_HAS_DEFAULT_FACTORY",
)

_LATE = {"typing": _for_typing, "dataclasses": _for_dataclasses}


def _goes_by_name(thing, kin):
    qualname = getattr(thing, "__qualname__", thing.__name__)
    return standing(thing, thing.__module__, qualname, kin) == BY_NAME


def _reduce_type_variable(kin, variable):
    if _goes_by_name(variable, kin):
        return NotImplemented
    options = {}
    for option in ("covariant", "contravariant", "infer_variance"):
        if getattr(variable, f"__{option}__", False):
            options[option] = True
    if getattr(variable, "__bound__", None) is not None:
        options["bound"] = variable.__bound__
    if getattr(variable, "has_default", bool)():
        options["default"] = variable.__default__
    return _kin._type_variable, (
        _kin._token(variable),
        type(variable),
        variable.__name__,
        getattr(variable, "__constraints__", ()),
        options,
        variable.__module__,
    )


def _reduce_new_type(kin, made):
    if _goes_by_name(made, kin):
        return NotImplemented
    return new_type, (made.__name__, made.__qualname__, made.__module__, made.__supertype__)


def new_type(name, qualname, module_name, supertype):
    from typing import NewType

    made = NewType(name, supertype)
    made.__qualname__, made.__module__ = qualname, module_name
    return made


def _reduce_origin_attribute(kin, part):
    return getattr, (part.__origin__, type(part).__name__.removeprefix("ParamSpec").lower())


def _reduce_type_alias(kin, alias):
    if _goes_by_name(alias, kin):
        return NotImplemented
    return type_alias, (alias.__name__, alias.__value__, alias.__type_params__)


def type_alias(name, value, parameters):
    from typing import TypeAliasType

    return TypeAliasType(name, value, type_params=parameters)


def _reduce_dataclasses_constant(kin, constant):
    names = vars(sys.modules["dataclasses"])
    for name in _DATACLASSES_CONSTANTS:
        if names.get(name) is constant:
            return _kin._attribute, ("dataclasses", name)
    return NotImplemented
