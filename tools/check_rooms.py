#!/usr/bin/env python3
"""Check that the tree is in order; print what is not, exit 1 if anything.

- The rooms of libkin stand on one another: os < family < sync < table < queue < channel
  < process < pickle.  A file may include its own room and lower ones, never a
  higher one.  kin/base.h lies below them all; kin.h, the umbrella, is for users.
- libkin knows no Python: nothing in it includes Python.h.
- Only the room `os` names the system: Linux's headers, calls and constants
  appear nowhere else.
- Every source is named in the meson.build of its folder, and every name there
  is a file.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBKIN = ROOT / "libkin"
ROOMS = ["base", "os", "family", "sync", "table", "queue", "channel", "process", "pickle"]
# A room's public header has its name; these are further ones.
HEADERS = {
    "dict": "table",
    "entry": "table",
    "list": "table",
    "locker": "family",
    "message": "pickle",
    "pickler": "pickle",
    "transit": "family",
    "value": "pickle",
    "wait": "family",
}

SYSTEM_HEADERS = re.compile(
    r"(linux|asm)/|sched\.h$|sys/(syscall|mman|epoll|eventfd|signalfd|timerfd|prctl|pidfd|"
    r"sendfile|inotify|random|auxv)\.h$"
)
SYSTEM_WORDS = re.compile(
    r"\b(syscall|SYS_\w+|__NR_\w+|FUTEX_\w+|memfd_create|mmap|madvise|fallocate|MADV_\w+|"
    r"MFD_\w+|pidfd_\w+|P_PIDFD|close_range|clone3|prctl|SCM_RIGHTS|eventfd|epoll_\w+|"
    r"process_vm_\w+)\b|\"/proc/"
)
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


def room_of(path: Path) -> str | None:
    """The room a file of libkin is in; None for tests, examples and the umbrella."""
    parts = path.relative_to(LIBKIN).parts
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    if parts[:2] == ("include", "kin"):
        return HEADERS.get(path.stem, path.stem)
    return None


def target_room(included: str, path: Path) -> str | None:
    """The room of what `path` includes; None if it is not libkin's."""
    for base in (path.parent, LIBKIN / "src", LIBKIN / "include"):
        target = (base / included).resolve()
        if target.is_relative_to(LIBKIN) and target.exists():
            return room_of(target) or "umbrella"
    return None


def check_libkin():
    for path in sorted(LIBKIN.rglob("*.[ch]")):
        name = path.relative_to(ROOT)
        text = path.read_text()
        room = room_of(path)
        includes = INCLUDE.findall(text)
        if "Python.h" in includes:
            yield f"{name}: libkin includes no Python.h"
        if room is None:
            continue
        if room not in ROOMS:
            yield f"{name}: no such room: {room} (known: {', '.join(ROOMS)})"
            continue
        for included in includes:
            target = target_room(included, path)
            if target == "umbrella":
                yield f"{name}: includes the umbrella {included}; name the rooms it needs"
            elif target in ROOMS and ROOMS.index(target) > ROOMS.index(room):
                yield f"{name}: {room} is below {target}, and must not include {included}"
        if room == "os":
            continue
        for included in includes:
            if SYSTEM_HEADERS.match(included):
                yield f"{name}: only os includes <{included}>"
        bare = COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
        for number, line in enumerate(bare.splitlines(), 1):
            for word in SYSTEM_WORDS.finditer(line):
                yield f"{name}:{number}: only os says {word[0]}"


def check_named(folder: Path, patterns: tuple[str, ...], known: re.Pattern[str]):
    """Files below `folder` and the names that `known` finds in its meson.build are the same."""
    build = folder / "meson.build"
    text = re.sub(r"#.*", "", build.read_text())
    named = set(known.findall(text))
    files = {str(p.relative_to(folder)) for pattern in patterns for p in folder.glob(pattern)}
    for name in sorted(files - named):
        yield f"{build.relative_to(ROOT)}: does not name {name}"
    for name in sorted(named - files):
        yield f"{build.relative_to(ROOT)}: names {name}, which is not there"


def main() -> int:
    faults = [
        *check_libkin(),
        *check_named(
            LIBKIN,
            ("src/**/*.c", "tests/*.c", "fuzz/*.c", "bench/*.c"),
            re.compile(r"'((?:src|tests|fuzz|bench)/[^']+\.c)'"),
        ),
        *check_named(LIBKIN, ("include/kin/*.h",), re.compile(r"'(include/kin/[^']+\.h)'")),
        *check_named(ROOT / "ext", ("**/*.c",), re.compile(r"'([^']+\.c)'")),
        *check_named(
            ROOT / "src/kinfolk",
            ("**/*.py", "**/*.pyi", "py.typed"),
            re.compile(r"'([^']+\.(?:pyi?|typed))'"),
        ),
    ]
    if faults:
        print(*faults, sep="\n")
    elif "--quiet" not in sys.argv[1:]:
        print("the rooms are in order")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
