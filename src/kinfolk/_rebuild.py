"""The receiving side of pickling by value: what a pickle calls to build things.

Every function here that is listed in `__all__` is named in pickles, so its name
and arguments are a wire format: whoever loads them runs the same kinfolk.

A thing is built in two steps, because it may be part of itself: first an empty
one from what cannot be cyclic (`function`, `class_`, ...), which pickle then
remembers, and after that its contents (`fill_function`, `fill_class`, ...), which may
refer back to it.  The contents always travel; whether they are used is decided
in the first step, which may have found the thing here instead of building it.
So a `fill_*` fills only what is marked as `_unfilled`.

For a class, in this order: the class known under its token; the one found under
its name, if it has the same fingerprint; a new one.  Making a class here runs none
of the code that making it for the first time runs: no metaclass `__new__` or
`__init__`, no `__init_subclass__`, no `__set_name__`.  Their effects are part of what
was sent.

Two threads may load the same class at once.  Both get the same one, and each
fills it, unless it is found filled: neither can see it half done.
"""

import _thread
import abc
import functools
import importlib
import marshal
import os
import sys
import types
from _pickle import UnpicklingError

from . import _findable
from ._fingerprint import fingerprint
from ._identity import WeakIdMap, adopt, known

__all__ = [
    "Member",
    "attribute",
    "cell",
    "class_",
    "code",
    "enum",
    "fill_cell",
    "fill_class",
    "fill_function",
    "fill_lru_cache",
    "fill_module",
    "function",
    "home",
    "instance_of",
    "lru_cache",
    "magic_number",
    "method",
    "module",
    "module_globals",
    "new_type",
    "type_alias",
    "type_variable",
    "view",
]

#: Code objects kept, so that a function sent again and again stays the one that the interpreter
#: has specialised.
CODES_KEPT = 512

_codes = {}
_unfilled = WeakIdMap()
_received = WeakIdMap()  # class -> {name: mark of the value last received}
_building = _thread.RLock()


# -- names ---------------------------------------------------------------------------------------


def attribute(module_name, name):
    """An attribute of a module that is importable under another name than it gives itself."""
    return getattr(importlib.import_module(module_name), name)


def _find(where):
    """The definition that the receiver has under the sender's name, or None.

    `where` is (module, qualname, fingerprint), or None if no name led to it.
    """
    if where is None:
        return None
    module_name, qualname, wanted = where
    found = _findable.resolve(module_name, qualname)
    try:
        return found if fingerprint(found) == wanted else None
    except Exception:  # the namesake may be anything
        return None


# -- code and functions --------------------------------------------------------------------------


def code(data):
    """The code object that was marshalled into `data`, behind its interpreter's magic number.

    Raises UnpicklingError if that was another interpreter version.
    """
    found = _codes.get(data)
    if found is not None:
        return found
    number = magic_number()
    if not data.startswith(number):
        raise UnpicklingError(
            "a function sent by value cannot be loaded here: its bytecode is of another version of "
            f"Python (magic number {_readable(data)}) than this one, {sys.version.split()[0]} "
            f"(magic number {_readable(number)})"
        )
    found = marshal.loads(memoryview(data)[len(number) :])
    if len(_codes) >= CODES_KEPT:
        _codes.clear()
    _codes[data] = found
    return found


@functools.lru_cache(None)
def magic_number():
    """What marks the bytecode of this version of Python."""
    from importlib.util import MAGIC_NUMBER

    return MAGIC_NUMBER


def _readable(number):
    return int.from_bytes(number[:2], "little")


def home(names):
    """A fresh module, in no table, whose globals the functions sent together share.

    `names`: the few globals that say which module it stands for.
    """
    made = types.ModuleType("")
    made.__dict__.clear()
    made.__dict__.update(names, __builtins__=__builtins__)
    return made


def module_globals(name):
    """The importable module `name`, as the home of functions defined in it."""
    return importlib.import_module(name)


def cell():
    """An empty cell, to be shared by the closures that refer to it."""
    return types.CellType()


def fill_cell(cell, contents):
    (cell.cell_contents,) = contents


def function(data, home, closure, where):
    """The function found under its name, or one without contents over the code in `data`."""
    found = _find(where)
    if found is not None:
        return found
    made = types.FunctionType(code(data), vars(home), None, None, closure)
    _unfilled.set(made, True)
    return made


def fill_function(function, state):
    if not _unfilled.pop(function):
        return
    namespace, imports, attributes = state
    for name in imports:
        importlib.import_module(name)
    # Functions sent later through the same pickler bring names that are there: those may have
    # been assigned to since.
    for name, value in namespace.items():
        function.__globals__.setdefault(name, value)
    for name, value in attributes.items():
        if name == "__dict__":
            function.__dict__.update(value)
        else:
            setattr(function, name, value)


def method(holder, name, function):
    """The method `name` of `holder`, which may be a class that is still without its contents."""
    cls = holder if isinstance(holder, type) else type(holder)
    if any(each in _unfilled for each in cls.__mro__):
        return types.MethodType(function, holder)
    return getattr(holder, name)


def lru_cache(function, maxsize, typed, where):
    """The caching wrapper found under its name, or a new one, with an empty cache."""
    found = _find(where)
    if found is not None:
        return found
    made = functools.lru_cache(maxsize, typed)(function)
    _unfilled.set(made, True)
    return made


def fill_lru_cache(wrapper, names):
    if _unfilled.pop(wrapper):
        wrapper.__dict__.update(names)


# -- classes -------------------------------------------------------------------------------------


def class_(token, where, meta, name, bases, body):
    """The class that goes by `token` here: known, found under its name, or made without contents."""

    def make():
        kind = _metaclass(meta, bases)
        made = _bare_new(kind)(kind, name, bases, dict(body))
        _bare(kind, "__init__", types.WrapperDescriptorType)(made, name, bases, {})
        return made

    return _class(token, where, bases, make)


def enum(token, where, meta, name, bases, body, members, options):
    """As `class_`, for an enum.  Its members are made with it: pickles of them need them at once."""

    def make():
        return _make_enum(_metaclass(meta, bases), name, bases, body, members, options)

    return _class(token, where, bases, make)


def _class(token, where, bases, make):
    with _building:
        found = known(token)
        if found is None:
            found = _find(where)
            if found is None:
                found = _hushed(bases, make)
                _received.set(found, {})
                _unfilled.set(found, True)
            adopt(token, found)
    return found


def fill_class(cls, state):
    attributes, registered, dropped = state
    marks = _received.get(cls)
    if marks is None:  # the process's own
        return
    if cls in _unfilled:
        for name in dropped:
            if name in vars(cls):
                type.__delattr__(cls, name)
        for name, value in attributes.items():
            _set(cls, name, value)
            marks[name] = _mark(value)
        for subclass in registered:
            abc.ABCMeta.register(cls, subclass)
        _unfilled.pop(cls)
        return
    for name, value in attributes.items():
        mark = _mark(value)
        if name not in marks or (mark is not None and mark != marks[name]):
            _set(cls, name, value)
            marks[name] = mark


def _set(cls, name, value):
    try:
        type.__setattr__(cls, name, value)  # not the metaclass's: what was sent is the outcome
    except TypeError:
        setattr(cls, name, value)  # a metaclass in C, as that of ctypes structures, insists


def _mark(value):
    """By what to see that the sender has assigned another value since; None: not to be seen.

    What the sender has not changed is left as this process has it.
    """
    value = (
        getattr(value, "__func__", value) if type(value) in (classmethod, staticmethod) else value
    )
    if type(value) is types.FunctionType:
        return id(value.__code__)
    if type(value) in (int, float, bool, str, bytes, type(None)):
        return type(value), value
    return None


def _metaclass(meta, bases):
    """`meta` is a metaclass, or the index of the base that has the same one."""
    return type(bases[meta]) if isinstance(meta, int) else meta


def _bare_new(meta):
    """What makes an instance of `meta` without running a metaclass's Python code."""
    if issubclass(meta, abc.ABCMeta):
        return abc.ABCMeta.__new__
    return _bare(meta, "__new__", types.BuiltinFunctionType)


def _bare(meta, name, kind):
    """What `meta` inherits as `name` from a metaclass made in C: from `type`, or that of ctypes."""
    return next(vars(base)[name] for base in meta.__mro__ if isinstance(vars(base).get(name), kind))


class Member:
    """A member of an enum on its way: all that its making would have computed."""

    __slots__ = ("value", "payload", "extra")

    def __init__(self, value, payload, extra):
        self.value = value
        self.payload = payload
        self.extra = extra

    def __reduce__(self):
        return Member, (self.value, self.payload, self.extra)


def _make_enum(meta, name, bases, body, members, options):
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


def _hushed(bases, make):
    """What `make` returns, with the `__init_subclass__` of `bases` kept silent, in this thread.

    type.__new__ always calls it.  It has run, in the process that made the class.
    """
    owners = {
        owner: vars(owner)["__init_subclass__"]
        for base in bases
        for owner in base.__mro__
        if _has_own_hook(owner)
    }
    for owner, hook in owners.items():
        type.__setattr__(owner, "__init_subclass__", _hush(hook))
    try:
        return make()
    finally:
        for owner, hook in owners.items():
            type.__setattr__(owner, "__init_subclass__", hook)


def _has_own_hook(owner):
    hook = vars(owner).get("__init_subclass__")
    # The standard library's only set what was sent anyway.
    return (
        isinstance(hook, classmethod)
        and isinstance(hook.__func__, types.FunctionType)
        and owner.__module__ not in ("typing", "enum")
    )


def _hush(hook):
    builder = _thread.get_ident()

    def __init_subclass__(cls, **options):
        if _thread.get_ident() != builder:
            hook.__get__(None, cls)(**options)

    return classmethod(__init_subclass__)


def instance_of(cls, thing):
    """`thing`, for whose sake the pickler wrote `cls` first (see kinfolk.pickle)."""
    return thing


# -- modules, typing, views ----------------------------------------------------------------------


def module(home):
    """A module made at run time: the very one whose globals its functions share."""
    return home


def fill_module(module, names):
    for name, value in names.items():
        module.__dict__.setdefault(name, value)


def type_variable(token, make, name, args, options, module_name):
    """The type variable (TypeVar, ParamSpec, ...) that goes by `token` here, or a new one."""
    with _building:
        found = known(token)
        if found is None:
            found = make(name, *args, **options)
            found.__module__ = module_name
            adopt(token, found)
    return found


def new_type(name, qualname, module_name, supertype):
    from typing import NewType

    made = NewType(name, supertype)
    made.__qualname__, made.__module__ = qualname, module_name
    return made


def type_alias(name, value, parameters):
    from typing import TypeAliasType

    return TypeAliasType(name, value, type_params=parameters)


def view(buffer, format, shape):
    """A memoryview over `buffer` with the sender's format and shape."""
    flat = memoryview(buffer).cast("B")
    return flat.cast(format, shape) if flat.nbytes else flat.cast(format)


def _after_fork():
    global _building
    _building = _thread.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)
