"""What a function's code mentions: the globals it names, the submodules it reaches through them.

Both are read off the bytecode, with those of the functions and classes nested in
it, once per code object.  A name counts as a global where an instruction looks
it up as one; that an attribute or a local has the same name does not make the
function need that global.
"""

import sys
import types

from ._identity import WeakIdMap

__all__ = ["names_used", "submodules_used"]

_used = WeakIdMap()  # code -> (names looked up as globals, all names)


def names_used(code):
    """The global names that `code` and the code nested in it read or assign; a tuple."""
    return _read(code)[0]


def submodules_used(function, namespace):
    """Modules to be imported before `function` runs, though it names them nowhere whole.

    `import concurrent.futures` gives a function the global `concurrent`; that the
    submodule is there is an effect of the import, which the receiver must repeat.
    """
    names = _read(function.__code__)[1]
    found = []
    for value in (*namespace.values(), *_cell_contents(function)):
        if type(value) is types.ModuleType:
            _follow(value, names, found)
    return tuple(found)


def _follow(module, names, found):
    for name in names:
        full = f"{module.__name__}.{name}"
        submodule = sys.modules.get(full)
        if type(submodule) is types.ModuleType and vars(module).get(name) is submodule:
            if full not in found:
                found.append(full)
                _follow(submodule, names, found)


def _cell_contents(function):
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # empty
            pass


def _read(code):
    entry = _used.get(code)
    if entry is None:
        looked_up, mentioned = {}, set()
        _collect(code, looked_up, mentioned)
        entry = tuple(looked_up), frozenset(mentioned)
        _used.set(code, entry)
    return entry


def _collect(code, looked_up, mentioned):
    import dis  # takes a while, and most programs never get here

    mentioned.update(code.co_names)
    for instruction in dis.get_instructions(code):
        if _is_global_access(instruction.opname):
            looked_up[instruction.argval] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _collect(constant, looked_up, mentioned)


def _is_global_access(opname):
    """LOAD_NAME: the body of a nested class looks in its own names first, then in the globals."""
    return "GLOBAL" in opname or opname == "LOAD_NAME"
