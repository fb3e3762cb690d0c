#!/usr/bin/env python3
"""Check the names that the built objects show.

    check_exports.py [--shared libkin.so] [--extension _kin.so]

The shared libkin shows every function that its headers mark KIN_API, and
nothing else.  The extension shows PyInit__kin alone: the libkin inside it must
never be mistaken for another one in the same process.  Neither leaves a name
of ours open.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

HEADERS = Path(__file__).resolve().parent.parent / "libkin/include"
DECLARED = re.compile(r"\bKIN_API\b[^;{()]*?\b(\w+)\s*[(;\[]")
# put there by the tool chain, not by us
TOOLCHAIN = re.compile(r"_init|_fini|__bss_start|_edata|_end|__?(asan|ubsan|gcov|llvm)_\w+")


def shown(path: str, which: str = "--defined-only") -> set[str]:
    output = subprocess.run(
        ["nm", "-D", which, path], check=True, capture_output=True, text=True
    ).stdout
    names = (line.split()[-1].split("@")[0] for line in output.splitlines())
    return {name for name in names if not TOOLCHAIN.fullmatch(name)}


def declared() -> set[str]:
    names = set()
    for header in HEADERS.rglob("*.h"):
        text = re.sub(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*", "", header.read_text(), flags=re.S | re.M)
        names |= set(DECLARED.findall(text))
    return names


def compare(path: str, expected: set[str]) -> bool:
    found = shown(path)
    for name in sorted(found - expected):
        print(f"{path}: shows {name}")
    for name in sorted(expected - found):
        print(f"{path}: does not show {name}")
    if found == expected:
        print(f"{path}: shows {len(found)} names, as it should")
    # An extension is linked with names left open, for the interpreter's: ours must not be among them.
    missing = sorted(name for name in shown(path, "--undefined-only") if name.startswith("kin"))
    for name in missing:
        print(f"{path}: has no {name}")
    return found == expected and not missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", help="a shared libkin")
    parser.add_argument("--extension", help="the module kinfolk._kin")
    args = parser.parse_args()
    fine = True
    if args.shared:
        public = declared()
        for name in sorted(n for n in public if not re.match(r"kin_[a-z]", n)):
            print(f"{name}: marked KIN_API, but public names are kin_<noun>_<verb>")
            fine = False
        fine &= compare(args.shared, public)
    if args.extension:
        fine &= compare(args.extension, {"PyInit__kin"})
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
