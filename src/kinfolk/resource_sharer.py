"""Descriptors that wait to be fetched by the process that unpickles them.

Who pickles a descriptor outside of a process start does not know which
process will read the message, nor when.  So a duplicate stays here, under a
number, and the message holds our address and the number: a claim ticket.
Who unpickles it connects, shows the ticket, and is sent the descriptor.

One daemon thread per process serves the counter; it is started by the first
descriptor.  Who wants to connect must hold the family's authkey.  A ticket is
good for one fetch: the duplicate is closed as soon as it was handed
out (or could not be), and at the latest by stop() or the end of the process.

A forked child starts with an empty counter: the tickets that its parent
gave out are the parent's to serve.
"""

import errno
import os
import signal
import sys
import threading
import time

from . import process, reduction, util

__all__ = ["stop", "DupFd"]

_OUT_OF_DESCRIPTORS = errno.EMFILE, errno.ENFILE


class DupFd:
    """A picklable stand-in for a duplicate of descriptor `fd`, good for one detach()."""

    def __init__(self, fd):
        waiting = os.dup(fd)

        def send(conn, pid):
            reduction.send_handle(conn, waiting, pid)

        def close():
            os.close(waiting)

        self._id = _resource_sharer.register(send, close)

    def detach(self):
        """Return the descriptor, which is then the caller's.

        EOFError if it was fetched before or its process has let it go; another
        OSError if that process is no more.
        """
        with _resource_sharer.get_connection(self._id) as conn:
            try:
                return reduction.recv_handle(conn)
            except EOFError:
                raise EOFError(
                    "the descriptor was fetched before, or its sender let it go"
                ) from None


class _ResourceSharer:
    """The counter: what waits, and the thread that hands it out."""

    def __init__(self):
        self._key = 0
        self._reset()
        # Every forked child, one of the program's own os.fork() too.
        os.register_at_fork(after_in_child=self._afterfork)

    def register(self, send, close):
        """Keep a resource and return its ticket.

        `send(conn, pid)` will be called at most once, with a connection to the
        process that fetches it; `close()` exactly once, after that.
        """
        with self._lock:
            if self._address is None:
                self._start()
            self._key += 1
            self._cache[self._key] = send, close
            return self._address, self._key

    @staticmethod
    def get_connection(ident):
        """Return a connection to the process that gave out the ticket `ident`, which was shown."""
        address, key = ident
        return _greet(address, (key, os.getpid()))

    def stop(self, timeout=None):
        """Stop the thread, waiting up to `timeout` seconds, and let go of all that waits."""
        with self._lock:
            if self._address is None:
                return
            _greet(self._address, None).close()
            self._thread.join(timeout)
            if self._thread.is_alive():
                util.sub_warning("_ResourceSharer thread did not stop when asked")
            self._close_all()

    def _reset(self):
        self._lock = threading.Lock()
        self._cache = {}
        self._listener = self._address = self._thread = None

    def _close_all(self):
        self._listener.close()
        self._listener = self._address = self._thread = None
        while self._cache:
            _, (_, close) = self._cache.popitem()
            close()

    def _afterfork(self):
        # The lock may have been held by a thread that is not here.
        listener, cache = self._listener, self._cache
        self._reset()
        for _, close in cache.values():
            close()
        if listener is not None:
            listener.close()

    def _start(self):
        from .connection import Listener

        util.debug("starting listener and thread for sending handles")
        self._listener = Listener(authkey=process.current_process().authkey, backlog=128)
        self._address = self._listener.address
        self._thread = threading.Thread(target=self._serve, args=(self._listener,), daemon=True)
        self._thread.start()

    def _serve(self, listener):
        # Signals are for the program's own threads.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while self._listener is listener:
            try:
                with listener.accept() as conn:
                    ticket = conn.recv()
                    if ticket is None:
                        return
                    self._hand_out(conn, *ticket)
            except Exception as exc:
                # A peer that died, or did not hold the key.  The next one is served.
                if not util.is_exiting():
                    sys.excepthook(*sys.exc_info())
                if getattr(exc, "errno", None) in _OUT_OF_DESCRIPTORS:
                    # The peer is still in the backlog: do not spin on it.
                    time.sleep(0.1)

    def _hand_out(self, conn, key, pid):
        found = self._cache.pop(key, None)
        if found is None:
            return
        send, close = found
        try:
            send(conn, pid)
        finally:
            close()


def _greet(address, message):
    from .connection import Client

    conn = Client(address, authkey=process.current_process().authkey)
    try:
        conn.send(message)
    except BaseException:
        conn.close()
        raise
    return conn


_resource_sharer = _ResourceSharer()
stop = _resource_sharer.stop
