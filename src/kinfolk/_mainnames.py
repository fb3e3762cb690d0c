"""What the members of this program's family know of its main module.

Pickles between kin need not carry what both sides have.  Of the main module
(and of modules made at run time, which no import finds) that is:

    A member made by fork has all that the program had defined by then.
    A member that started fresh (spawn, forkserver) has run the main module
    again as `__mp_main__`, so it has what stands outside of the guard
    `if __name__ == "__main__":`, provided the main module can be run again
    (see _mainsource).

A name that every member has travels alone, as in the standard library.  That
is more than thrift: the value of a worker function is also the value of each
global that it uses, and a program may well use a lock there, or a gigabyte.

The sender must know what its receivers have.  At each fork of this process it takes
down which names stand for which functions and classes; that counts until the child
has ended, as far as can be told.  It is told when a fresh member is about to start
(`expect_fresh_member`).  What stands outside of the guard is read off the main module's
source, once.  Whenever any of this is unclear the value is sent along.
"""

import os
import sys
import types
import weakref

from . import _kin, _mainsource

__all__ = [
    "MAIN_MODULES",
    "expect_fresh_member",
    "kin_have",
    "kin_have_module",
    "note_child",
]

#: The main module's names: its own, and the one it has in a child that ran it again.
MAIN_MODULES = ("__main__", "__mp_main__")

_fresh_expected = False
_forks = []  # a _Snapshot for each fork after which other names were there, oldest first


class _Snapshot:
    """What there was at a fork, or at several in a row: all that the children made then have."""

    def __init__(self, main):
        # Weakly: at the interpreter's end the main module is to go when it is done with.
        self._main = weakref.ref(main)
        self.names = {
            name: id(value)
            for name, value in list(vars(main).items())
            if isinstance(value, (types.FunctionType, type))
        }
        self.modules = frozenset(sys.modules)
        self.forks = 1
        self.known = []  # weak references to the Popen objects of those children that have one

    @property
    def main(self):
        return self._main()

    def is_up_to_date(self, main):
        """Whether a fork just now would give what this one gave."""
        return self.main is main and _kin._holds_still(
            vars(main), self.names, sys.modules, self.modules
        )

    def has_living(self):
        """Whether a child made then may be alive."""
        return self.is_for_good() or any(popen.poll() is None for popen in self.living())

    def is_for_good(self):
        """Whether children were made of which nothing is known: the program's own os.fork()."""
        return self.forks > len(self.known)

    def note(self, popen):
        living = self.living()
        self.forks -= len(self.known) - len(living)
        self.known = [weakref.ref(each) for each in (*living, popen)]

    def living(self):
        popens = [reference() for reference in self.known]
        return [popen for popen in popens if popen is not None and popen.returncode is None]


def expect_fresh_member():
    """Note that a member that shares no memory with this process is about to start.

    To be called before the arguments of its start are pickled.  Returns whether it runs the main
    module again (see _mainsource).
    """
    global _fresh_expected
    _fresh_expected = True
    _kin._forget_kin()
    return _mainsource.is_run_again(sys.modules["__main__"])


def note_child(popen):
    """Note that the fork which the calling thread has just made is that of `popen`.

    By its `poll()` it will be seen when what the child lacks has ceased to matter.
    """
    if _forks:
        _forks[-1].note(popen)


def kin_have(root):
    """Whether every member of the family finds what the main module has under the name `root`.

    A "yes" is remembered (ext/pickle/by_value_standing.c), until `_kin._forget_kin()` or until
    the name means something else.
    """
    main = sys.modules["__main__"]
    address = id(getattr(main, root, None))
    if not _all_forks(lambda fork: fork.main is not main or fork.names.get(root) == address):
        return False
    # A main module that was run after a fork says nothing about what that fork lacks: the
    # children of the fork server run it, each by itself.
    if _forks and _forks[-1].main is main and not _has_fresh_members():
        return True
    return root in _mainsource.names_outside_guard(main)


def kin_have_module(name):
    """Whether every member inherited the module `name`, which it could not import."""
    if _has_fresh_members() or not _forks:
        return False
    return _all_forks(lambda fork: name in fork.modules)


def _all_forks(has_it):
    """Whether `has_it(fork)` holds for every fork of which children may be alive."""
    for fork in list(_forks):
        if has_it(fork):
            continue
        if fork.has_living():
            return False
        if fork in _forks:
            _forks.remove(fork)
    return True


def _has_fresh_members():
    """Whether there are members that share no memory with this one; it may itself be such a one."""
    return _fresh_expected or sys.modules["__main__"].__name__ == "__mp_main__"


def _take_snapshot():
    main = sys.modules.get("__main__")
    if main is None:  # the interpreter is on its way out
        return
    if _forks and _forks[-1].is_up_to_date(main):
        _forks[-1].forks += 1
        return
    _kin._forget_kin()
    now = _Snapshot(main)
    _forks[:] = [fork for fork in _forks if fork.is_for_good() or fork.living()]
    _merge([fork for fork in _forks if fork.is_for_good() and fork.main is main])
    _forks.append(now)


def _merge(forks):
    """Let the last one stand for all: of what counts for good, only what is common to all does."""
    for fork in forks[:-1]:
        forks[-1].names = dict(forks[-1].names.items() & fork.names.items())
        forks[-1].modules &= fork.modules
        _forks.remove(fork)


def _forget_forks():
    """In the child: whatever its parent's other children lack, the child cannot ask about them."""
    for fork in _forks:
        fork.known.clear()
    _kin._forget_kin()


os.register_at_fork(before=_take_snapshot, after_in_child=_forget_forks)
