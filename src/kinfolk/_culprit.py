"""After pickling has failed: where in the object the culprit is, and what could be done.

The pickler stops at something that cannot be pickled and says what it is, but
not where.  While it unwinds it notes its *trail*: each thing that it was in, and by
which step it had come from there to the next.  Here the trail becomes a path as a
person would write it, `job.sinks[2].__closure__['lock']` (kinfolk._parts knows the
names), which goes in front of the error's text; behind it goes a hint.

Only a refusal gets that: an error raised by the pickling machinery or by a method
that pickling calls.  Any other error that user code raised on the way is left as it
is, apart from a note (Python 3.11 and later).

The error keeps the way, so that a caller further out who knows a better name than
`obj` can say so (`rename`).  It is kept as strings and addresses: an error may live
long, and travel, and must not hold the things that it speaks of.
"""

from _pickle import PicklingError

from . import _hints
from ._parts import joined, name_step, view_of

__all__ = ["explain_trail", "path_of", "rename"]

#: The steps that a note shows, the last ones.
NOTED = 6


def explain_trail(error, trail, root="obj", by_value=True):
    """Say in `error` where the culprit is.  Returns `error`.

    trail  triples (thing, step, key), outermost first: by `step` (see kinfolk._parts) the
           pickler went from `thing` to the next one's; the last is (culprit, -1, None)
    root   what the outermost thing is called; None if it has no name that would help
    """
    if isinstance(error, (OSError, MemoryError, RecursionError)):
        return error  # these come of the place or the size, not of one thing
    try:
        way = path_of(trail)
        hint = _hints.hint_for(trail[-1][0], by_value)
        raiser = _raiser(error)
        known = raiser, hint if raiser == _MACHINERY else "", way
        # An error that has a way came out of a pickling within this one: its text is final.
        error.__kinfolk_unexplained__ = error.args
        error.__kinfolk_trail__ = known
        _write(error, root)
    except Exception:  # the objects' own code may do anything: then the error stays as it was
        pass
    return error


def rename(error, parts):
    """Begin the path in `error` anew with one of the names in `parts`, a mapping to the things.

    Does nothing if the error was not explained, or none of the things is on its way.
    Returns `error`.
    """
    known = getattr(error, "__kinfolk_trail__", None)
    if known is None:
        return error
    names = {id(thing): name for name, thing in parts.items()}
    for place, (_, _, address) in enumerate(known[2]):
        if address in names:
            _write(error, names[address], place)
            break
    return error


def path_of(trail):
    """The way along `trail`: a tuple of (label, type's name, address), for each visible thing."""
    thing = trail[0][0]
    view, found = view_of(thing), [_described("", thing)]
    for (_, step, key), (part, _, _) in zip(trail, trail[1:]):
        label, view = name_step(view, step, key, part)
        if label:
            found.append(_described(label, part))
        elif view is None:
            found[-1] = _described(found[-1][0], part)
        if view is None:
            view = view_of(part)
    return tuple(found)


def _described(label, thing):
    return label, _hints.type_name(type(thing)), id(thing)


# -- into the error ------------------------------------------------------------------------------


def _write(error, root, place=0):
    """Put the way into `error`, from `place` on, where the thing is called `root`."""
    raiser, hint, way = error.__kinfolk_trail__
    own = error.__kinfolk_unexplained__
    labels = [root or "", *(label for label, _, _ in way[place + 1 :])]
    if raiser and own and isinstance(own[0], str):
        path = _path(labels) if len(labels) > 1 else ""
        text = f"{path}: {own[0]}" if path else own[0]
        error.args = (f"{text}; {hint}" if hint else text, *own[1:])
    if hasattr(error, "add_note"):
        _replace_note(error, _note(labels, [kind for _, kind, _ in way[place:]]))


def _path(labels):
    return joined(labels).removeprefix(".")  # without a root the first part is the beginning


_MACHINERY, _HOOK = "the pickling machinery", "a hook that refuses"
_MACHINERY_MODULES = ("copyreg", "kinfolk._enums")
_HOOKS = ("__getstate__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__")


def _raiser(error):
    """Who has refused: _MACHINERY, _HOOK (an object's own method); "" for any other error."""
    if not isinstance(error, (PicklingError, TypeError, AttributeError)):
        return ""
    traceback = error.__traceback__
    if traceback is None:
        return _MACHINERY
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    if frame.f_globals.get("__name__") in _MACHINERY_MODULES:
        return _MACHINERY
    return _HOOK if frame.f_code.co_name in _HOOKS else ""


_NOTE = "kinfolk: the way to what cannot be pickled:"


def _note(labels, kinds):
    paths = [_path(labels[:count]) or "(the whole)" for count in range(1, len(labels) + 1)]
    lines = list(zip(paths, kinds))[-NOTED:]
    width = max(len(path) for path, _ in lines)
    return "\n".join([_NOTE, *(f"  {path:<{width}}  {kind}" for path, kind in lines)])


def _replace_note(error, note):
    notes = [each for each in getattr(error, "__notes__", ()) if not each.startswith(_NOTE)]
    error.__notes__ = [*notes, note]
