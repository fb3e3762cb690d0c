"""What the members of this program's family know of its main module.

Pickles between kin need not carry what both sides have.  Of the main module
(and of modules made at run time, which no import finds) that is:

    A member made by fork has all that the program had defined by then.
    A member that started fresh (spawn, forkserver) has run the main module
    again as `__mp_main__`, so it has what stands outside of the guard
    `if __name__ == "__main__":`, provided the main module can be run again:
    a script or `-m module`, not a prompt, `-c` or a notebook.

A name that every member has travels alone, as in the standard library.  That
is more than thrift: the value of a worker function is also the value of each
global that it uses, and a program may well use a lock there, or a gigabyte.

The sender must know what its receivers have.  It remembers, at each fork, which
names stood for which functions and classes (`_at_every_fork`), and is told when a
fresh member is about to start (`expect_fresh_member`).  What stands outside of the
guard is read off the main module's source, once.  Whenever any of this is
unclear the value is sent along, which is never wrong, only longer.
"""

import os
import sys
import types

from ._identity import WeakIdMap

__all__ = ["MAIN_MODULES", "expect_fresh_member", "kin_have", "kin_have_module", "outside_guard"]

#: The main module's names: its own, and the one it has in a child that ran it again.
MAIN_MODULES = ("__main__", "__mp_main__")

_fresh_expected = False
_names_at_every_fork = None  # name -> id of the function or class; None before the first fork
_modules_at_every_fork = None
_outside_guard = WeakIdMap()  # main module -> frozenset of names


def expect_fresh_member():
    """Note that a member that shares no memory with this process is about to start.

    To be called before the arguments of its start are pickled.
    """
    global _fresh_expected
    _fresh_expected = True


def kin_have(qualname, thing):
    """Whether every member of the family finds `thing`, of the main module, under its name."""
    root = qualname.partition(".")[0]
    if _names_at_every_fork is not None:
        # Nested classes and methods came into being with what they are nested in.
        if _names_at_every_fork.get(root) != id(getattr(sys.modules["__main__"], root, None)):
            return False
        if not _fresh_expected:
            return True
    return root in outside_guard(sys.modules["__main__"])


def kin_have_module(name):
    """Whether every member inherited the module `name`, which it could not import."""
    return (
        not _fresh_expected
        and _modules_at_every_fork is not None
        and name in _modules_at_every_fork
    )


def outside_guard(main):
    """The names that the main module binds whenever it is run, under whatever name.

    A frozenset; empty if fresh members do not run it, or its source cannot be read.
    """
    names = _outside_guard.get(main)
    if names is None:
        path = _path_run_again(main)
        names = frozenset() if path is None else _names_bound(path)
        _outside_guard.set(main, names)
    return names


def _path_run_again(main):
    """The source that fresh members run; None where they do not (see kinfolk.spawn)."""
    path = getattr(main, "__file__", None)
    if not isinstance(path, str) or path.startswith("<"):
        return None
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        is_only_run = name == "__main__" or name.endswith(".__main__")
    else:
        is_only_run = os.path.splitext(os.path.basename(path))[0] == "ipython"
    return None if is_only_run else path


def _names_bound(path):
    import ast
    import linecache

    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()
    always, guarded = set(), set()
    _collect(ast, tree, always, guarded)
    return frozenset(always - guarded)


def _collect(ast, node, names, guarded):
    """Add the names that `node` binds at module level; those under a guard to `guarded`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(child.name)
        elif isinstance(child, ast.Name):
            if isinstance(child.ctx, ast.Store):
                names.add(child.id)
        elif isinstance(child, ast.alias):
            names.add(child.asname or child.name.partition(".")[0])
        elif isinstance(child, ast.If) and _is_guard(ast, child.test):
            _collect(ast, child, guarded, guarded)
        elif not isinstance(child, ast.Lambda):
            _collect(ast, child, names, guarded)


def _is_guard(ast, test):
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))


def _remember_names():
    global _names_at_every_fork, _modules_at_every_fork
    main = sys.modules.get("__main__")
    now = (
        {
            name: id(value)
            for name, value in list(vars(main).items())
            if isinstance(value, (types.FunctionType, type))
        }
        if main is not None
        else {}
    )
    modules = frozenset(sys.modules)
    if _names_at_every_fork is not None:
        before = _names_at_every_fork
        now = {name: value for name, value in now.items() if before.get(name) == value}
        modules &= _modules_at_every_fork
    _names_at_every_fork, _modules_at_every_fork = now, modules


os.register_at_fork(before=_remember_names)
