"""How an object would travel to a child: what kinfolk.explain() finds out.

The walk goes over the object as the pickler would and takes the decisions that it
would take, part by part, for a child that is started now: by fork, or afresh.  Each
reducer of the object's own is called once; what it gave is kept, and the pickles by which
sizes are measured are made of that.  A part that refuses is a problem, and the walk
goes on: so all problems are found, not the first alone.

While it walks, this thread looks as if a child were being started, so that what only
travels then is not refused, and descriptors are told instead of duplicated.

The parts and their names are those of kinfolk._parts, what stands for a decision is
asked of kinfolk._findable and of the pickler itself; kinfolk._explain_show draws the tree.
"""

import copyreg
import io
import sys
import time
import types
from _pickle import PickleBuffer
from itertools import chain
from typing import NamedTuple

from . import _findable, _hints, _kin, _mainsource, context, pickle, process, reduction
from ._parts import ATOMS, joined, visible_parts

__all__ = ["Explanation", "Problem", "explain"]

#: The walk is given up after so many things, or so many seconds.
MAX_THINGS = 100_000
MAX_SECONDS = 4.0
#: Sizes are measured as long as that takes no longer.
MAX_SECONDS_SIZES = 1.0

#: Buffers of so many bytes ride beside the pickle: KINX_OUT_OF_BAND in ext/pickle/pickler.h.
OUT_OF_BAND = 32 * 1024

#: What the tree shows of a container with more parts than MANY.
MANY, FIRST, KINDS, TROUBLES = 10, 3, 12, 5
#: An object is shown with so many of its attributes.
MANY_ATTRIBUTES = 40
#: A container of numbers and strings is shown whole, in so many columns.
SHORT = 40

COPIED, BY_NAME, BY_VALUE, BY_REF = "copied", "by name", "by value", "by ref"
DESCRIPTOR, BESIDE, CANNOT, ABOVE = "descriptor", "out of band", "cannot", "as above"
UNSEEN = "not looked at"

_UNSIZED = (BY_NAME, ABOVE, UNSEEN, CANNOT, DESCRIPTOR)

METHODS = ("fork", "spawn", "forkserver")

_CONTAINERS = {list: "item", tuple: "item", dict: "entry", set: "element", frozenset: "element"}
_PLAIN = frozenset(ATOMS) - {types.BuiltinFunctionType}


class Problem(NamedTuple):
    """A part that cannot travel."""

    path: str
    why: str
    hint: str


class Node:
    """A part in the tree.

    label      how it is written after `whole`, what it is a part of
    path       how it is written from the top
    kind       its type's name
    how        one of COPIED, BY_NAME, ...
    what       a few words more; may be empty
    size       bytes of the pickle that it makes; None if not known
    parts      list of Node: those shown
    more       how many parts there are besides, and whether they are like those shown
    inherited  whether a forked child has it, and finds it by its name alone
    """

    __slots__ = (
        "how",
        "inherited",
        "kind",
        "label",
        "more",
        "numbers",
        "parts",
        "size",
        "thing",
        "trouble",
        "what",
        "whole",
    )

    def __init__(self, label, whole, thing, how=COPIED, what=""):
        self.label = label
        self.whole = whole
        self.thing = thing
        self.kind = _kind_name(type(thing))
        self.how = how
        self.what = what
        self.size = None
        self.parts = []
        self.more = 0, True
        self.inherited = False
        self.numbers = range(0)  # of the things met in it, itself the first
        self.trouble = how == CANNOT

    @property
    def path(self):
        labels, node = [], self
        while node is not None:
            labels.append(node.label)
            node = node.whole
        labels.reverse()
        return joined(labels)


class Explanation:
    """What explain() found: print it, or ask it.

    name         what the object is called
    method       the start method that was asked about; None: all of them
    travels      whether it would arrive; with method None: at any child, however started
    problems     list of Problem(path, why, hint): what keeps it from travelling
    size         bytes of the pickle; None if there is none
    out_of_band  bytes of the buffers that ride beside the pickle
    root         the tree: a Node

    str() is plain text.  print() uses colour, if the file is a terminal.
    """

    def __init__(self, name, method, root, walk, forked, size, beside):
        self.name = name
        self.method = method
        self.root = root
        self.problems = walk.troubles
        self.size = size
        self.out_of_band = sum(beside)
        self.buffers = len(beside)
        #: Whether there is something that forked children need not be sent.
        self.has_inherited = walk.has_inherited
        self._forked = forked

    @property
    def travels(self):
        return not self.problems

    def problems_of(self, method):
        """The problems that there are with children started by `method`, as messages."""
        return self._forked if method == "fork" else self.problems

    def print(self, file=None, *, depth=None, width=None):
        """Write it to `file` (sys.stdout): `depth` levels deep, in lines of `width` columns."""
        from . import _explain_show

        _explain_show.write(self, file, depth, width)

    def text(self, *, depth=None, width=None):
        """The plain text."""
        from . import _explain_show

        return _explain_show.plain(self, depth, width)

    def __str__(self):
        return self.text()

    __repr__ = __str__

    def _repr_html_(self):
        from . import _explain_show

        return _explain_show.html(self)

    def __rich_console__(self, console, options):
        from . import _explain_show

        return _explain_show.lines(self, None, options.max_width, options.ascii_only)


def explain(obj, *, method=None, name="obj"):
    """Find out how `obj` would travel to a child process, part by part.  Returns an Explanation.

    method  "fork", "spawn" or "forkserver": how the child is started; None: any of them
    name    what paths begin with

    The child is one that is started now: what older ones have may be less.  Each reducer of the
    objects is called once.  In a script: `kinfolk.explain(job).print()`.
    """
    if method not in (None, *METHODS):
        raise ValueError(f"cannot find context for {method!r}")
    walk = _Walk("fork" if method == "fork" else "spawn")
    with _as_if_starting():
        root = walk.over(obj, name)
        size, beside = walk.measure(root)
        forked = walk
        if method is None and walk.has_inherited and walk.troubles:
            # What keeps a name's value from travelling does not matter where the name is enough.
            forked = _Walk("fork", dict(walk.reduced))
            forked.over(obj, name)
    return Explanation(name, method, root, walk, forked.troubles, size, beside)


class _Descriptor:
    """What stands for a descriptor in a reduction."""

    def __init__(self, fd):
        self.fd = fd


class _NoChild:
    """What looks like a Popen at work."""

    method = "spawn"
    DupFd = _Descriptor

    def duplicate_for_child(self, fd):
        return fd


class _as_if_starting:
    def __enter__(self):
        self._before = context.get_spawning_popen()
        context.set_spawning_popen(_NoChild())

    def __exit__(self, *exc_info):
        context.set_spawning_popen(self._before)


class _Asked(reduction.ForkingPickler):
    """Tells reductions; never used to pickle.  Not among kin: it is to give the value, too."""

    kin = False


class _Again(reduction.ForkingPickler):
    """Pickles what has been walked over, from the reductions that were kept."""

    kin = False

    def __init__(self, walk, buffers):
        self.size = 0
        self._walk = walk
        self._buffers = buffers
        super().__init__(self, 5, buffer_callback=self._keep)

    def write(self, data):
        self.size += len(data) if isinstance(data, bytes) else memoryview(data).nbytes

    def _keep(self, buffer):
        length = _length_beside(buffer)
        if length is None:
            return True
        self._buffers.append(length)
        return False

    def reducer_override(self, obj):
        found = self._walk.reduced.get(id(obj))
        if found is None:
            return NotImplemented
        if found[1] is None:
            return found[2] or NotImplemented
        maker, arguments, state, items, entries, setter = found[1]
        items = None if items is None else iter(items)
        entries = None if entries is None else iter(entries)
        return (maker, arguments, state, items, entries, setter)[: 6 if setter else 5]


class _AgainPart(_Again):
    """Pickles a part by itself: what the whole has elsewhere, too, counts there."""

    def __init__(self, walk, node):
        self._numbers = node.numbers
        super().__init__(walk, [])

    def persistent_id(self, obj):
        number = self._walk.number_of(obj)
        return None if number is None or number in self._numbers else 0


def _look_at_buffer(buffer):
    """How a PickleBuffer travels, and its length in words.  BufferError if it cannot."""
    length = buffer.raw().nbytes
    return (BESIDE if length >= OUT_OF_BAND else COPIED), _length(length)


def _length_beside(buffer):
    """The length of a PickleBuffer that rides beside the pickle; None if it goes into it."""
    try:
        length = buffer.raw().nbytes
    except BufferError:  # not contiguous
        return None
    return length if length >= OUT_OF_BAND else None


class _Refused(Exception):
    """Carries the error by which a thing has refused."""

    def __init__(self, error):
        super().__init__(error)
        self.error = error


# -- the walk ------------------------------------------------------------------------------------


class _Walk:
    def __init__(self, method, reduced=None):
        self._method = method
        self._asked = _Asked(io.BytesIO())
        self._reducers = copyreg.dispatch_table | reduction.ForkingPickler._extra_reducers
        self._seen = {}  # id -> node
        self._open = set()  # ids of the things that the walk is in
        self._give_up = time.monotonic() + MAX_SECONDS
        self._wanted = []  # (node, its parts to come)
        #: id -> (thing, reduction of six or None, name if it goes by that)
        self.reduced = {} if reduced is None else reduced
        self._classes = {}  # id -> whether it goes by name
        #: Whether something goes by value that a forked child would have by name.
        self.has_inherited = False
        self.troubles = []  # list of Problem

    def over(self, thing, name):
        """The tree of `thing`."""
        root = self._meet(name, None, thing)
        while self._wanted:
            node, parts = self._wanted[-1]
            try:
                label, part, is_key = next(parts)
            except StopIteration:
                self._finish(node)
                continue
            except Exception as error:  # a container that changed meanwhile, or worse
                self._refuse(node, error)
                self._finish(node)
                continue
            if is_key and type(part) in _PLAIN:
                continue
            node.parts.append(self._meet(label, node, part))
        return root

    def _finish(self, node):
        self._wanted.pop()
        self._open.discard(id(node.thing))
        node.numbers = range(node.numbers.start, len(self._seen))
        node.trouble = node.trouble or any(part.trouble for part in node.parts)
        if node.how == BY_VALUE:
            node.parts = [part for part in node.parts if not _is_plumbing(node.thing, part)]
        _shorten(node)

    def _meet(self, label, whole, thing):
        kind = type(thing)
        node = Node(label, whole, thing)
        if kind in _PLAIN:
            node.what = _preview(thing)
            return node
        known = self._seen.get(id(thing))
        if known is not None:
            if known.how == BY_NAME:
                node.how, node.what = BY_NAME, known.what
            else:
                node.how = ABOVE
                node.what = f"{'inside ' if id(thing) in self._open else ''}{known.path}"
            return node
        if len(self._seen) >= MAX_THINGS or time.monotonic() > self._give_up:
            node.how = UNSEEN
            return node
        number = len(self._seen)
        node.numbers = range(number, number + 1)
        if kind not in _CONTAINERS or thing:
            self._seen[id(thing)] = node
        try:
            parts = self._look(node, thing)
        except Exception as error:
            self._refuse(node, error)
            return node
        if parts is not None:
            self._open.add(id(thing))
            self._wanted.append((node, parts))
        return node

    def _look(self, node, thing):
        """Fill in how `thing` travels; returns an iterator over its parts, or None."""
        kind = type(thing)
        if kind in _CONTAINERS:
            return self._look_into(node, thing)
        if kind is PickleBuffer:
            node.how, node.what = _look_at_buffer(thing)
            return None
        if issubclass(kind, (types.FunctionType, type)):
            return self._look_at_definition(node, thing)
        reduced = self.reduce(thing)
        if reduced is None:
            node.how, node.what = BY_NAME, _full_name(thing, self.reduced[id(thing)][2])
            return None
        if issubclass(kind, types.ModuleType):
            if reduced[2] is None:
                node.how, node.what = BY_NAME, _shown_name(thing.__name__)
                return None
            node.how, node.what = BY_VALUE, "a module made at run time"
        return self._look_at_object(node, thing, reduced)

    def _look_into(self, node, thing):
        count = len(thing)
        if count <= MANY and (not count or _is_plain(thing)):
            text = repr(thing)
            if len(text) <= SHORT:
                node.what = text
                return None
        one = _CONTAINERS[type(thing)]
        many = "entries" if one == "entry" else f"{one}s"
        node.what = f"{count:,} {one if count == 1 else many}"
        parts = visible_parts(thing, None, self.reduce)
        if count > MANY and _is_plain(thing):
            node.more = count - FIRST, len(set(map(type, _values(thing)))) == 1
            return (part for _, part in zip(range(FIRST), (each for each in parts if not each[2])))
        return parts

    def _look_at_definition(self, node, thing):
        """A function or class."""
        module_name, qualname = thing.__module__, thing.__qualname__
        standing = _findable.standing(thing, module_name, qualname, False)
        if standing == _findable.BY_SPARE and self._child_has(module_name, qualname):
            self._note(thing, None, qualname)
            node.how, node.what = BY_NAME, _shown_name(f"{module_name}.{qualname}")
            return None
        reduced = self.reduce(thing)
        is_alias = reduced is not None and len(reduced[1]) == 2  # for a type of the interpreter's
        if reduced is None or is_alias:
            node.how, node.what = BY_NAME, _shown_name(f"{module_name}.{qualname}")
            return None
        node.how, node.what = BY_VALUE, _why_by_value(thing, module_name, qualname)
        node.inherited = standing == _findable.BY_SPARE
        self.has_inherited = self.has_inherited or node.inherited
        return visible_parts(thing, reduced, self.reduce)

    def _child_has(self, module_name, qualname):
        """Whether a child started now has what is found here, though others could not import it."""
        if self._method == "fork":
            return True
        if module_name not in _findable.MAIN_MODULES:
            return False
        main = sys.modules["__main__"]
        return qualname.partition(".")[0] in _mainsource.names_outside_guard(main)

    def _look_at_object(self, node, thing, reduced):
        maker, arguments = reduced[:2]
        for part in arguments:
            if type(part) is _Descriptor:
                node.how, node.what = DESCRIPTOR, f"{part.fd}: the child gets a duplicate"
                return None
        if _is_private_wrapper(thing):
            node.what = "a ctypes object and its lock"
            return iter(((".get_obj()", thing._obj, False), (".get_lock()", thing._lock, False)))
        if _is_shared(thing) or any(map(_is_shared, arguments)):
            node.how, node.what = BY_REF, _ref_words(thing)
            return None
        if issubclass(type(thing), process.AuthenticationString):
            node.what = "a secret: travels only while a child is started"
            return None
        buffers = [part for part in arguments if type(part) is PickleBuffer]
        if len(buffers) == 1:
            node.how, length = _look_at_buffer(buffers[0])
            node.what = f"{length}{_shape_of(thing)}"
            return None
        kind = type(thing)
        parts = visible_parts(thing, reduced, self.reduce)
        if _is_enum(kind):
            node.what = _shown_name(
                f"{kind.__module__}.{kind.__qualname__}.{thing._name_ or thing._value_}"
            )
            return iter(() if self._goes_by_name(kind) else ((".__class__", kind, False),))
        if node.how != COPIED:
            return parts
        if kind in (types.MethodType, types.BuiltinFunctionType):
            node.what = f"a method, {thing.__qualname__}"
            return (part for part in parts if type(part[1]) not in _PLAIN)
        if kind.__module__ in sys.stdlib_module_names:
            node.what = _preview(thing) if _is_value(reduced) else ""
            return None if node.what else self._without_class(parts, kind)
        node.what = _made_by(kind, maker)
        parts = self._without_class(parts, kind)
        has_class = any(part is kind for part in (maker, *arguments))
        if not has_class or self._goes_by_name(kind):
            return parts
        # First of all, for there is more to say of it than its name.
        return chain([(".__class__", kind, False)], parts)

    @staticmethod
    def _without_class(parts, kind):
        return (part for part in parts if part[1] is not kind)

    def _goes_by_name(self, kind):
        found = self._classes.get(id(kind))
        if found is None:
            found = self._classes[id(kind)] = self._is_by_name(kind)
        return found

    def _is_by_name(self, kind):
        module_name, qualname = kind.__module__, kind.__qualname__
        standing = _findable.standing(kind, module_name, qualname, False)
        if standing != _findable.BY_SPARE or not self._child_has(module_name, qualname):
            return standing == _findable.BY_NAME
        self._note(kind, None, qualname)
        return True

    # Reductions

    def reduce(self, thing):
        """The reduction of `thing`, of six parts; None if it goes by name.  _Refused."""
        known = self.reduced.get(id(thing))
        if known is None:
            try:
                reduced = self._ask(thing)
            except Exception as error:
                raise _Refused(error)
            known = self._note(thing, *reduced)
        return known[1]

    def _note(self, thing, reduced, name):
        self.reduced[id(thing)] = known = thing, reduced, name
        return known

    def _ask(self, thing):
        """(reduction or None, name or None)."""
        reduced = self._asked.reducer_override(thing)
        if reduced is NotImplemented or _is_same(reduced, thing):
            if issubclass(type(thing), (types.FunctionType, type)):
                pickle.dumps(thing)  # raises if the name leads nowhere
                return None, None
            reducer = self._reducers.get(type(thing))
            reduced = reducer(thing) if reducer is not None else thing.__reduce_ex__(5)
        if isinstance(reduced, str):
            pickle.dumps(thing)
            return None, reduced
        return _of_six(thing, reduced), None

    def _refuse(self, node, error, path=None):
        if isinstance(error, _Refused):
            error = error.error
        own = getattr(error, "__kinfolk_unexplained__", error.args)
        why = str(own[0]) if own else ""
        if not isinstance(error, (pickle.PicklingError, TypeError, AttributeError)):
            why = f"{type(error).__name__}: {why}" if why else type(error).__name__
        hint = _TOO_DEEP if type(error) is RecursionError else _hints.hint_for(node.thing, True)
        node.how, node.what, node.trouble = CANNOT, why, True
        self.troubles.append(Problem(path or node.path, why, hint))

    # Sizes

    def measure(self, root):
        """Fill in the sizes of the nodes shown; returns the pickle's, and those of the buffers."""
        give_up = time.monotonic() + MAX_SECONDS_SIZES
        size, beside = None, []
        if not root.trouble:
            try:
                pickler = _Again(self, beside)
                pickler.dump(root.thing)
                size = root.size = pickler.size
            except Exception as error:
                self._refuse(root, error, _path_in(error, root))
                return None, []
        waiting = list(root.parts)
        for node in waiting:  # grows meanwhile: level by level
            if time.monotonic() > give_up:
                break
            waiting.extend(node.parts)
            if node.trouble or node.how in _UNSIZED:
                continue
            try:
                pickler = _AgainPart(self, node)
                pickler.dump(node.thing)
                node.size = _without_frame(pickler.size)
            except Exception:  # what is measured by itself lacks what was around it
                pass
        return size, beside

    def number_of(self, thing):
        """The number of `thing`, in the order in which things were met; None if it was not."""
        node = self._seen.get(id(thing))
        return None if node is None else node.numbers.start


def _path_in(error, root):
    """Where the pickler has failed that was to pickle `root`; None if it has not said so."""
    _, _, way = getattr(error, "__kinfolk_trail__", (None, None, ()))
    return joined([root.label, *(label for label, _, _ in way[1:])]) if way else None


_TOO_DEEP = "it is nested deeper than a pickler can go: send it in pieces, or as a list"


def _without_frame(size):
    """Of a pickle of `size` bytes, those that it would make in a larger one."""
    return size - 12 if size >= 15 else size - 3


def _is_same(reduced, thing):
    """Whether a reducer only says that another thing is to be written before `thing`."""
    return (
        type(reduced) is tuple and len(reduced) == 2 and any(part is thing for part in reduced[1])
    )


def _of_six(thing, reduced):
    if not isinstance(reduced, tuple) or not 2 <= len(reduced) <= 6:
        raise pickle.PicklingError("__reduce__ must return a string or a tuple of two to six")
    maker, arguments, state, items, entries, setter = (*reduced, *(None,) * (6 - len(reduced)))
    if not callable(maker) or not isinstance(arguments, tuple):
        raise pickle.PicklingError("__reduce__ must return a callable and a tuple of arguments")
    items = None if items is None else list(items)
    entries = None if entries is None else list(entries)
    return maker, arguments, state, items, entries, setter


# -- words ---------------------------------------------------------------------------------------


def _kind_name(kind):
    return kind.__qualname__.rpartition(".")[2]


def _shown_name(name):
    """A child runs the main module as __mp_main__; people know it as __main__."""
    return f"__main__{name[11:]}" if name.partition(".")[0] == "__mp_main__" else name


def _full_name(thing, name):
    module_name = getattr(thing, "__module__", None)
    if type(module_name) is not str or module_name == "builtins":
        return name
    return _shown_name(f"{module_name}.{name}")


def _why_by_value(thing, module_name, qualname):
    kind = "class" if issubclass(type(thing), type) else "function"
    if type(module_name) is not str or type(qualname) is not str:
        return f"a {kind} without a name"
    if _findable.is_registered(module_name):
        return f"{module_name} is registered for pickling by value"
    if qualname.endswith("<lambda>"):
        return f"a lambda{_place_of(thing)}"
    if "<" in qualname:
        return f"a {kind} local to {qualname.rpartition('.<')[0]}()"
    name = _shown_name(f"{module_name}.{qualname}")
    found = _findable.resolve(module_name, qualname)
    if found is _findable.MISSING:
        return f"{name} is not there"
    if found is not thing:
        return f"replaced: {name} is another thing by now"
    if module_name not in _findable.MAIN_MODULES:
        return f"{module_name} cannot be imported by others: made at run time"
    if _mainsource.names_outside_guard(sys.modules["__main__"]):
        return f"{name}, under the guard, which a fresh child does not run"
    return f"{name}, and a child cannot run the main program again"


def _place_of(function):
    code = getattr(function, "__code__", None)
    if code is None or code.co_filename.startswith("<"):
        return ""
    return f" ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"


def _made_by(kind, maker):
    name = _shown_name(f"{kind.__module__}.{kind.__qualname__}")
    own = maker is kind or getattr(maker, "__module__", "") == "copyreg"
    if own or not isinstance(maker, types.FunctionType):
        return name
    return f"{name}, made by {_shown_name(f'{maker.__module__}.{maker.__qualname__}')}()"


def _is_enum(cls):
    """Whether `cls` is an enum.  Where nothing has imported `enum`, there are none."""
    enum = sys.modules.get("enum")
    return enum is not None and issubclass(type(cls), enum.EnumMeta)


def _is_shared(thing):
    """Whether `thing` lives in the family's arena, and its pickle is a ref to it."""
    if issubclass(type(thing), _kin.Shared):
        return True
    return type(thing).__module__ in _SHARED_MODULES


_SHARED_MODULES = (
    "kinfolk._barrier",
    "kinfolk._proxies",
    "kinfolk._proxy_types",
    "kinfolk.heap",
    "kinfolk.managers",
    "kinfolk.queues",
    "kinfolk.shared_memory",
    "kinfolk.sharedctypes",
    "kinfolk.synchronize",
)


def _is_private_wrapper(thing):
    """Whether `thing` is what Value() or Array() make, over an object or a lock that is not shared."""
    sharedctypes = sys.modules.get("kinfolk.sharedctypes")
    if sharedctypes is None or not issubclass(type(thing), sharedctypes.SynchronizedBase):
        return False
    return not (_is_shared(thing._lock) and sharedctypes.is_shared(thing._obj))


def _ref_words(thing):
    if _is_array(thing):
        return f"{_length(thing.nbytes)}{_shape_of(thing)}: it stays in the family's arena"
    if type(thing).__module__ in ("kinfolk._proxies", "kinfolk._proxy_types", "kinfolk.managers"):
        return "to an object that a manager holds"
    if type(thing).__module__ == "kinfolk.shared_memory":
        return "to a segment of shared memory, by its name"
    return "it stays in the family's arena"


def _is_plain(container):
    """Whether all parts are numbers, strings and the like."""
    kinds = set(map(type, container))
    if type(container) is dict:
        kinds |= set(map(type, container.values()))
    return kinds <= _PLAIN


def _is_plumbing(thing, part):
    """Whether a part of a class or function is what all have, and nobody would look for."""
    label = part.label
    if part.trouble or not (label.startswith("._") and label.endswith("_")):
        return False
    return _is_enum(thing) or type(part.thing) in _PLAIN or label in _KEPT_BY_CLASSES


_KEPT_BY_CLASSES = (".__slotnames__", ".__static_attributes__", ".__dataclass_params__")


def _is_array(thing):
    return type(thing).__module__ in ("numpy", "kinfolk._shared_array")


def _shape_of(thing):
    if not _is_array(thing):
        return ""
    return f" of {thing.dtype}, {' × '.join(map(str, thing.shape)) or 'a scalar'}"


def _values(container):
    return container.values() if type(container) is dict else container


def _is_value(reduced):
    """Whether there is nothing in a reduction but atoms, so that the thing's repr() says it all."""
    _, arguments, state, items, entries, _ = reduced
    return all(type(part) in _PLAIN for part in (*arguments, state)) and not items and not entries


def _preview(thing):
    try:
        if issubclass(type(thing), (str, bytes, bytearray)) and len(thing) > 40:
            return f"{thing[:32]!r}…"
        text = repr(thing)
    except Exception:
        return ""
    return text if len(text) <= 60 else f"{text[:56]}…"


def _length(count):
    """A number of bytes, for people."""
    if count < 1024:
        return f"{count} B"
    number = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1000 or unit == "GiB":
            break
    return f"{number:.1f} {unit}"


def _shorten(node):
    """Leave only some of many parts: the first, one of each kind, and what cannot travel."""
    if len(node.parts) <= (MANY if type(node.thing) in _CONTAINERS else MANY_ATTRIBUTES):
        return
    shown, kinds, troubles, alike = [], set(), 0, True
    for place, part in enumerate(node.parts):
        sort = part.kind, part.how
        if part.trouble:
            troubles += 1
        if place < FIRST or (part.trouble and troubles <= TROUBLES):
            shown.append(part)
        elif sort not in kinds and len(kinds) < KINDS:
            shown.append(part)
        else:
            alike = alike and sort in kinds
            continue
        kinds.add(sort)
    node.more = len(node.parts) - len(shown), alike
    node.parts = shown
