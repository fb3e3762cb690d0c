"""python -m kinfolk: run a program in which `multiprocessing` means kinfolk (see _runner.py)."""

from ._runner import main

__all__ = []

if __name__ == "__main__":
    main()
    # Nothing may follow: the names of this module are the program's by now.
