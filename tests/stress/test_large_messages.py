"""A message of more than 2 GiB, through a pipe and a socket, as bytes and as an object."""

import threading

import pytest

from kinfolk import connection

pytestmark = pytest.mark.timeout(600)

SIZE = (1 << 31) + 12345


def free_memory():
    with open("/proc/meminfo") as lines:
        figures = dict(line.split(":") for line in lines)
    return int(figures["MemAvailable"].split()[0]) * 1024


needs_memory = pytest.mark.skipif(
    free_memory() < 3 * SIZE, reason="needs 6.5 GB of memory for a message of 2 GiB and its copy"
)


@needs_memory
@pytest.mark.parametrize(
    "duplex, how", [(False, "recv_bytes"), (True, "recv_bytes_into"), (True, "recv")]
)
def test_more_than_two_gigabytes(duplex, how):
    # Zeros that are never written to take no memory on the sender's side.
    data = bytes(SIZE - 3) + b"end"
    reader, writer = connection.Pipe(duplex)
    send = writer.send if how == "recv" else writer.send_bytes
    with reader, writer:
        sender = threading.Thread(target=send, args=(data,))
        sender.start()
        if how == "recv_bytes_into":
            got = bytearray(SIZE)
            assert reader.recv_bytes_into(got) == SIZE
        else:
            got = getattr(reader, how)()
        sender.join()
        assert len(got) == SIZE
        assert got[-3:] == b"end"
        assert not any(got[i] for i in range(0, SIZE - 3, 1 << 20))
        assert not reader.poll()
