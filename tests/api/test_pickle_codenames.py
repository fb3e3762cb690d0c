"""The names that C reads off the bytecode are those that `dis` shows.

KINFOLK_ALL_MODULES=1 reads the whole standard library, not every tenth module.
"""

import dis
import os
import pathlib
import sysconfig
import types

import pytest

from kinfolk import _kin

LIBRARY = pathlib.Path(sysconfig.get_paths()["stdlib"])


def shown_by_dis(code, found):
    for instruction in dis.get_instructions(code):
        if "GLOBAL" in instruction.opname or instruction.opname == "LOAD_NAME":
            found[instruction.argval] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            shown_by_dis(constant, found)
    return tuple(found)


def check(code):
    assert _kin._names_used(code) == shown_by_dis(code, {}), code


def modules():
    found = sorted(
        path
        for path in LIBRARY.rglob("*.py")
        if not {"site-packages", "test", "tests", "lib2to3"} & set(path.parts)
    )
    return found if os.environ.get("KINFOLK_ALL_MODULES") else found[::10]


@pytest.mark.filterwarnings("ignore")
def test_the_standard_library():
    count = 0
    for path in modules():
        try:
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        check(code)
        count += 1
    assert count > 30


def test_long_arguments():
    """More than 256 names, and than 65536: EXTENDED_ARG, once and twice."""
    for count in (300, 70_000):
        lines = "\n".join(f"    n{i}" for i in range(count))
        check(compile(f"def f():\n{lines}\n    global g; g = 1; del g\n", "<test>", "exec"))


def test_what_has_been_specialised():
    space = {"n": 1}
    exec("def f():\n    return n + len(str(n))", space)
    before = _kin._names_used(compile("def f():\n    return n + len(str(n))", "<test>", "exec"))
    for _ in range(1000):
        space["f"]()
    check(space["f"].__code__)
    assert _kin._names_used(space["f"].__code__) == ("n", "len", "str")
    assert before == ("n", "len", "str")


def test_only_code():
    with pytest.raises(TypeError, match="about code"):
        _kin._names_used(len)
