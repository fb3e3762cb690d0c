#!/usr/bin/env python3
"""The linters, at the versions of tools/requirements-lint.txt.

    lint.py          all of them, to the end; exit 1 if any complains
    lint.py --fix    let ruff and clang-format mend what they can

clang-tidy reads the commands of a build of libkin that it makes itself, so only libkin
is tidied: the extension's headers belong to whichever Python there is.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTHON_CODE = [p for p in ("src", "tests", "tools", "bench", "examples") if (ROOT / p).is_dir()]


def tracked(*patterns: str) -> list[str]:
    """Files of these kinds that git knows or would add."""
    output = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [name for name in output.splitlines() if (ROOT / name).exists()]


def run(title: str, *command: str) -> bool:
    print(f"== {title}", flush=True)
    fine = subprocess.run(command, cwd=ROOT).returncode == 0
    if not fine:
        print(f"{title}: see above")
    return fine


def tool(name: str) -> str:
    return str(BIN / name)


def fix() -> bool:
    return all(
        [
            run("ruff", tool("ruff"), "check", "--fix", *PYTHON_CODE),
            run("ruff format", tool("ruff"), "format", *PYTHON_CODE),
            run("clang-format", tool("clang-format"), "-i", *tracked("*.c", "*.h")),
        ]
    )


def tidy() -> bool:
    build = ROOT / "build/tidy"
    if not (build / "build.ninja").exists():
        setup = [tool("meson"), "setup", str(build), str(ROOT)]
        subprocess.run(
            [*setup, "-Dpython=disabled", "-Dlibrary=false"], check=True, stdout=subprocess.DEVNULL
        )
    sources = tracked("libkin/src/*.c")
    return run("clang-tidy", tool("clang-tidy"), "--quiet", "-p", str(build), *sources)


def check() -> bool:
    return all(
        [
            run("rooms", sys.executable, "tools/check_rooms.py"),
            run("ruff", tool("ruff"), "check", *PYTHON_CODE),
            run("ruff format", tool("ruff"), "format", "--check", *PYTHON_CODE),
            run(
                "clang-format",
                tool("clang-format"),
                "-n",
                "-Werror",
                "--ferror-limit=1",
                *tracked("*.c", "*.h"),
            ),
            tidy(),
            run("mypy", tool("mypy")),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if (fix() if "--fix" in sys.argv[1:] else check()) else 1)
