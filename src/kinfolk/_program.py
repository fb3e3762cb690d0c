"""The program's main module: finding its code, and running it in a module of our own.

Two callers.  The runner (kinfolk._runner) makes `__main__` out of a script, a module or a string, as
the interpreter would have.  A child that was started afresh (kinfolk.spawn) makes `__mp_main__` out
of the main module of its parent, so that what is defined there can be found.

In both the code runs in the module that stays: what a function of it assigns to a global is seen by
whoever looks at the module.
"""

import sys

__all__ = ["CannotFind", "Program", "at_path", "in_container", "named"]


class CannotFind(Exception):
    """There is no such program; the message says why, in the interpreter's words."""


class Program:
    """Code and what its module is to say of itself."""

    def __init__(self, code, *, loader=None, file=None, cached=None, spec=None, package=None):
        self.code = code
        self.loader = loader
        self.file = file
        self.cached = cached
        self.spec = spec
        self.package = package

    def fill(self, module):
        """Give `module` the attributes that the interpreter gives to a main module."""
        module.__dict__.update(
            __doc__=None,
            __package__=self.package,
            __loader__=self.loader,
            __spec__=self.spec,
            __builtins__=sys.modules["builtins"],
        )
        if self.file is not None:
            module.__file__ = self.file
            module.__cached__ = self.cached

    def run_in(self, module):
        """Run the code as the body of `module`."""
        exec(self.code, module.__dict__)


def at_path(path, name="__main__"):
    """Return the script at `path`, source or compiled.  OSError, SyntaxError."""
    # Where importlib.machinery has them from; that module would be a millisecond of each start.
    from _frozen_importlib_external import SourceFileLoader, SourcelessFileLoader
    from io import open_code

    with open_code(path) as file:
        data = file.read()
    if path.endswith(".pyc"):
        loader = SourcelessFileLoader(name, path)
        code = loader.get_code(name)
    else:
        loader = SourceFileLoader(name, path)
        code = compile(data, path, "exec", dont_inherit=True)
    return Program(code, loader=loader, file=path)


def named(name):
    """Return the module `name`, or the __main__ of the package `name`; CannotFind."""
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        reason = f"Error while finding module specification for {name!r}"
        raise CannotFind(f"{reason} ({type(error).__name__}: {error})") from error
    if spec is None:
        raise CannotFind(f"No module named {name}")
    if spec.submodule_search_locations is not None:
        return _of_package(name)
    return _of_spec(spec, name)


def in_container(path):
    """Return the program of the folder or archive at `path`; None if it is neither.

    CannotFind if it is one and has no __main__.
    """
    from importlib.machinery import PathFinder

    if not any(_accepts(hook, path) for hook in sys.path_hooks):
        return None
    spec = PathFinder.find_spec("__main__", [path])
    if spec is None:
        raise CannotFind(f"can't find '__main__' module in {path!r}")
    return _of_spec(spec, "__main__")


def _accepts(hook, path):
    try:
        hook(path)
    except ImportError:
        return False
    return True


def _of_spec(spec, name):
    loader = spec.loader
    code = loader.get_code(name) if hasattr(loader, "get_code") else None
    if code is None:
        raise CannotFind(f"No code object available for {name}")
    return Program(
        code,
        loader=loader,
        file=spec.origin if spec.has_location else None,
        cached=spec.cached,
        spec=spec,
        package=spec.parent,
    )


def _of_package(name):
    if name == "__main__" or name.endswith(".__main__"):
        raise CannotFind("Cannot use package as __main__ module")
    try:
        return named(f"{name}.__main__")
    except CannotFind as error:
        reason = f"{error}; {name!r} is a package and cannot be directly executed"
        raise CannotFind(reason) from error
