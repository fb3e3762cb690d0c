"""Plain pieces of shared memory, under the names that the standard library has for them.

The memory itself is `kinfolk._kin.Memory`: a zeroed, reference-counted piece
of the family's arena.  The engine allocates, and it gives a piece back when
the last process that holds it has let go or died; so there is nothing to
manage here, and a piece travels to any member of the family, in any pickle,
at any time, as its name.

What is left is the shape in which programs know it.  A block is a tuple
`(arena, start, stop)`; an `Arena` owns a piece of memory; a `Heap` hands out
blocks.  The invariant: a block is the whole of an arena of its own, so
whoever holds the block, or a view of its buffer, keeps the memory alive.
"""

import sys

from . import _kin

__all__ = ["BufferWrapper"]


class Arena:
    """A piece of shared memory of `size` bytes, zeroed when new; `buffer` is its bytes.

    Picklable at any time: the copy is the same memory.
    """

    def __init__(self, size):
        self._adopt(_kin.Memory(size), size)

    def __reduce__(self):
        return rebuild_arena, (self.size, self.buffer)

    def _adopt(self, memory, size):
        self.buffer = memory
        self.size = size


def rebuild_arena(size, memory):
    """The `size` bytes of `memory` as an Arena: what a pickled one is made of."""
    arena = Arena.__new__(Arena)
    arena._adopt(memory, size)
    return arena


class Heap:
    """Hands out blocks of shared memory.

    `size` is accepted for the standard library's sake: blocks of all heaps
    come from the family's one arena.
    """

    _alignment = 8

    def __init__(self, size=0):
        pass

    def malloc(self, size):
        """A new block of at least `size` bytes, as `(arena, start, stop)`.

        ValueError if `size` is negative, OverflowError if no object can be
        that large, MemoryError if the family's arena is full.
        """
        _check_size(size)
        length = -(-max(size, 1) // self._alignment) * self._alignment
        return Arena(length), 0, length

    def free(self, block):
        """Done with `block`.  Its memory goes when the last process that holds it has let go."""


class BufferWrapper:
    """`size` bytes of shared memory, zeroed when new.  Picklable at any time.

    A deep copy is new memory with the same bytes.  Errors as in Heap.malloc().
    """

    _heap = Heap()

    def __init__(self, size):
        self._state = BufferWrapper._heap.malloc(size), size

    def create_memoryview(self):
        """The bytes, writable.  They live as long as any view of them."""
        (arena, start, _stop), size = self._state
        return memoryview(arena.buffer)[start : start + size]

    def __reduce__(self):
        return _rewrap, self._state

    def __deepcopy__(self, memo):
        twin = BufferWrapper(self._state[1])
        twin.create_memoryview()[:] = self.create_memoryview()
        return twin


def _rewrap(block, size):
    wrapper = BufferWrapper.__new__(BufferWrapper)
    wrapper._state = block, size
    return wrapper


def _check_size(size):
    if size < 0:
        raise ValueError(f"Size {size:n} out of range")
    if size >= sys.maxsize:
        raise OverflowError(f"Size {size:n} too large")
