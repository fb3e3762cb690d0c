"""A manager's server among strangers: it goes on serving those who have the key."""

import os
import pickle
import socket
import struct
import subprocess
import sys
import time

import pytest

import kinfolk
from kinfolk import _manager_server
from kinfolk._manager_gate import Gate
from kinfolk.managers import BaseManager

KEY = b"the key"
PATIENCE = 60


class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


class CountingManager(BaseManager):
    pass


CountingManager.register("Counter", Counter)


def be_strict():
    """In the server: little time, and little room."""
    _manager_server.Gate = lambda: Gate(seconds=0.5, room=32)


@pytest.fixture(params=["unix", "tcp"])
def manager(request):
    address = None if request.param == "unix" else ("127.0.0.1", 0)
    manager = CountingManager(address, KEY, ctx=kinfolk.get_context("fork"))
    manager.start(be_strict)
    yield manager
    manager.shutdown()
    manager.join()


def stranger(manager):
    address = manager.address
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.connect(address)
    sock.settimeout(PATIENCE)
    return sock


def frame(data):
    return struct.pack("!i", len(data)) + data


class Bomb:
    def __reduce__(self):
        return os._exit, (7,)


SAID = {
    "nothing": b"",
    "garbage": os.urandom(1000),
    "half a head": b"\x00\x00",
    "half a frame": struct.pack("!i", 200) + b"x" * 100,
    "a huge length": struct.pack("!i", 2**31 - 1) + b"x" * 1000,
    "a length of 64 bits": struct.pack("!iQ", -1, 2**62) + b"x",
    "a negative length": struct.pack("!i", -2),
    "no bytes": frame(b""),
    "a wrong digest": frame(b"0" * 16),
    "a wrong new digest": frame(b"{sha256}" + b"0" * 32),
    "an unknown digest": frame(b"{rot13}" + b"0" * 32),
    "a pickle": frame(pickle.dumps(Bomb())),
    "a pickle after a digest": frame(b"0" * 16) + frame(pickle.dumps(Bomb())),
}


@pytest.mark.parametrize("said", SAID)
def test_whatever_is_said(manager, said):
    with stranger(manager) as sock:
        sock.sendall(SAID[said])
        counter = manager.Counter()
        assert counter.add() == 1
        # Late, or wrong: either way they are hung up on.
        try:
            while sock.recv(1000):
                pass
        except ConnectionResetError:
            pass
    assert counter.add() == 2


def test_a_slow_one(manager):
    counter = manager.Counter()
    began = time.monotonic()
    with stranger(manager) as sock:
        try:
            for byte in frame(b"0" * 200):
                sock.sendall(bytes([byte]))
                assert counter.add()
                time.sleep(0.02)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            pytest.fail("it might go on for ever")
    assert time.monotonic() - began < PATIENCE


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def test_a_thousand(manager):
    counter, pid = manager.Counter(), manager._process.pid
    counter.add()
    before, most = resident(pid), 0
    socks = []
    for n in range(1000):
        socks.append(stranger(manager))
        if len(socks) > 100:
            socks.pop(0).close()
        if n % 50 == 0:
            assert counter.add()
            most = max(most, threads(pid))
    assert counter.add()
    assert most < 200
    assert resident(pid) - before < 20_000  # KiB
    for sock in socks:
        sock.close()


def test_a_wrong_key(manager):
    with pytest.raises(kinfolk.AuthenticationError):
        CountingManager(manager.address, b"another").connect()
    assert manager.Counter().add() == 1


# -- The standard library's --------------------------------------------------------------------

PROGRAM = """
import gc, sys
from {package}.managers import BaseManager
from {package} import AuthenticationError
class Counter:
    def __init__(self): self.count = 0
    def add(self, n=1):
        self.count += n
        return self.count
class Manager(BaseManager): pass
Manager.register("Counter", Counter)
Manager.register("fail", lambda: 1 / 0)
def address(text):
    return ("127.0.0.1", int(text)) if text.isdigit() else text
"""

SERVE = """
if __name__ == "__main__":
    server = Manager(address(sys.argv[1]), b"the key").get_server()
    print(server.address if isinstance(server.address, str) else server.address[1], flush=True)
    server.serve_forever()
"""

CALL = """
try:
    Manager(address(sys.argv[1]), b"another").connect()
except AuthenticationError:
    pass
else:
    sys.exit("a wrong key was taken")
manager = Manager(address(sys.argv[1]), b"the key")
manager.connect()
counter, other = manager.Counter(), manager.Counter()
assert counter.add(5) == 5 and counter.add() == 6 and other.add() == 1
try:
    counter.add("x")
except TypeError:
    pass
else:
    sys.exit("no TypeError")
try:
    manager.fail()
except Exception as error:
    assert "ZeroDivisionError" in str(error), error
else:
    sys.exit("no error")
assert manager._number_of_objects() == 2
del counter, other
gc.collect()  # the standard library's errors are in cycles
assert manager._number_of_objects() == 0
"""

HERE = ".".join(map(str, sys.version_info[:2]))


def others():
    """Interpreters of other versions, for the standard library's side."""
    folder = os.path.expanduser("~/.pyenv/versions")
    found = {HERE: sys.executable}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        version = ".".join(name.split(".")[:2])
        if version in ("3.10", "3.13") and version != HERE:
            found[version] = os.path.join(folder, name, "bin", "python")
    return found


@pytest.mark.parametrize("family", ["unix", "tcp"])
@pytest.mark.parametrize("ours", ["server", "client"])
@pytest.mark.parametrize("version", others())
def test_with_the_standard_library(tmp_path, family, ours, version):
    stdlib, path = others()[version], os.environ.get("PYTHONPATH", "")
    packages = {"server": "multiprocessing", "client": "multiprocessing"}
    pythons = {"server": stdlib, "client": stdlib}
    packages[ours], pythons[ours] = "kinfolk", sys.executable
    where = str(tmp_path / "socket") if family == "unix" else "0"

    def run(role, text, argument):
        env = {**os.environ, "PYTHONPATH": path if role == ours else ""}
        file = tmp_path / f"{role}.py"
        file.write_text(PROGRAM.format(package=packages[role]) + text)
        return [pythons[role], str(file), argument], env

    command, env = run("server", SERVE, where)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            found = server.stdout.readline().strip()
            command, env = run("client", CALL, found)
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=PATIENCE
            )
            assert done.returncode == 0, done.stderr
        finally:
            server.kill()
