"""Until the pickler notes its trail: the way to the culprit, searched for.  See kinfolk._culprit.

The pickler stops at something that cannot be pickled and says what it is, but
not where: the stack of objects is gone with the C frames.  So the way there is
searched for, after the fact.  The search walks over the object in the order in
which the pickler does, asking each thing for its parts, until it meets one that
itself refuses: that one raised.  Each step knows how a person would write it
(`.sinks`, `[2]`, `.__closure__['lock']`), and the steps make the path.

To see the parts of an object with a reducer of its own the search must call
that reducer again.  It does so only after a failure, and what it raises is
taken for the refusal that it is.  The search goes no deeper than what the path
could say to a reader, and is given up after `MAX_THINGS` or `MAX_SECONDS`.

A refusal gets the path in front of its text.  Any other error that user code raised
on the way is left as it is, apart from a note (Python 3.11 and later).
"""

import functools
import time
import types
from _pickle import PickleBuffer, PicklingError

from . import _findable, _hints
from .pickle import dispatch_table_of

__all__ = ["explain"]

MAX_THINGS = 100_000
MAX_SECONDS = 0.5

#: Longest key that a path shows.
MAX_KEY = 40

_ATOMS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    type(...),
    type(NotImplemented),
    types.BuiltinFunctionType,
)


def explain(error, roots, pickler):
    """Say in `error`, which `pickler` raised, where the culprit is.  Returns `error`.

    `roots` maps names, with which the path will begin, to the objects that were pickled.
    """
    if isinstance(error, (OSError, MemoryError, RecursionError)):
        return error  # these come of the place or the size, not of one thing
    try:
        found = _search(roots, pickler)
        if found is not None:
            _explain(error, found, _hints.hint_for(found.thing, pickler.by_value))
    except Exception:  # the objects' own code may do anything: then the error stays as it was
        pass
    return error


def _explain(error, step, hint):
    own = getattr(error, "__kinfolk_unexplained__", error.args)
    raiser = _raiser(error)
    if raiser is not None and own and isinstance(own[0], str):
        text = own[0] if step.parent is None else f"{step.path()}: {own[0]}"
        error.__kinfolk_unexplained__ = own
        error.args = (f"{text}; {hint}" if hint and raiser is _MACHINERY else text, *own[1:])
    if hasattr(error, "add_note"):
        _replace_note(error, _note(step))


_MACHINERY, _HOOK = "the pickling machinery", "a hook that refuses"


def _raiser(error):
    """Who has refused: _MACHINERY, _HOOK (an object's own method); None for any other error."""
    if not isinstance(error, (PicklingError, TypeError, AttributeError)):
        return None
    traceback = error.__traceback__
    if traceback is None:
        return _MACHINERY
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    if frame.f_globals.get("__name__") in _MACHINERY_MODULES:
        return _MACHINERY
    return _HOOK if frame.f_code.co_name in _HOOKS else None


_MACHINERY_MODULES = ("copyreg", "kinfolk.pickle")
_HOOKS = ("__getstate__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__")


_NOTE = "kinfolk: the way to what cannot be pickled:"


def _note(step):
    steps = []
    while step is not None:
        steps.append((step.path(), type(step.thing)))
        step = step.parent
    steps = steps[:6]
    width = max(len(path) for path, _ in steps)
    return "\n".join(
        [_NOTE, *(f"  {path:<{width}}  {_hints.type_name(kind)}" for path, kind in reversed(steps))]
    )


def _replace_note(error, note):
    notes = [each for each in getattr(error, "__notes__", ()) if not each.startswith(_NOTE)]
    error.__notes__ = [*notes, note]


# -- the search ----------------------------------------------------------------------------------


class _Step:
    """A thing on the way, how it is written after what it was reached from, and that."""

    __slots__ = ("thing", "label", "parent")

    def __init__(self, thing, label, parent):
        self.thing = thing
        self.label = label
        self.parent = parent

    def path(self):
        labels, step = [], self
        while step is not None:
            labels.append(step.label)
            step = step.parent
        labels.reverse()
        if len(labels) > 24:
            labels[8:-8] = [f"⟨{len(labels) - 16} more⟩"]
        return "".join(labels)


class _Refusal(Exception):
    """This thing itself cannot be pickled."""


def _search(roots, pickler):
    """The step to the first thing that refuses, or None."""
    give_up = time.monotonic() + MAX_SECONDS
    waiting = [_Step(thing, label, None) for label, thing in roots.items()]
    waiting.reverse()
    seen = {}  # id -> thing: what was made on the way must keep its address
    while waiting and len(seen) < MAX_THINGS and time.monotonic() < give_up:
        step = waiting.pop()
        thing = step.thing
        if type(thing) in _ATOMS and type(thing) is not types.BuiltinFunctionType:
            continue
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        try:
            found = [_Step(part, label, step) for label, part in _parts(thing, pickler)]
        except Exception:
            return step
        found.reverse()
        waiting.extend(found)
    return None


def _parts(thing, pickler):
    """Pairs of label and part, in the order of pickling.  Raises if `thing` refuses."""
    if _is_persistent(thing, pickler):
        return
    walk = _WALKS.get(type(thing))
    if walk is not None:
        yield from walk(thing)
        return
    reduced = pickler.reducer_override(thing)
    if reduced is NotImplemented:
        reduced = _standard_reduction(thing, pickler)
        if reduced is None:
            return
    elif isinstance(thing, types.FunctionType):
        yield from _function_parts(thing, reduced)
        return
    elif isinstance(thing, type):
        yield from _class_parts(thing, reduced)
        return
    elif isinstance(thing, types.ModuleType):
        yield from _attributes(reduced[2] if reduced[2:] else {})
        return
    if isinstance(reduced, str):
        _check_name(thing, getattr(thing, "__module__", None), reduced)
        return
    yield from _reduction_parts(thing, reduced)


def _is_persistent(thing, pickler):
    persistent_id = getattr(pickler, "persistent_id", None)
    return persistent_id is not None and persistent_id(thing) is not None


def _standard_reduction(thing, pickler):
    """What the pickler takes for `thing` if it has no reducer; None for a thing sent by name."""
    if isinstance(thing, types.FunctionType) or type(thing) is type:
        _check_name(thing, getattr(thing, "__module__", None), thing.__qualname__)
        return None
    reducer = dispatch_table_of(pickler).get(type(thing))
    if reducer is not None:
        return reducer(thing)
    if isinstance(thing, type):
        _check_name(thing, getattr(thing, "__module__", None), thing.__qualname__)
        return None
    if isinstance(thing, PickleBuffer):
        if pickler.protocol < 5 or not thing.raw().contiguous:
            raise _Refusal
        return None
    return thing.__reduce_ex__(pickler.protocol)


def _check_name(thing, module_name, qualname):
    if any(thing is kind for kind in (type(None), type(...), type(NotImplemented))):
        return
    if module_name is None:  # the pickler searches all modules: too long a way for us
        return
    if _findable.resolve(module_name, qualname) is not thing:
        raise _Refusal


# -- the parts of each kind of thing -------------------------------------------------------------


def _items(thing):
    return [(f"[{index}]", part) for index, part in enumerate(thing)]


def _entries(mapping):
    for key, value in list(mapping.items()):
        shown = _key(key)
        yield f".keys(){shown}", key
        yield shown, value


def _elements(thing):
    return [(f".{{{_shown(part)}}}", part) for part in thing]


_WALKS = {list: _items, tuple: _items, dict: _entries, set: _elements, frozenset: _elements}


def _key(key):
    return f"[{_shown(key)}]"


def _shown(key):
    if type(key) in _ATOMS or type(key) is tuple and all(type(each) in _ATOMS for each in key):
        text = repr(key)
        if len(text) <= MAX_KEY:
            return text
        return text[: MAX_KEY - 3] + "..."
    return f"<{type(key).__name__}>"


def _attributes(names):
    return [(f".{name}", value) for name, value in names.items()]


def _function_parts(function, reduced):
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or ()):
        try:
            yield f".__closure__[{name!r}]", cell.cell_contents
        except ValueError:  # empty
            pass
    namespace, _, attributes = reduced[2]
    for name, value in namespace.items():
        yield f".__globals__[{name!r}]", value
    for name in (
        "__defaults__",
        "__kwdefaults__",
        "__annotations__",
        "__annotate__",
        "__type_params__",
    ):
        if name in attributes:
            yield f".{name}", attributes[name]
    yield from _attributes(attributes.get("__dict__", {}))


def _class_parts(cls, reduced):
    if len(reduced) < 3:  # a class of the interpreter, by another name
        return
    if type(cls) is not type:
        yield ".__class__", type(cls)
    for index, base in enumerate(cls.__bases__):
        yield f".__bases__[{index}]", base
    if "_member_map_" in vars(cls):
        for name, member in cls._member_map_.items():
            yield f".{name}.value", member._value_
    attributes, registered, _ = reduced[2]
    yield from _attributes(attributes)
    for each in registered:
        yield ".__subclasshook__", each


def _reduction_parts(thing, reduced):
    """The parts of a thing in the form in which its `__reduce_ex__` gave them."""
    if not isinstance(reduced, tuple) or not 2 <= len(reduced) <= 6:
        raise _Refusal
    maker, arguments, state, items, entries, _ = (*reduced, *(None,) * (6 - len(reduced)))
    if not callable(maker) or not isinstance(arguments, tuple):
        raise _Refusal
    yield from _makings(thing, maker, arguments)
    if items is not None:
        yield from ((f"[{index}]", part) for index, part in enumerate(items))
    if entries is not None:
        for key, value in entries:
            yield _key(key), value
    yield from _state_parts(thing, state)


def _makings(thing, maker, arguments):
    if isinstance(thing, functools.partial):
        yield ".func", thing.func
        return  # the rest is its state
    if isinstance(thing, types.MethodType):
        yield ".__self__", thing.__self__
        yield ".__func__", thing.__func__
        return
    if getattr(maker, "__name__", None) in ("__newobj__", "__newobj_ex__", "_reconstructor"):
        yield ".__class__", type(thing)
    else:
        yield ".__reduce__()[0]", maker
    for index, part in enumerate(arguments):
        if part is not type(thing):
            yield _named_in(thing, part) or f".__reduce__()[1][{index}]", part


def _state_parts(thing, state):
    if isinstance(thing, functools.partial):
        _, args, keywords, names = state
        yield ".args", args
        yield ".keywords", keywords
        yield from _attributes(names or {})
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        state, slots = state
    for names in (state, slots):
        if not isinstance(names, dict):
            if names is not None:
                yield _named_in(thing, names) or ".__getstate__()", names
            continue
        own = getattr(thing, "__dict__", None)
        for name, value in names.items():
            is_own = names is slots or isinstance(own, dict) and own.get(name) is value
            yield (f".{name}" if is_own else f".__getstate__()[{_shown(name)}]"), value


def _named_in(thing, part):
    """The attribute of `thing` that is `part`, if one is: what a reader would look for."""
    own = getattr(thing, "__dict__", None)
    if isinstance(own, dict):
        for name, value in own.items():
            if value is part:
                return f".{name}"
    return ".__self__" if getattr(thing, "__self__", None) is part else None
