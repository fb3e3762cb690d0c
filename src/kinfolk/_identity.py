"""Who is who across processes: tables keyed by identity, and tokens.

Two processes can talk about one class only if they have a name for it that is
neither its module path (a local class has none that can be looked up) nor its
address (the other process has another one there).  That name is a *token*: a
few random bytes, given to a class when it is first sent and remembered on both
sides.  Whoever meets a token that it knows uses the thing that it already has,
so a class sent twice is one class in the receiver, and a class that comes home
is the very class that left.

Both tables hold their things weakly: a class that nobody uses any more takes
its token with it.  Keys are compared by identity, never by `==` or `hash()`,
which belong to the user (a metaclass may define them, and code objects compare
by value).

A forked child inherits the tables, hence agrees with its parent about every
token given before the fork.
"""

import os
import weakref

__all__ = ["WeakIdMap", "token_of", "known", "adopt"]

#: Random bytes in a token: 2**64 classes would have to be sent for a likely clash.
TOKEN_BYTES = 16


class WeakIdMap:
    """A mapping from objects, by identity, that does not keep its keys alive.

    The keys must be weakly referenceable.  A single operation is atomic under
    the GIL; that is all the callers need.
    """

    __slots__ = ("_entries",)

    def __init__(self):
        self._entries = {}

    def get(self, key, default=None):
        entry = self._entries.get(id(key))
        return default if entry is None else entry[1]

    def set(self, key, value):
        entries, address = self._entries, id(key)

        def forget(_, entries=entries, address=address):
            entries.pop(address, None)

        entries[address] = weakref.ref(key, forget), value

    def pop(self, key, default=None):
        entry = self._entries.pop(id(key), None)
        return default if entry is None else entry[1]

    def __contains__(self, key):
        return id(key) in self._entries

    def __len__(self):
        return len(self._entries)


_tokens = WeakIdMap()
_things = weakref.WeakValueDictionary()


def token_of(thing):
    """The token of `thing`, given to it now if it has none yet."""
    token = _tokens.get(thing)
    if token is None:
        token = os.urandom(TOKEN_BYTES)
        adopt(token, thing)
        # Another thread may have been quicker; then its token is the one in the table.
        token = _tokens.get(thing)
    return token


def known(token):
    """The thing that this process knows under `token`, or None."""
    return _things.get(token)


def adopt(token, thing):
    """Let `token` mean `thing` here.

    A thing may answer to several tokens (it may have been named on both sides
    before they met); it is sent under the first.
    """
    _things[token] = thing
    if thing not in _tokens:
        _tokens.set(thing, token)
