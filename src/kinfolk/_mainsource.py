"""What the source of the main module says: what a fresh member finds in it, and whether it may run it.

A member that starts fresh (spawn, forkserver) runs the main module again as `__mp_main__`, to find
there what the module defines outside of the guard `if __name__ == "__main__":`.  It does not where

    there is no source to run: a prompt, `-c`, standard input, a notebook;
    the source is the `__main__` of a package, a folder or an archive, or ipython's, which are meant
    to be run, not to be imported;
    the module was starting a process, outside of any guard, when it was looked at: run again it
    would come by there again.  From then on everything of it travels by value.
"""

import os
import sys
from _weakref import ref

__all__ = ["is_run_again", "is_unguarded", "names_outside_guard"]


class _Source:
    """What is known of one main module."""

    def __init__(self, main):
        self.main = ref(main)
        self.path = _path_run_again(main)
        self.names = frozenset()  # bound whenever it is run, under whatever name
        self.is_given_up = False
        self.lines = ()  # (first, last) of each statement that is executed whenever it is run
        if self.path is not None:
            self._read()

    def _read(self):
        import ast
        import linecache

        try:
            tree = ast.parse("".join(linecache.getlines(self.path)))
        except (SyntaxError, ValueError, RecursionError):
            return
        always, guarded = set(), set()
        _collect(ast, tree, always, guarded)
        self.names = frozenset(always - guarded)
        self.lines = tuple(_always_executed(ast, tree.body))

    def always_executes(self, line):
        return any(first <= line <= last for first, last in self.lines)

    def give_up(self):
        """Nobody runs it again."""
        self.path, self.names, self.is_given_up = None, frozenset(), True


def names_outside_guard(main):
    """The names that the main module binds in every fresh member, a frozenset."""
    return _source(main).names


def is_run_again(main):
    """Whether a fresh member that is started now runs the main module again."""
    source = _source(main)
    if source.path is not None:
        line = _line_being_executed(main)
        if line is not None and source.always_executes(line):
            source.give_up()
    return source.path is not None


def is_unguarded(main):
    """Whether the main module is not run again because it was starting a process."""
    return _source(main).is_given_up


_known = None


def _source(main):
    global _known
    if _known is None or _known.main() is not main:
        _known = _Source(main)
    return _known


def _line_being_executed(main):
    """The line of the main module's own code that this thread is at; None if it is not running."""
    found, frame, names = None, sys._getframe(), vars(main)
    while frame is not None:
        if frame.f_globals is names and frame.f_code.co_name == "<module>":
            found = frame.f_lineno  # the outermost one counts: others are exec()'s
        frame = frame.f_back
    return found


def _path_run_again(main):
    path = getattr(main, "__file__", None)
    if not isinstance(path, str) or path.startswith("<"):
        return None
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        is_only_run = name == "__main__" or name.endswith(".__main__")
    else:
        is_only_run = os.path.splitext(os.path.basename(path))[0] == "ipython"
    return None if is_only_run else path


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


def _always_executed(ast, statements):
    """(first line, last line) of the statements that nothing but an error keeps from being executed."""
    for statement in statements:
        if isinstance(statement, (ast.With, ast.AsyncWith, ast.For, ast.AsyncFor)):
            yield from _always_executed(ast, statement.body)
        elif isinstance(statement, ast.Try):
            yield from _always_executed(ast, [*statement.body, *statement.finalbody])
        elif not isinstance(statement, (ast.If, ast.While, ast.Match)):
            yield statement.lineno, statement.end_lineno
