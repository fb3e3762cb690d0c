"""The same with a main module that imports numpy: see start_small.py."""

import sys

import numpy  # noqa: F401
from start_small import main

if __name__ == "__main__":
    main(*sys.argv[1:])
