"""The sending side of pickling by value: functions, classes, modules, and what they consist of.

Each reducer takes the pickler and the thing, and returns NotImplemented (the
standard reduction is right: mostly, the name is enough) or what `__reduce__`
returns, in its longest form:

    (maker, arguments, contents, None, None, filler)

with a maker and a filler from kinfolk._rebuild.  Arguments may lead back to the
thing itself: a class is in the closures of its own methods.  That ends well,
for a reason worth knowing.  On the way round, cells, homes and metaclasses are
remembered by the pickler before their contents are written, so the second
visit finds them, finishes, and is remembered; the first visit then notices that
its thing is there already and takes that one.

A function is sent with the globals that its code names, no others.  They are
not sent with its *home* (the stand-in for its module's globals, shared by all
functions of one pickler that share them here) but as its contents, because each
function adds what it needs.  The home of a function from a module that the
receiver can import is that module: nothing is sent with such a function.

`function_parts` and `class_parts` are also what kinfolk._culprit walks along:
what is sent and what is searched are the same.
"""

import _collections_abc
import copyreg
import functools
import marshal
import sys
import types

from . import _findable, _rebuild
from ._classparts import class_parts, creation_of
from ._codeparts import names_used, submodules_used
from ._findable import BY_NAME, BY_SPARE
from ._fingerprint import LRU_CACHE, fingerprint
from ._identity import WeakIdMap, token_of
from ._oddments import learn_late_types, reducers, reduces, standing_of

__all__ = [
    "dispatch_table_of",
    "function_parts",
    "may_go_by_value",
    "module_parts",
    "reduce_class",
    "reduce_module",
    "reducers",
]

#: Globals that a function's home has from the start: which module it stands for.
HOME_NAMES = ("__name__", "__package__", "__path__", "__file__")

#: Where annotations are not evaluated before somebody asks (3.14), what is sent is whom to ask.
ANNOTATIONS = "__annotations__" if sys.version_info < (3, 14) else "__annotate__"

_MAKERS = vars(_rebuild)

_marshalled = WeakIdMap()


class Home:
    """The stand-in, within one pickler, for a namespace that is somebody's globals."""

    __slots__ = ("namespace", "module_name")

    def __init__(self, namespace, module_name):
        self.namespace = namespace
        self.module_name = module_name


def home_of(pickler, namespace):
    """The home that stands for `namespace` in all that `pickler` writes."""
    homes = pickler.homes
    if homes is None:
        homes = pickler.homes = {}
    found = homes.get(id(namespace))
    if found is None:
        # The home keeps the namespace, so that its address stays its own.
        found = Home(namespace, _findable.home_by_name(namespace, pickler.kin))
        homes[id(namespace)] = found
    return found


@reduces(Home)
def _reduce_home(pickler, home):
    if home.module_name is not None:
        return _rebuild.module_globals, (home.module_name,)
    namespace = home.namespace
    return _rebuild.home, ({name: namespace[name] for name in HOME_NAMES if name in namespace},)


# -- functions -----------------------------------------------------------------------------------


@reduces(types.FunctionType)
def _reduce_function(pickler, function):
    namespace = function.__globals__
    if namespace is _MAKERS:  # the names that every pickle by value mentions
        return NotImplemented
    standing = standing_of(pickler, function)
    if standing == BY_NAME:
        return NotImplemented
    home = home_of(pickler, namespace)
    # A method would only be found where its class is found, and then it is not needed.
    where = _where(standing, function) if "." not in function.__qualname__ else None
    arguments = _marshal(function.__code__), home, function.__closure__, where
    contents = function_parts(function, home.module_name is None)
    return _rebuild.function, arguments, contents, None, None, _rebuild.fill_function


def function_parts(function, with_globals=True):
    """The contents of a function: (globals that it uses, modules to import, attributes)."""
    namespace = function.__globals__ if with_globals else {}
    used = {name: namespace[name] for name in names_used(function.__code__) if name in namespace}
    used.pop("__builtins__", None)
    return used, submodules_used(function, used), _attributes(function)


def _attributes(function):
    """What a function over the same code and home would not have by itself."""
    code, found = function.__code__, {}
    if function.__name__ != code.co_name:
        found["__name__"] = function.__name__
    if function.__qualname__ != getattr(code, "co_qualname", code.co_name):
        found["__qualname__"] = function.__qualname__
    if function.__module__ != function.__globals__.get("__name__"):
        found["__module__"] = function.__module__
    if function.__doc__ is not (code.co_consts[0] if code.co_consts else None):
        found["__doc__"] = function.__doc__
    for name in ("__defaults__", "__kwdefaults__", ANNOTATIONS, "__type_params__", "__dict__"):
        value = getattr(function, name, None)
        if value:
            found[name] = value
            if name != "__defaults__":
                learn_late_types()  # here type variables come up
    return found


def _where(standing, thing):
    """The name under which the receiver may have `thing`, with its fingerprint; None if none."""
    if standing != BY_SPARE:
        return None
    return thing.__module__, thing.__qualname__, fingerprint(thing)


def _marshal(code):
    data = _marshalled.get(code)
    if data is None:
        data = _rebuild.magic_number() + marshal.dumps(code)
        _marshalled.set(code, data)
    return data


@reduces(types.CodeType)
def _reduce_code(pickler, code):
    return _rebuild.code, (_marshal(code),)


@reduces(types.CellType)
def _reduce_cell(pickler, cell):
    try:
        contents = (cell.cell_contents,)
    except ValueError:  # empty, and stays so
        return _rebuild.cell, ()
    return _rebuild.cell, (), contents, None, None, _rebuild.fill_cell


@reduces(LRU_CACHE)
def _reduce_lru_cache(pickler, wrapper):
    standing = standing_of(pickler, wrapper)
    if standing == BY_NAME:
        return NotImplemented
    parameters = wrapper.cache_parameters()
    # `cache_parameters` is made anew with the wrapper.
    names = {name: value for name, value in vars(wrapper).items() if name != "cache_parameters"}
    arguments = (
        wrapper.__wrapped__,
        parameters["maxsize"],
        parameters["typed"],
        _where(standing, wrapper),
    )
    return _rebuild.lru_cache, arguments, names, None, None, _rebuild.fill_lru_cache


# -- classes -------------------------------------------------------------------------------------


def reduce_class(pickler, cls):
    """The reducer of classes, of whatever metaclass."""
    standing = standing_of(pickler, cls)
    if standing == BY_NAME:
        return NotImplemented
    if type(cls) is not type and type(cls) in dispatch_table_of(pickler):
        return NotImplemented
    alias = _aliases().get(id(cls))
    if alias is not None:
        return _rebuild.attribute, alias
    if not _is_made_in_python(cls):
        return NotImplemented
    learn_late_types()
    maker, arguments = creation_of(cls)
    arguments = (token_of(cls), _where(standing, cls), *arguments)
    return maker, arguments, class_parts(cls), None, None, _rebuild.fill_class


def dispatch_table_of(pickler):
    """Where `pickler` looks up the reducers that were registered for a type."""
    return getattr(pickler, "dispatch_table", copyreg.dispatch_table)


@functools.lru_cache(None)
def _aliases():
    """Classes of the interpreter that know themselves by a name that nobody can import.

    By their addresses: how a class hashes is for its metaclass to say.
    """
    places = {"_collections_abc": _collections_abc, "types": types}
    return {
        id(value): (module_name, name)
        for module_name, module in places.items()
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == "builtins"
        and _findable.resolve("builtins", value.__qualname__) is not value
    }


_HEAP_TYPE = 1 << 9
_IMMUTABLE_TYPE = 1 << 8


def may_go_by_value(cls):
    """Whether `cls` may have been made in Python; sure only of the interpreter's own classes."""
    return cls.__flags__ & _HEAP_TYPE and not cls.__flags__ & _IMMUTABLE_TYPE


def _is_made_in_python(cls):
    """Whether `cls` has a value that could be sent: a class made in C cannot be made again."""
    return may_go_by_value(cls) and not any(
        isinstance(value, types.MethodDescriptorType) and value.__objclass__ is cls
        for value in vars(cls).values()
    )


# -- modules -------------------------------------------------------------------------------------


@reduces(types.ModuleType)
def reduce_module(pickler, module):
    """The reducer of modules, subclasses of the module type included."""
    name = module.__name__
    if sys.modules.get(name) is module:
        if name in _findable.MAIN_MODULES or _findable.home_by_name(vars(module), pickler.kin):
            return _rebuild.module_globals, (name,)
    home = home_of(pickler, vars(module))
    return _rebuild.module, (home,), module_parts(module), None, None, _rebuild.fill_module


def module_parts(module):
    """The contents of a module made at run time: its globals."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in ("__builtins__", "__loader__", "__spec__")
    }
