"""Descriptors that wait to be fetched by the process that unpickles them.

They wait in the family's locker (docs/locker.md), for as long as anybody holds
what stands for them.  A message that is under way does.  But pickles made
outside of any message, by pickle.dumps(), hold nothing; for those this
process does, until one who has loaded such a pickle has fetched the
descriptor, or until stop(), or until the process ends, however it does.

A forked child has nothing to do with what its parent keeps so.
"""

import os

from . import _kin

__all__ = ["stop", "DupFd"]

DupFd = _kin.Descriptor

# What holds those that were pickled outside of messages: one _kin.Transit, or none.
_holders = {}


def _transit():
    return _holders.get("transit") or _holders.setdefault("transit", _kin.Transit())


def stop(timeout=None):
    """Let go of all descriptors that were pickled outside of messages and wait still.

    `timeout` is for programs that give one: it takes no time.
    """
    _holders.clear()


os.register_at_fork(after_in_child=stop)
