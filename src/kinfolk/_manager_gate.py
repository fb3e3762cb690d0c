"""The gate of a manager's server: connections whose other end has not proved yet that it has the key.

A stranger may connect, say nothing, say it slowly, and do so a thousand times.  What it says is
bounded by the handshake itself (_auth).  Here is how long it may take, and how many may be
at it: one who is late is hung up on, and so is the oldest when there are too many.  Both wake
the thread that serves it, whose read then ends.
"""

import os
import socket
import threading
import time

__all__ = ["Gate"]


class Gate:
    """At most `room` connections at a time are before the gate, each for at most `seconds`."""

    def __init__(self, seconds=20.0, room=128):
        self._seconds = seconds
        self._room = room
        self._changed = threading.Condition()
        # connection: when it is late; the oldest first
        self._waiting = {}
        self._watched = False

    def enter(self, conn):
        """A stranger has connected."""
        with self._changed:
            if len(self._waiting) >= self._room:
                self._hang_up(next(iter(self._waiting)))
            self._waiting[conn] = time.monotonic() + self._seconds
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, daemon=True).start()

    def leave(self, conn):
        """It has proved itself, or has failed to; to be said before its descriptor is closed."""
        with self._changed:
            self._waiting.pop(conn, None)

    def _watch(self):
        with self._changed:
            while self._waiting:
                conn, late = next(iter(self._waiting.items()))
                if late > time.monotonic():
                    self._changed.wait(late - time.monotonic())
                else:
                    self._hang_up(conn)
            self._watched = False

    def _hang_up(self, conn):
        del self._waiting[conn]
        try:
            with socket.socket(fileno=os.dup(conn.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            # It has hung up itself.
            pass
