"""Starting processes by kinfolk._kin: exec, the zygote, lifelines."""

import errno
import os
import select
import signal
import sys
import threading

import pytest
from kin_children import forked, run_forked

from kinfolk import _kin


def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def heard(fd):
    """All that is written to a pipe; closes it."""
    with open(fd, "rb") as file:
        return file.read().decode()


def reported(process):
    """The exit code of a zygote's child; None if the zygote died first."""
    _, pidfd, status_fd = process
    report = os.read(status_fd, 4)
    os.close(pidfd)
    os.close(status_fd)
    return int.from_bytes(report, "little", signed=True) if report else None


@pytest.fixture
def pipe():
    r, w = os.pipe()
    yield r, w
    for fd in (r, w):
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture(scope="module", autouse=True)
def own_lifeline():
    """A process keeps its lifeline once it has made it."""
    os.close(_kin.lifeline_fd())


# Exec


def python(code, w, *keep, env=None):
    return _kin.spawn(sys.executable, [sys.executable, "-Sc", code, str(w)], env, [w, *keep])


SAY_FDS = """
import os, sys
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
os.write(int(sys.argv[1]), repr([fd for fd in range(400) if is_open(fd)]).encode())
"""


def test_spawn_keeps_the_descriptors_that_it_is_told(pipe):
    r, w = pipe
    inheritable = os.dup2(w, 300, inheritable=True)
    pid = python(SAY_FDS, w)
    os.close(inheritable)
    os.close(w)
    assert heard(r) == repr([0, 1, 2, w])
    assert code_of(pid) == 0


@pytest.mark.parametrize("env", [None, [b"KIN_WORD=given"]])
def test_spawn_environment(pipe, env, monkeypatch):
    monkeypatch.setenv("KIN_WORD", "own")
    r, w = pipe
    pid = python("import os, sys; os.write(int(sys.argv[1]), os.environb[b'KIN_WORD'])", w, env=env)
    os.close(w)
    assert heard(r) == ("own" if env is None else "given")
    assert code_of(pid) == 0


@pytest.mark.parametrize("path", ["/nonexistent/program", b"/nonexistent/program"])
def test_spawn_says_what_could_not_be_executed(path):
    with pytest.raises(FileNotFoundError, match="/nonexistent/program") as caught:
        _kin.spawn(path, ["x"], None, [])
    assert caught.value.filename == path
    with pytest.raises(PermissionError):
        _kin.spawn("/", ["x"], [], [])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("/bin/true", 5, None, []), TypeError),
        (("/bin/true", ["x", 5], None, []), TypeError),
        (("/bin/true", ["x"], [5], []), TypeError),
        (("/bin/true", ["x"], 5, []), TypeError),
        (("/bin/true", ["x"], None, ["x"]), TypeError),
        (("/bin/true", ["x"], None, [-1]), ValueError),
        (("/bin/true", ["x"], None, [3000]), OSError),
        (("/bin/tr\0ue", ["x"], None, []), ValueError),
        (("/bin/true", ["x\0"], None, []), ValueError),
    ],
)
def test_spawn_refuses(arguments, error):
    with pytest.raises(error):
        _kin.spawn(*arguments)


def test_pidfd():
    child = forked(signal.pause)
    fd = _kin.pidfd_open(child.pid)
    assert not os.get_inheritable(fd)
    assert select.select([fd], [], [], 0)[0] == []
    os.kill(child.pid, signal.SIGTERM)
    assert select.select([fd], [], [], 30)[0] == [fd]
    assert child.exitcode() == -signal.SIGTERM
    os.close(fd)
    with pytest.raises(ProcessLookupError):
        _kin.pidfd_open(2**31 - 1)


# The zygote


class Zygote:
    """A zygote whose children do what their payload says."""

    def __init__(self):
        _kin.family_fds()  # a member, as its children will be
        self.channel, theirs = _kin.zygote_channel()
        self.process = forked(self._be, theirs)
        os.close(theirs)

    def _be(self, channel):
        os.close(self.channel)
        while (order := _kin.zygote_serve(channel)) is not None:
            self._act(*order)

    def _act(self, payload, fds):
        code = 1
        try:
            if payload == b"pause":
                signal.pause()
            if fds:
                os.write(fds[0], repr((payload, fds, os.getpid(), _kin.member())).encode())
            code = payload[0] if payload else 0
        finally:
            os._exit(code)

    def start(self, payload=b"", fds=()):
        return _kin.zygote_start(self.channel, payload, fds)

    def close(self):
        os.close(self.channel)
        return self.process.exitcode()


@pytest.fixture
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


def test_a_zygote_starts_members_of_the_family(zygote, pipe):
    r, w = pipe
    process = zygote.start(b"\x07 and more", [w])
    os.close(w)
    payload, fds, pid, member = eval(heard(r))
    assert payload == b"\x07 and more"
    assert len(fds) == 1
    assert fds[0] > 2
    assert pid == process[0]
    assert member not in (0, _kin.member())
    assert reported(process) == 7
    assert reported(zygote.start()) == 0
    assert reported(zygote.start(memoryview(b"\xff"), ())) == 255


def test_signals_reach_the_children_of_a_zygote(zygote):
    process = zygote.start(b"pause")
    signal.pidfd_send_signal(process[1], signal.SIGKILL)
    assert reported(process) == -signal.SIGKILL


def test_threads_share_a_zygote(zygote):
    failures = []

    def start_some(number):
        for _ in range(5):
            batch = [zygote.start(bytes([number])) for _ in range(5)]
            failures.extend(code for process in batch if (code := reported(process)) != number)

    threads = [threading.Thread(target=start_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_zygote_that_has_died():
    zygote = Zygote()
    survivor = zygote.start(b"pause")
    os.kill(zygote.process.pid, signal.SIGKILL)
    assert zygote.process.exitcode() == -signal.SIGKILL
    with pytest.raises(BrokenPipeError):
        zygote.start(b"pause")
    os.close(zygote.channel)
    signal.pidfd_send_signal(survivor[1], signal.SIGKILL)
    assert reported(survivor) is None


def test_a_zygote_without_clients_ends():
    zygote = Zygote()
    assert reported(zygote.start(b"\x03")) == 3
    assert zygote.close() == 0


def test_what_a_zygote_is_not_asked(zygote):
    with pytest.raises(OSError) as caught:
        zygote.start(bytes(65537))
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(OSError) as caught:
        zygote.start(b"", [0] * 253)
    assert caught.value.errno == errno.E2BIG
    with pytest.raises(TypeError):
        zygote.start("text")
    with pytest.raises(OSError):
        _kin.zygote_start(0, b"")


def test_a_signal_handler_can_end_the_waiting_for_a_start(zygote):
    class Enough(Exception):
        pass

    def enough(signum, frame):
        raise Enough

    os.kill(zygote.process.pid, signal.SIGSTOP)
    before = signal.signal(signal.SIGALRM, enough)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Enough):
            zygote.start(b"pause")
    finally:
        signal.signal(signal.SIGALRM, before)
        os.kill(zygote.process.pid, signal.SIGCONT)
    assert reported(zygote.start(b"\x05")) == 5


# Lifelines


def be_bound(fd, w):
    _kin.lifeline_bind(fd, signal.SIGKILL)
    os.write(w, b"b")
    signal.pause()


def start_bound_and_pause(w):
    forked(be_bound, _kin.lifeline_fd(), w)
    signal.pause()


def test_a_child_ends_with_its_parent(pipe):
    r, w = pipe
    parent = forked(start_bound_and_pause, w)
    os.close(w)
    assert os.read(r, 1) == b"b"
    os.kill(parent.pid, signal.SIGKILL)
    assert parent.exitcode() == -signal.SIGKILL
    assert os.read(r, 1) == b""  # the child held the other end too


def test_only_lifelines_are_bound(pipe):
    def try_to_bind():
        with pytest.raises(ValueError, match="lifeline"):
            _kin.lifeline_bind(pipe[1], signal.SIGKILL)
        with pytest.raises(ValueError, match="lifeline"):
            _kin.lifeline_bind(pipe[0], 0)

    run_forked(try_to_bind)
