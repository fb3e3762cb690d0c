"""Connections between threads: objects go through queues, as they are.

A connection is two queues, one for each direction; sending puts the object
itself, nothing is pickled.  An address is the listener's backlog: a queue in
which a client leaves the two queues of its connection.
"""

from queue import Queue

__all__ = ["Client", "Listener", "Pipe"]

# None: the one family there is, whose addresses are queues.
families = [None]


class Listener:
    """Accepts connections at its `address`, a queue of `backlog` places.

    The first two arguments are not looked at.
    """

    def __init__(self, address=None, family=None, backlog=1):
        self._backlog_queue = Queue(backlog)

    def accept(self):
        """Wait for a client and return the Connection to it."""
        return Connection(*self._backlog_queue.get())

    def close(self):
        """Accept no more."""
        self._backlog_queue = None

    @property
    def address(self):
        """What a Client is given."""
        return self._backlog_queue

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()


def Client(address):
    """Connect to the Listener at `address` and return the Connection to it."""
    incoming, outgoing = Queue(), Queue()
    address.put((outgoing, incoming))
    return Connection(incoming, outgoing)


def Pipe(duplex=True):
    """Return two Connections to one another; both send and receive, whatever `duplex` says."""
    a, b = Queue(), Queue()
    return Connection(a, b), Connection(b, a)


class Connection:
    """One end: what is put into `_out` is what the other end gets."""

    def __init__(self, _in, _out):
        self._in = _in
        self._out = _out
        self.send = self.send_bytes = _out.put
        self.recv = self.recv_bytes = _in.get

    def poll(self, timeout=0.0):
        """Whether there is something to receive within `timeout` seconds (None: wait for it)."""
        incoming = self._in
        if incoming.qsize():
            return True
        if timeout is not None and timeout <= 0:
            return False
        with incoming.not_empty:
            return incoming.not_empty.wait_for(lambda: bool(incoming.queue), timeout)

    def close(self):
        """Do nothing: there is no end of the stream between threads."""

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()
