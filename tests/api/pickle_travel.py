"""Two programs, the second of which loads what the first has pickled.

The first is run as a script and binds `sent`; the second runs in an interpreter of its
own, which has none of the first one's definitions, and finds what arrived as `got`.
What either asserts, it asserts.
"""

import os
import pathlib
import subprocess
import sys
from textwrap import dedent

import pytest

import kinfolk.pickle as kpickle

PACKAGE_ROOT = str(pathlib.Path(kpickle.__file__).parent.parent)

SEND = """
import sys
from kinfolk import pickle as _pickle_under_test
{program}
if __name__ == "__main__":
    with open(sys.argv[1], "wb") as _file:
        _file.write({dumps}(sent))
"""

RECEIVE = """
import pickle, sys
{before}
with open(sys.argv[1], "rb") as _file:
    got = {loads}(_file.read())
{program}
"""

AS_MP_MAIN = """
import runpy, types
_main = types.ModuleType("__mp_main__")
_main.__dict__.update(runpy.run_path(sys.argv[2], run_name="__mp_main__"))
sys.modules["__main__"] = sys.modules["__mp_main__"] = _main
"""


@pytest.fixture
def travels(tmp_path):
    """Run the sender and the receiver; what either asserts, it asserts."""

    def travel(
        sender,
        receiver,
        *,
        before="",
        has_main=False,
        dumps="_pickle_under_test.dumps",
        loads="pickle.loads",
        path=(),
    ):
        script, pickled = tmp_path / "sender.py", tmp_path / "sent.pickle"
        script.write_text(SEND.format(program=dedent(sender), dumps=dumps))
        run([script, pickled], [*path, tmp_path / "lib"])
        reader = tmp_path / "receiver.py"
        reader.write_text(
            RECEIVE.format(
                program=dedent(receiver),
                loads=loads,
                before=AS_MP_MAIN if has_main else dedent(before),
            )
        )
        run([reader, pickled, script], path)
        return pickled.read_bytes()

    return travel


def run(arguments, path=()):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, [*path, PACKAGE_ROOT])))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
