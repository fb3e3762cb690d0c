"""The exception for a queue that was shut down.

It is the standard library's where that has one (Python 3.13), so that programs may name either.
"""

import queue

__all__ = ["ShutDown"]

_BASES = (queue.ShutDown, EOFError) if hasattr(queue, "ShutDown") else (EOFError,)


class ShutDown(*_BASES):
    """The queue was shut down: nothing can be put, and what there was to get has been taken."""

    __module__ = "kinfolk.queues"
