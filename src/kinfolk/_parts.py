"""The parts of a thing, called what a person would call them.

A pickler takes most things apart by their *reduction*, whose slots say nothing to
a reader: argument 2 of a function's is its closure, and item 0 of its state the
globals that it uses.  It reports its way in *steps*: a number, which is that of
enum kinx_step in ext/pickle/pickler.h, and a key.  This module translates, a step
at a time:

    label, view = name_step(view, step, key, part)

where `view` is how the thing at hand is looked at, and `label` what is written
behind the path so far (`.sinks`, `[2]`).  It is empty for what no reader knows
of: the cell around what is closed over, the tuple around the arguments.  The
view that comes back is for the part; None if that is a thing in its own right, to
be looked at by `view_of(part)`, or without a label, nothing that a reader asks for.

A view is a pair, the function that names the steps from there and what it knows.
Whether a part is called by an attribute is a matter of identity: what a reducer
hands out is mostly what the thing has under some name.

Two walks go along these names: kinfolk._culprit the one way to a failure, which
the pickler has noted, kinfolk._explain all ways (`visible_parts`).
"""

import copyreg
import functools
import types
import weakref
from _pickle import PickleBuffer

from . import _kin

__all__ = [
    "ATOMS",
    "attribute_of",
    "joined",
    "name_step",
    "shown",
    "steps_of",
    "view_of",
    "visible_parts",
]

# enum kinx_step
ITEM, KEY, VALUE, ELEMENT, CLASS, MAKER, ARG, ARGS, STATE, ATTRIBUTE = range(10)
LIST_ITEM, DICT_KEY, DICT_VALUE, SETTER, PERSISTENT = range(10, 15)

#: Of a longer path the middle is left out.
MAX_LABELS = 24

#: Longest key that a path shows.
MAX_KEY = 40

#: Types of which a value is as good as another that is equal.
ATOMS = (
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

_PLAIN_CONTAINERS = (tuple, list, dict)


def shown(key):
    """A key as a path shows it."""
    if type(key) in ATOMS or type(key) is tuple and all(type(each) in ATOMS for each in key):
        text = repr(key)
        return text if len(text) <= MAX_KEY else text[: MAX_KEY - 3] + "..."
    return f"<{type(key).__name__}>"


def joined(labels):
    """The path that consists of `labels`; of a long one, the middle is left out."""
    if len(labels) > MAX_LABELS:
        labels = [*labels[:8], f"⟨{len(labels) - 16} more⟩", *labels[-8:]]
    return "".join(labels)


def view_of(thing):
    """How a thing is looked at that was reached under its own name."""
    kind = type(thing)
    naming = _BY_TYPE.get(kind)
    if naming is None:
        naming = next((name for base, name in _BY_BASE if issubclass(kind, base)), _of_any)
    return naming, thing


def name_step(view, step, key, part):
    """The label of `part`, reached by `step` from what `view` looks at, and the view of it."""
    if step == ARGS:
        return "", (_of_arguments, view)
    naming, known = view
    return naming(known, step, key, part)


def _of_arguments(view, step, key, part):
    """In the tuple of all arguments, or the dict of those that have names."""
    if step == VALUE:
        name = attribute_of(view[1], part)
        return f".{name or f'__getnewargs_ex__()[1][{shown(key)}]'}", None
    return name_step(view, ARG if step == ITEM else step, key, part)


def attribute_of(thing, part):
    """The name of the attribute of `thing` that is `part`; None if none is, or several could be."""
    names = (name for name, value in _attributes_of(thing) if value is part)
    first = next(names, None)
    if first is not None and type(part) in ATOMS and next(names, None) is not None:
        return None  # any 0 is any other 0
    return first


def _attributes_of(thing):
    """Pairs of name and value, without running any code of the thing's."""
    own = _own_names(thing)
    yield from ((name, value) for name, value in list(own.items()) if type(name) is str)
    for base in type(thing).__mro__:
        for name, member in list(vars(base).items()):
            if type(member) is types.MemberDescriptorType and name not in _NOT_SHOWN:
                try:
                    yield name, member.__get__(thing)
                except AttributeError:  # an empty slot
                    pass
    if type(thing) in (types.BuiltinFunctionType, types.MethodWrapperType):
        yield "__self__", thing.__self__


_NOT_SHOWN = ("__dict__", "__weakref__", "__thisclass__", "__name__", "__doc__", "__objclass__")


def _own_names(thing):
    try:
        own = object.__getattribute__(thing, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return own if isinstance(own, dict) else {}


# -- any thing -----------------------------------------------------------------------------------

_SIMPLE = {
    ITEM: "[{key}]",
    LIST_ITEM: "[{key}]",
    KEY: ".keys()[{shown}]",
    DICT_KEY: ".keys()[{shown}]",
    VALUE: "[{shown}]",
    DICT_VALUE: "[{shown}]",
    ELEMENT: ".{{{shown}}}",
    CLASS: ".__class__",
    ATTRIBUTE: ".{key}",
    SETTER: ".__reduce__()[5]",
    PERSISTENT: "⟨persistent id⟩",
}


def _of_any(thing, step, key, part):
    simple = _SIMPLE.get(step)
    if simple is not None:
        return simple.format(key=key, shown=shown(key)), None
    if part is type(thing):
        return ".__class__", None
    if type(part) is PickleBuffer:
        return "⟨buffer⟩", None
    name = attribute_of(thing, part)
    if name is not None:
        return f".{name}", None
    if step == MAKER:
        return ".__reduce__()[0]", None
    label = _state_label(thing) if step == STATE else f".__reduce__()[1][{key}]"
    if type(part) in _PLAIN_CONTAINERS:
        return "", (_within, (thing, label, 1))
    return label, None


def _state_label(thing):
    kind = type(thing)
    is_standard = (
        kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    )
    return ".__getstate__()" if is_standard else ".__reduce__()[2]"


def _within(known, step, key, part):
    """In a container that a reducer of `thing` has made: mostly around attributes of it."""
    thing, label, depth = known
    if step in (VALUE, ITEM):
        if step == VALUE and type(key) is str and _own_names(thing).get(key, known) is part:
            return f".{key}", None
        name = attribute_of(thing, part)
        if name is not None:
            return f".{name}", None
    label += _SIMPLE[step].format(key=key, shown=shown(key))
    if type(part) in _PLAIN_CONTAINERS and depth < 3:
        return "", (_within, (thing, label, depth + 1))
    return label, None


def _of_names(known, step, key, part):
    """In a dict of attributes."""
    return (f".{key}" if step == VALUE else ""), None


# -- functions -----------------------------------------------------------------------------------


def _of_function(function, step, key, part):
    if step == ARG:
        return "", ((_of_closure if key == 2 else _of_home), function)
    if step == STATE:
        return "", (_of_contents, function)
    return _of_any(function, step, key, part)


def _of_closure(function, step, key, part):
    return "", (_of_cell, f".__closure__[{function.__code__.co_freevars[key]!r}]")


def _of_cell(label, step, key, part):
    """`label`: what the contents are called.  The state is a tuple around them."""
    if step == STATE:
        return "", (_of_cell, label)
    return label, None


def _of_bare_cell(cell, step, key, part):
    return _of_cell(".cell_contents", step, key, part)


def _of_contents(function, step, key, part):
    return "", ((_of_globals, _of_home, _of_function_names)[key], function)


def _of_globals(function, step, key, part):
    return (f".__globals__[{shown(key)}]" if step == VALUE else ""), None


def _of_home(function, step, key, part):
    """What stands for the globals, or for the imports to be made: nothing that one would look at."""
    return "", (_of_globals, function)


def _of_function_names(function, step, key, part):
    if key == "__dict__":
        return "", (_of_names, function)
    return _of_names(function, step, key, part)


def _of_lru_cache(wrapper, step, key, part):
    if step == ARG:
        return (".__wrapped__" if key == 0 else ""), None
    return ("", (_of_names, wrapper)) if step == STATE else _of_any(wrapper, step, key, part)


# -- classes -------------------------------------------------------------------------------------


def _of_class(cls, step, key, part):
    if step == ARG:
        if key == 2 and type(part) is int:  # the metaclass is that of a base
            return "", None
        return _CLASS_ARGUMENTS[key]
    return ("", (_of_class_contents, cls)) if step == STATE else _of_any(cls, step, key, part)


def _of_class_contents(cls, step, key, part):
    return "", ((_of_class_names, _of_registered, _of_names)[key], cls)


def _of_class_names(cls, step, key, part):
    # Of a static or class method, the attribute is the function.
    return f".{key}", ((_of_wrapper, part) if type(part) in (staticmethod, classmethod) else None)


def _of_wrapper(wrapper, step, key, part):
    return ("", view_of(part)) if step == ARG else _of_any(wrapper, step, key, part)


def _of_registered(cls, step, key, part):
    return ".__subclasshook__", None


def _of_bases(known, step, key, part):
    return f".__bases__[{key}]", None


def _of_members(known, step, key, part):
    return "", (_of_member, f".{part[0]}")


def _of_member(label, step, key, part):
    """A pair of the name of an enum's member and what it is to be made of."""
    if step == ARG:
        return (f"{label}.value", None) if key == 0 else ("", (_of_member_parts, label))
    return "", (_of_member, label)


def _of_member_parts(label, step, key, part):
    return f"{label}.{key if step == VALUE else 'value'}", None


_CLASS_ARGUMENTS = (
    ("", None),  # token
    ("", None),  # where
    (".__class__", None),
    ("", None),  # name
    ("", (_of_bases, None)),
    ("", (_of_names, None)),
    ("", (_of_members, None)),
    ("", (_of_names, None)),  # options
)


# -- others --------------------------------------------------------------------------------------


def _of_module(module, step, key, part):
    if step == ARG:
        return "", None
    return ("", (_of_names, module)) if step == STATE else _of_any(module, step, key, part)


def _of_partial(partial, step, key, part):
    if step == STATE and type(part) is tuple:
        return "", (_of_partial_state, partial)
    return _of_any(partial, step, key, part)


def _of_partial_state(partial, step, key, part):
    return ((".func", None), (".args", None), (".keywords", None), ("", (_of_names, partial)))[key]


def _of_exception(error, step, key, part):
    if step == ARG and key < len(error.args) and error.args[key] is part:
        return f".args[{key}]", None
    return _of_any(error, step, key, part)


def _of_tuple(thing, step, key, part):
    """An instance of a subclass, of a namedtuple mostly."""
    if step == ARG:
        fields = getattr(type(thing), "_fields", ())
        items = list(tuple.__iter__(thing))
        for place in (key, key - 1, *range(len(items))):
            if 0 <= place < len(items) and items[place] is part:
                named = place < len(fields) and type(fields[place]) is str
                return (f".{fields[place]}" if named else f"[{place}]"), None
        if type(part) is tuple and len(part) == len(items):
            return "", view_of(part)
    return _of_any(thing, step, key, part)


def _of_set(thing, step, key, part):
    if step == ARG and type(part) is list:
        return "", (_of_elements, thing)
    return _of_any(thing, step, key, part)


def _of_elements(thing, step, key, part):
    return f".{{{shown(part)}}}", None


def _of_proxy(proxy, step, key, part):
    return ("", view_of(part)) if step == ARG else _of_any(proxy, step, key, part)


def _of_keys(view, step, key, part):
    return (".mapping", None) if step == ARG else _of_any(view, step, key, part)


def _of_synchronized(wrapper, step, key, part):
    if step == ARG:
        return (".get_obj()", ".get_lock()")[key], None
    return _of_any(wrapper, step, key, part)


_BY_TYPE = {
    tuple: _of_any,
    list: _of_any,
    dict: _of_any,
    set: _of_any,
    frozenset: _of_any,
    types.FunctionType: _of_function,
    types.CellType: _of_bare_cell,
    types.MappingProxyType: _of_proxy,
    type(functools.lru_cache(len)): _of_lru_cache,
    type({}.keys()): _of_keys,
    type({}.values()): _of_keys,
    type({}.items()): _of_keys,
}

_BY_BASE = (
    (_kin.SynchronizedBase, _of_synchronized),
    (type, _of_class),
    (types.ModuleType, _of_module),
    (functools.partial, _of_partial),
    (BaseException, _of_exception),
    (tuple, _of_tuple),
    (set, _of_set),
    (frozenset, _of_set),
    (weakref.WeakSet, _of_set),
)


# -- all parts -----------------------------------------------------------------------------------


def steps_of(thing, reduced=None):
    """The steps from `thing` in the order of pickling: triples (step, key, part).

    reduced  a reduction of six, as `__reduce_ex__` may return it, its iterators made lists; None
             for exactly a list, tuple, dict, set or frozenset
    """
    if reduced is None:
        yield from _WALKS[type(thing)](thing)
        return
    maker, arguments, state, items, entries, setter = reduced
    yield MAKER, None, maker
    for index, part in enumerate(arguments):
        yield ARG, index, part
    for index, part in enumerate(items or ()):
        yield LIST_ITEM, index, part
    for key, value in entries or ():
        yield DICT_KEY, key, key
        yield DICT_VALUE, key, value
    if state is not None:
        yield STATE, None, state
    if setter is not None:
        yield SETTER, None, setter


def _items(thing):
    return ((ITEM, index, part) for index, part in enumerate(thing))


def _entries(mapping):
    for key, value in list(mapping.items()):
        yield KEY, key, key
        yield VALUE, key, value


def _elements(thing):
    return ((ELEMENT, part, part) for part in list(thing))


_WALKS = {list: _items, tuple: _items, dict: _entries, set: _elements, frozenset: _elements}


def _is_its_names(thing, reduced):
    """Whether `thing` is taken apart in the way of most: its class, and its `__dict__`."""
    maker, arguments, state, *others = reduced
    if maker is not copyreg.__newobj__ or len(arguments) != 1 or type(state) is not dict:
        return False
    own = _own_names(thing)
    return others == [None] * 3 and all(own.get(name) is state[name] for name in state)


#: Containers that a reducer has made are gone through up to this size.
MAX_WITHIN = 16


def visible_parts(thing, reduced, reduce):
    """The parts of `thing` that have a name: triples (label, part, whether it is a key).

    What lies between is gone through: `reduce(part)` gives the reductions of that.  What the
    reductions call is left out.
    """
    steps = steps_of(thing, reduced)
    if reduced is None:
        yield from _visible(view_of(thing), steps, reduce)
        return
    if _is_its_names(thing, reduced):
        yield from [(f".{name}", value, False) for name, value in reduced[2].items()]
        return
    met = set()
    for found in _visible(view_of(thing), steps, reduce):
        key = found[0], id(found[1])
        if key not in met:  # a partial's function is argument and state
            met.add(key)
            yield found


def _visible(view, steps, reduce):
    for step, key, part in steps:
        if step in (MAKER, SETTER):
            continue
        label, further = name_step(view, step, key, part)
        if label:
            yield label, part, step in (KEY, DICT_KEY)
        elif further is None or further[0] is _of_home or type(part) in ATOMS:
            continue
        elif further[0] is _within and len(part) > MAX_WITHIN:
            yield further[1][1], part, False
        else:
            reduced = None if type(part) in _WALKS else reduce(part)
            if reduced is not None or type(part) in _WALKS:
                yield from _visible(further, steps_of(part, reduced), reduce)
