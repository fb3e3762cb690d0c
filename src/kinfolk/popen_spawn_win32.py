"""The place of spawn on Windows, which kinfolk does not run on yet.

The file is here because programs, and CPython's tests, go by the names of the package's modules.
"""

__all__ = ["Popen"]


class Popen:
    """Raises NotImplementedError."""

    method = "spawn"

    def __init__(self, process_obj):
        raise NotImplementedError("kinfolk does not start processes on Windows yet")
