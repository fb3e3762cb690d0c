"""Log records of a pool's workers, handed to the parent's loggers: `Pool(logs=True)`.

The two ends are the standard library's QueueHandler and QueueListener, over a queue of kinfolk.
"""

import logging
import logging.handlers
import sys

__all__ = ["Listener", "send_to"]


class Listener(logging.handlers.QueueListener):
    """In the parent: a thread that hands on what comes.  start(), stop(); after that, no more."""

    def handle(self, record):
        try:
            logging.getLogger(record.name).handle(record)
        except Exception:
            # A handler's own trouble is logging's to report; a filter's would end the thread.
            sys.excepthook(*sys.exc_info())


def send_to(queue):
    """In a worker: send all that the root logger is handed, by its level, to `queue` alone."""
    root = logging.getLogger()
    root.handlers[:] = [logging.handlers.QueueHandler(queue)]
