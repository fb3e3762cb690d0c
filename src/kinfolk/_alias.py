"""`multiprocessing` as another name for this package, in this process.

For programs that are left as they are: after `install()`, `import multiprocessing` and the import of
any of its submodules give the modules of kinfolk, the same objects under both names.  Children are
told to do the same (see spawn.get_preparation_data).

`concurrent.futures.process` is the standard library's, but for its ProcessPoolExecutor, which is
that of kinfolk.futures from when the module is imported.

A module has one `__spec__`, and keeps that of its own name: an import under the other one puts its
spec there for a moment, and the loader puts the first one back.
"""

import sys
from importlib.machinery import ModuleSpec

__all__ = ["install", "is_installed"]

_NAME = "multiprocessing"
_FUTURES = "concurrent.futures.process"


class _Alias:
    """A finder for multiprocessing.X, and the loader of what it finds."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == _FUTURES:
            return _spec_with_our_executor(fullname, path, target)
        head, _, rest = fullname.partition(".")
        if head != _NAME or not rest:
            return None
        module = _import(f"{__package__}.{rest}", fullname)
        spec = ModuleSpec(fullname, self, is_package=hasattr(module, "__path__"))
        spec.loader_state = module, module.__spec__
        return spec

    def create_module(self, spec):
        return spec.loader_state[0]

    def exec_module(self, module):
        module.__spec__ = module.__spec__.loader_state[1]


def _spec_with_our_executor(fullname, path, target):
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(fullname, path, target)
    if spec is not None and spec.loader is not None:
        theirs = spec.loader.exec_module

        def exec_module(module):
            theirs(module)
            _give_our_executor(module)

        spec.loader.exec_module = exec_module
    return spec


def _give_our_executor(module):
    from .futures import ProcessPoolExecutor

    module.ProcessPoolExecutor = ProcessPoolExecutor


def _import(own, asked):
    from importlib import import_module

    try:
        return import_module(own)
    except ModuleNotFoundError as error:
        if error.name != own:
            raise
        raise ModuleNotFoundError(
            f"No module named {asked!r}: kinfolk, which stands in for {_NAME} here, "
            f"has no {own} (yet)",
            name=asked,
        ) from None


_finder = _Alias()


def install():
    """Have `multiprocessing` mean kinfolk from now on.

    RuntimeError if the standard library's has been imported: there would be two of everything.
    """
    package = sys.modules[__package__]
    if sys.modules.setdefault(_NAME, package) is not package:
        raise RuntimeError(f"{_NAME} has been imported before kinfolk could stand in for it")
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if _FUTURES in sys.modules:
        _give_our_executor(sys.modules[_FUTURES])


def is_installed():
    """Return whether `multiprocessing` means kinfolk."""
    return _finder in sys.meta_path
