"""Each thing that the pickler and the unpickler do is done over and over, and nothing must stay.

Counted are the interpreter's memory blocks, the bytes that malloc has given out, and on a debug
build of Python the references.  A table that finds its size grows now and then; what leaks
grows each time.
"""

import ctypes
import gc
import sys

import pytest
from pickle_leak_cases import CASES

TIMES = 60
TRIES = 12  # of which one has to be quiet: tables, and lists of free things, find their size

libc = ctypes.CDLL(None)


class Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        ).split()
    ]


def malloced():
    """Bytes that malloc has given out, by whomever; 0 where this libc does not say."""
    if not hasattr(libc, "mallinfo2"):
        return 0
    libc.mallinfo2.restype = Mallinfo
    info = libc.mallinfo2()
    return info.uordblks + info.hblkhd


def held():
    gc.collect()
    references = getattr(sys, "gettotalrefcount", int)()
    return sys.getallocatedblocks(), malloced(), references


def growth(function):
    before = held()
    for _ in range(TIMES):
        function()
    return [now - then for now, then in zip(held(), before)]


@pytest.mark.parametrize("name", CASES)
def test_nothing_stays(name):
    function = CASES[name]
    for _ in range(5):
        function()
    seen = []
    for _ in range(TRIES):
        blocks, bytes_, references = growth(function)
        if blocks < TIMES / 2 and bytes_ < TIMES * 16 and references < TIMES / 2:
            return
        seen.append((blocks, bytes_, references))
    pytest.fail(f"in {TIMES} times each grew (blocks, bytes, references): {seen}", pytrace=False)
