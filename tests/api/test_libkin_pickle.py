"""libkin's reader and writer of pickles against the standard library's pickle.

A C program (pickle_tool.c) built from libkin's sources, without any Python, reads what
`pickle.dumps` writes, and writes what `pickle.loads` reads.
"""

import os
import pickle
import pickletools
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import kinfolk
from kinfolk import _kin

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

ROOT = Path(__file__).resolve().parents[2]
LIBKIN = ROOT / "libkin"
CC = shutil.which(os.environ.get("CC", "cc"))
PROTOCOLS = range(6)
WRITTEN = range(2, 6)

pytestmark = [
    pytest.mark.skipif(not CC, reason="no C compiler"),
    pytest.mark.skipif(not LIBKIN.is_dir(), reason="no sources of libkin"),
]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Build a C program with all of libkin in it: compiled(source) -> its path."""
    folder = tmp_path_factory.mktemp("libkin")
    flags = ["-std=c11", "-D_GNU_SOURCE=", f"-I{LIBKIN}/include", f"-I{LIBKIN}/src", "-pthread"]
    objects = []
    for source in sorted((LIBKIN / "src").rglob("*.c")):
        objects.append(folder / f"{source.parent.name}_{source.stem}.o")
        subprocess.run([CC, *flags, "-O1", "-c", source, "-o", objects[-1]], check=True)

    def build(source):
        program = folder / source.stem
        subprocess.run(
            [CC, *flags, "-Wall", "-Werror", source, *objects, "-o", program], check=True
        )
        return program

    return build


class Refused(Exception):
    """What libkin has to say: the code, the byte's offset, the reason."""


class Tool:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, command, data):
        self.process.stdin.write(struct.pack("<cI", command.encode(), len(data)) + data)
        self.process.stdin.flush()
        status, length = struct.unpack("<cI", self.process.stdout.read(5))
        answer = self.process.stdout.read(length)
        if status == b"-":
            code, offset, reason = answer.decode().split(" ", 2)
            raise Refused(code, int(offset), reason)
        return answer

    def text(self, data):
        return self.ask("t", data).decode()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(10)


@pytest.fixture(scope="session")
def tool_program(compiled):
    return compiled(Path(__file__).with_name("pickle_tool.c"))


@pytest.fixture
def tool(tool_program):
    tool = Tool(tool_program)
    yield tool
    assert tool.close() == 0


def text_of(value, any_order=False):
    """The same text that pickle_tool.c makes; with any_order, sets are sorted."""
    if value is None or value is True or value is False:
        return "NTF"[(None, True, False).index(value)]
    if type(value) is int:
        if -(2**63) <= value < 2**63:
            return f"i{value}"
        length = (value if value >= 0 else ~value).bit_length() // 8 + 1
        return "I" + value.to_bytes(length, "little", signed=True).hex()
    if type(value) is float:
        return "f" + struct.pack("=d", value).hex() if value == value else "fnan"
    if type(value) is str:
        return "s" + value.encode("utf-8", "surrogatepass").hex()
    if type(value) in (bytes, bytearray):
        return ("b" if type(value) is bytes else "a") + value.hex()
    start, end = {list: "[]", tuple: "()", dict: "{}", set: "<>", frozenset: "|!"}[type(value)]
    if type(value) is dict:
        value = [part for pair in value.items() for part in pair]
    texts = [text_of(item, any_order) + "," for item in value]
    if any_order and start in "<|":
        texts.sort()
    return start + "".join(texts) + end


def same(a, b):
    """Equal, with equal types, NaN and all; sets in whatever order."""
    return text_of(a, any_order=True) == text_of(b, any_order=True)


KEYS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.text(st.characters())
    | st.binary(),
    lambda keys: st.tuples(keys, keys) | st.frozensets(keys, max_size=3),
    max_leaves=5,
)
PLAIN = st.recursive(
    KEYS | st.builds(bytearray, st.binary()) | st.sets(KEYS, max_size=4),
    lambda values: (
        st.lists(values)
        | st.lists(values).map(tuple)
        | st.dictionaries(KEYS, values)
        # The same object more than once.
        | values.map(lambda value: [value, (value, value)])
    ),
    max_leaves=25,
)

quick = hypothesis.settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@quick
@hypothesis.given(PLAIN)
def test_reads_what_pickle_writes(tool, value):
    for protocol in PROTOCOLS:
        data = pickle.dumps(value, protocol)
        assert tool.text(data) == text_of(value)
        assert tool.text(pickletools.optimize(data)) == text_of(value)


@quick
@hypothesis.given(PLAIN)
def test_pickle_reads_what_it_writes(tool, value):
    data = pickle.dumps(value)
    for protocol in WRITTEN:
        again = tool.ask(str(protocol), data)
        assert same(pickle.loads(again), value)
        pickletools.dis(again, out=open(os.devnull, "w"))


@quick
@hypothesis.given(PLAIN, st.data())
def test_refuses_what_is_cut_off(tool, value, data):
    whole = pickle.dumps(value, data.draw(st.sampled_from(PROTOCOLS)))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Refused) as refused:
        tool.text(whole[:cut])
    code, offset, _ = refused.value.args
    assert code == "KIN_EPICKLESHORT"
    assert offset <= cut


@pytest.mark.parametrize("protocol", WRITTEN)
def test_everything_that_c_programs_can_write(tool, protocol):
    data = tool.ask("w", bytes([protocol]))
    expected = [None, True, False]
    expected += [0, -1, 255, 256, 65535, 65536, -(2**31), -(2**63), 2**63 - 1]
    big = 0
    for i in (8, 16, 32, 64, 128):
        big += 1 << 8 * i
        expected.append(big)
    expected.append(1e100)
    length = 0
    while length < 200000:
        letters = "".join(chr(ord("a") + i % 26) for i in range(length))
        expected += [letters, b"\xe9" * length, bytearray(b"\xe9" * length)]
        length = 4 * length + 1
    count = 0
    while count < 3000:
        numbers = range(count)
        expected += [list(numbers), tuple(numbers), set(numbers), frozenset(numbers)]
        expected.append({i: i / 2 for i in numbers})
        count = 4 * count + 1
    *plain, cyclic, again = pickle.loads(data)
    assert same(plain, expected)
    assert cyclic is again
    assert cyclic[0] is cyclic
    assert len(cyclic) == 1
    pickletools.dis(data, out=open(os.devnull, "w"))
    assert max(op.proto for op, _, _ in pickletools.genops(data)) <= protocol


def test_cycles_and_shared_objects_keep_their_shape(tool):
    inner = []
    shared = {"inner": inner}
    value = [shared, (inner, shared), "x" * 300]
    inner.append((inner, value))
    for protocol in PROTOCOLS:
        for written in WRITTEN:
            again = pickle.loads(tool.ask(str(written), pickle.dumps(value, protocol)))
            assert again[0]["inner"] is again[1][0]
            assert again[1][1] is again[0]
            assert again[1][0][0] == (again[1][0], again)
    with pytest.raises(Refused, match="contains itself"):
        tool.text(pickle.dumps(value))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [len, Path("x"), 1j, range(3), object(), OSError()], ids=repr)
def test_refuses_what_takes_code(tool, value, protocol):
    try:
        data = pickle.dumps(value, protocol)
    except pickle.PicklingError as error:
        pytest.skip(str(error))
    with pytest.raises(Refused) as refused:
        tool.text(data)
    code, offset, _ = refused.value.args
    assert code == "KIN_EPICKLECODE"
    assert 0 <= offset < len(data)


def test_old_strings_are_text_if_they_are_ascii(tool):
    assert tool.text(b"S'it\\'s'\n.") == text_of("it's")
    with pytest.raises(Refused, match="not ASCII"):
        tool.text(b"U\x01\xe9.")


def test_refs_are_read(tool):
    queue = kinfolk.Queue()
    serial = queue.ref[-8:].hex()
    for protocol in PROTOCOLS:
        data = pickle.dumps([queue, queue], protocol)
        assert tool.text(data) == f"[R{serial},R{serial},]"
        for written in WRITTEN:
            first, second = pickle.loads(tool.ask(str(written), data))
            assert first is second
            assert type(first) is type(queue)
            assert first.ref == queue.ref


def test_a_c_program_takes_and_answers_messages(compiled):
    program = compiled(LIBKIN / "examples/talk_to_python.c")
    queue, answers = kinfolk.Queue(), kinfolk.SimpleQueue()
    for numbers in [1, 2, 3], list(range(50000)):
        queue.put({"numbers": numbers, "answer to": answers, "shared": numbers})
        fds = _kin.family_fds()
        done = subprocess.run(
            [program, *map(str, fds), queue.ref.hex()], pass_fds=fds, timeout=60, check=False
        )
        assert done.returncode == 0
        assert answers.get() == {"sum": sum(numbers)}
