"""The two ends of a queue, for programs that know the standard library's by heart.

There, a queue is a pipe, and `queue._reader` and `queue._writer` are its connections: programs poll
them, wait for them, and give them to event loops.  Here they are this: views of a queue that do the
same.  Neither takes anything from the queue but by recv().

The reader's descriptor is a doorbell (docs/doorbell.md): readable while there is something to get.
It is made when it is first asked for, belongs to this process, and goes with the queue object, or
with close().  Who finds nothing to get although it was readable (another was faster) finds that by
get_nowait(), empty() or poll(), and it is readable no more.
"""

from . import _kin

__all__ = ["Reader", "Writer"]


class _End:
    """One of the two.  Closing one says so to those who look; the queue is closed with both."""

    readable = writable = False

    def __init__(self, queue):
        self._queue = queue

    def __eq__(self, other):
        """As if there were one for each queue: `queue._reader in wait([queue._reader])`."""
        return type(other) is type(self) and other._queue is self._queue

    def __hash__(self):
        return hash((type(self), id(self._queue)))

    def __repr__(self):
        return f"<{type(self).__name__} of {self._queue!r}>"

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    @property
    def closed(self):
        """Whether this end, or the queue, was closed in this process."""
        return self._queue._closed or self._name in self._queue.__dict__.get("_closed_ends", ())

    def close(self):
        """Close this end; the queue is closed when both are."""
        closed = self._queue.__dict__.setdefault("_closed_ends", set())
        closed.add(self._name)
        if len(closed) == 2:
            self._queue.close()

    def fileno(self):
        """A descriptor: readable while there is something to get, and always writable."""
        self._check_open()
        return _kin.queue_fileno(self._queue)

    def _awaited(self):
        """For connection.wait(), which needs no descriptor."""
        self._check_open()
        return self._queue, self._ready_for

    def _check_open(self):
        if self.closed:
            raise OSError("handle is closed")


class Reader(_End):
    """Where objects come out."""

    readable = True
    _name = "reader"
    _ready_for = _kin.READY_TAKE

    def close(self):
        """Close this end, and its descriptor; the queue is closed when both ends are."""
        _kin.queue_close_fileno(self._queue)
        super().close()

    def poll(self, timeout=0.0):
        """Whether there is something to get, within `timeout` seconds (None: for ever)."""
        self._check_open()
        # If not, empty() has the descriptor say so, too.
        return bool(_kin.wait((self._queue,), timeout)) or not _kin.Queue.empty(self._queue)

    def recv(self):
        """The next object, as get() gives it."""
        self._check_open()
        return self._queue.get()

    def recv_bytes(self, maxlength=None):
        """The next object, pickled."""
        from .reduction import ForkingPickler

        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        data = bytes(ForkingPickler.dumps(self.recv()))
        if maxlength is not None and len(data) > maxlength:
            raise OSError("bad message length")
        return data

    def send(self, obj):
        """Refuse: it is the other end's."""
        raise OSError("connection is read-only")

    send_bytes = send


class Writer(_End):
    """Where objects are put in."""

    writable = True
    _name = "writer"
    _ready_for = _kin.READY_GIVE

    def send(self, obj):
        """Put the object."""
        self._check_open()
        self._queue.put(obj)

    def send_bytes(self, buf, offset=0, size=None):
        """Put the object whose pickle these bytes are."""
        from .reduction import ForkingPickler

        data = memoryview(buf).cast("B")
        self.send(ForkingPickler.loads(data[offset : None if size is None else offset + size]))

    def poll(self, timeout=0.0):
        """Refuse: it is the other end's."""
        raise OSError("connection is write-only")

    recv = recv_bytes = poll
