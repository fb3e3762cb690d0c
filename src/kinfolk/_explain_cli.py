"""python -m kinfolk explain: how something of a program would travel to a child.

The script is run the way a fresh child runs it: as the main module, named
`__mp_main__`.  So nothing happens that stands under the guard, `multiprocessing` means kinfolk,
and its classes are known by the names by which a child knows them.
"""

import argparse
import os
import sys

from . import _alias

__all__ = ["main"]

#: Exit codes.
TRAVELS, CANNOT, MISUSED = 0, 1, 2

EPILOG = """\
examples:
  python -m kinfolk explain app.jobs:Job
  python -m kinfolk explain 'train.py:Trainer("small")' --method spawn

The exit code is 0 if it travels, 1 if it cannot, 2 if there is nothing to explain.
A script that is itself called explain is run by `python -m kinfolk ./explain`.
"""


def main(words):
    """Explain what the command line `words` ask for; returns the exit code."""
    options = _parse(words)
    place, _, expression = options.what.partition(":")  # lambdas have colons of their own
    _alias.install()
    try:
        obj = eval(compile(expression.strip(), "<explain>", "eval"), _names_of(place))
    except SystemExit as error:
        return _complain(f"{place} has ended with the exit code {error.code!r}")
    except NameError as error:
        return _complain(f"{error}{_GUARD_HINT if _is_script(place) else ''}")
    except _NotThere as error:
        return _complain(error)
    except Exception as error:
        _show_traceback(error)
        return _complain(f"could not get {expression} of {place}")
    from . import _explain

    explanation = _explain.explain(obj, method=options.method, name=_name_for(expression.strip()))
    explanation.print(depth=options.depth, width=options.width)
    return TRAVELS if explanation.travels else CANNOT


_GUARD_HINT = "; what stands under `if __name__ == '__main__':` is not there, as in a child"


def _parse(words):
    parser = argparse.ArgumentParser(
        prog="python -m kinfolk explain",
        description="Show, part by part, how something would travel to a child process.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", metavar="WHAT", help="module:expression or script.py:expression, evaluated there"
    )
    parser.add_argument(
        "--method", choices=("fork", "spawn", "forkserver"), help="how the child is started; or any"
    )
    parser.add_argument("--depth", type=int, metavar="N", help="levels of the tree to show")
    parser.add_argument("--width", type=int, metavar="N", help="columns of a line")
    options = parser.parse_args(words)
    place, _, expression = options.what.partition(":")
    if not place or not expression.strip():
        parser.error(f"not of the form module:expression: {options.what!r}")
    return options


class _NotThere(Exception):
    """There is no such script or module; the message says so."""


def _is_script(place):
    return place.endswith(".py") or os.sep in place


def _names_of(place):
    """The globals of the script or module called `place`."""
    sys.argv = [place]
    if not _is_script(place):
        return _globals_of_module(place)
    from . import spawn

    path = os.path.abspath(place)
    if not os.path.isfile(path):
        raise _NotThere(f"can't open file {path!r}")
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    spawn.import_main_path(path)
    return vars(sys.modules["__main__"])


def _globals_of_module(name):
    from importlib import import_module

    try:
        return vars(import_module(name))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise _NotThere(error)


def _name_for(expression):
    """What the thing is called in paths: the expression, if that can be read in front of more."""
    try:
        import ast

        body = ast.parse(expression, mode="eval").body
    except SyntaxError:
        return "obj"
    simple = (ast.Name, ast.Attribute, ast.Subscript, ast.Call)
    return expression if isinstance(body, simple) and len(expression) <= 30 else "obj"


def _show_traceback(error):
    import traceback

    from .util import _without_own_frames

    shown = _without_own_frames(error.__traceback__)
    traceback.print_exception(type(error), error, shown)


def _complain(words):
    print(f"python -m kinfolk explain: {words}", file=sys.stderr)
    return MISUSED
