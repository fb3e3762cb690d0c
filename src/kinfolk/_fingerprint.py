"""Is the thing found under a name the thing that was meant?

A name such as `__main__.Foo` means one class in the program that sent it and,
perhaps, quite another one in the program that received it.  A fingerprint is a
short digest of a definition: of what the *code* says, not of what the running
program made of it.  So the re-imported main module of a spawned child has the
same fingerprints as its parent, and an unrelated namesake has not.

What counts: the bytecode of functions with their constants and names; for
classes the metaclass, the bases, the methods, the annotations, the slots, the
members of an enum.  What does not count: file names and line numbers (a
re-imported main has another path), docstring positions, the values of class
attributes and globals (they change while a program runs).

Digests are the same in every process of one interpreter version; they never go
through `hash()` or `marshal`, whose results depend on the process.
"""

import functools
import types

from . import _kin

__all__ = ["LRU_CACHE", "digest_of_code", "fingerprint"]

DIGEST_BYTES = 12

#: What `functools.lru_cache` makes of a function.
LRU_CACHE = type(functools.lru_cache(len))


def fingerprint(thing):
    """Digest of the definition of a function or class: `DIGEST_BYTES` bytes.

    By way of ext/pickle/by_value_standing.c, which remembers it as long as a class has the
    same attributes.
    """
    return _digest(_describe(thing, set()))


def _digest(description):
    import hashlib  # takes a while, and most programs never get here

    text = repr(description).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def _describe(thing, seen):
    """A structure of plain values with a reproducible `repr`.

    `seen` holds the ids of what is being described, for definitions that refer
    to themselves.
    """
    if id(thing) in seen:
        return "..."
    seen.add(id(thing))
    if isinstance(thing, types.FunctionType):
        return _describe_function(thing, seen)
    if isinstance(thing, type):
        return _describe_class(thing, seen)
    inner = _inner_functions(thing)
    if inner:
        return type(thing).__name__, [_describe(each, seen) for each in inner]
    return type(thing).__name__


def _describe_function(function, seen):
    """A decorated function is its wrapper *and* what the wrapper wraps."""
    wrapped = []
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # an empty cell
            continue
        if isinstance(content, types.FunctionType):
            wrapped.append(_describe(content, seen))
    return function.__qualname__, _kin._code_digest(function.__code__), wrapped


def _describe_class(cls, seen):
    body = dict(vars(cls))
    methods = sorted(
        (name, _describe(value, seen))
        for name, value in body.items()
        if isinstance(value, types.FunctionType) or _inner_functions(value)
    )
    members = body.get("_member_map_")
    return (
        cls.__qualname__,
        type(cls).__qualname__,
        [base.__qualname__ for base in cls.__bases__],
        methods,
        sorted(_annotated_names(body)),
        repr(body.get("__slots__")) if type(body.get("__slots__")) in (str, tuple) else "",
        sorted(
            (name, repr(member._value_))
            for name, member in members.items()
            if type(member._value_) in (int, str)
        )
        if type(members) is dict
        else (),
    )


def _annotated_names(body):
    annotations = body.get("__annotations__")
    return list(annotations) if isinstance(annotations, dict) else []


def _inner_functions(value):
    """The functions inside a method wrapper, as a list (empty for other things)."""
    if isinstance(value, (classmethod, staticmethod)):
        inner = [value.__func__]
    elif isinstance(value, property):
        inner = [value.fget, value.fset, value.fdel]
    elif isinstance(value, functools.cached_property):
        inner = [value.func]
    elif type(value) is LRU_CACHE:
        inner = [value.__wrapped__]
    else:
        inner = []
    return [each for each in inner if isinstance(each, types.FunctionType)]


def digest_of_code(code):
    """By way of `_kin._code_digest`, which remembers it as long as the code lives."""
    return _digest(
        (
            code.co_name,
            code.co_flags,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_code,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
            [_constant(each) for each in code.co_consts],
        )
    )


def _constant(value):
    if isinstance(value, types.CodeType):
        return _kin._code_digest(value)
    if isinstance(value, frozenset):  # iterates in another order in each process
        return "frozenset", sorted(repr(_constant(each)) for each in value)
    if isinstance(value, tuple):
        return [_constant(each) for each in value]
    return repr(value)
