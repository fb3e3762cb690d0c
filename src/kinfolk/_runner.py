"""The runner: programs as they are, over kinfolk.

    python -m kinfolk script.py [argument...]      a script, a folder or an archive
    python -m kinfolk -m module [argument...]
    python -m kinfolk -c code [argument...]
    python -m kinfolk - [argument...]              from standard input
    python -m kinfolk explain place:expression     how that would travel to a child (_explain_cli)

The program finds what `python script.py` would have given it: sys.argv, sys.path[0], and the module
`__main__` with its attributes.  It is the very `__main__` that this interpreter began with, emptied
and filled anew, so that whoever holds it holds the program's, and `__mp_main__` is another name for
it.  `multiprocessing` is kinfolk, here and in every child (see _alias).

What the program raises ends the interpreter in the interpreter's own way, with its exit code, its
signal for ^C and its excepthook, only that the frames of this package and of runpy, which are not
the program's, are left out of what is shown.
"""

import os
import sys

from . import _alias, _program
from .util import _without_own_frames

__all__ = ["main"]

USAGE = """\
usage: python -m kinfolk script.py [argument...]
       python -m kinfolk -m module [argument...]
       python -m kinfolk -c code [argument...]
       python -m kinfolk - [argument...]
       python -m kinfolk explain place:expression [--help]

Run a Python program in which `multiprocessing` means kinfolk, or explain how
something would travel to a child process.
Options of the interpreter go before the -m kinfolk.
"""


def main():
    """Run the program that the command line names; does not always return."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="", file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    if words[0] == "explain":  # a script of that name is run as ./explain
        from . import _explain_cli

        sys.exit(_explain_cli.main(words[1:]))
    _alias.install()
    try:
        program = _find(words)
        _run(program)
    except _program.CannotFind as error:
        sys.exit(f"{sys.executable}: {error}")
    except SystemExit:
        raise
    except BaseException as error:
        _hide_own_frames(error)
        raise


def _find(words):
    """Return the Program that the command line names, with sys.argv and sys.path set for it."""
    first, *rest = words
    if first == "-":
        _set(["-", *rest], "")
        return _from_text(sys.stdin.buffer.read(), "<stdin>", file="<stdin>")
    for option, find in (("-c", _from_command_line), ("-m", _from_module)):
        if first.startswith(option):
            # The rest of the word, as in -mmodule, or else the next word.
            if first == option and not rest:
                _fail(f"Argument expected for the {option} option\n{USAGE}")
            given = first[2:] or rest.pop(0)
            return find(given, rest)
    if first.startswith("-"):
        _fail(f"unknown option {first}\n{USAGE}")
    return _from_file(first, rest)


def _from_command_line(text, rest):
    _set(["-c", *rest], "")
    return _from_text(text, "<string>")


def _from_text(text, name, file=None):
    from importlib.machinery import BuiltinImporter

    code = compile(text, name, "exec", dont_inherit=True)
    return _program.Program(code, loader=BuiltinImporter, file=file)


def _from_module(name, rest):
    sys.argv = ["-m", *rest]  # what a package sees that is imported on the way
    program = _program.named(name)
    sys.argv[0] = program.file
    return program


def _from_file(path, rest):
    whole = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    program = _program.in_container(whole)
    if program is not None:
        _set([path, *rest], whole)
        return program
    _set([path, *rest], os.path.dirname(os.path.realpath(whole)))
    try:
        return _program.at_path(whole)
    except OSError as error:
        _fail(f"can't open file {whole!r}: [Errno {error.errno}] {error.strerror}")


def _set(argv, folder):
    sys.argv = argv
    # 3.10 has no safe_path; there, -I alone keeps the folder out.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[0] = folder


def _fail(complaint):
    print(f"{sys.executable}: {complaint}", file=sys.stderr)
    sys.exit(2)


def _run(program):
    module = sys.modules["__main__"]
    vars(module).clear()
    module.__name__ = "__main__"
    module.__annotations__ = {}
    program.fill(module)
    sys.modules["__mp_main__"] = module
    program.run_in(module)


def _hide_own_frames(error):
    """Have the excepthook that is in force then show only the program's part of the traceback."""
    shown = _without_own_frames(error.__traceback__)
    hook = sys.excepthook

    def show(kind, value, tb):
        sys.excepthook = hook
        if value is error:
            sys.last_traceback = tb = shown
            value = value.with_traceback(shown)
        hook(kind, value, tb)

    sys.excepthook = show
