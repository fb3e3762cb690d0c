"""Who made which named segment of shared memory, for the run after one that was killed as a whole.

A segment in /dev/shm outlives its makers, and the resource tracker, which would unlink it, may be
killed with them.  So for each tracked segment there is a file, named as it is, in a folder of the
user's own: what the segment is (device, inode), and who has to be dead before it counts as left
behind (its maker and the tracker, by process id and start).  The file goes when the segment does.

A file may be stale, if the segment was unlinked by others or a process killed in between; then it
names no segment that is there, and the next look removes it.  A segment is never taken for another
of the same name, nor while anybody has it mapped.
"""

import json
import os
import stat
import sys
from _thread import get_ident

__all__ = ["forget", "left_behind", "note"]

_SEGMENTS = "/dev/shm"
_BEGUN = ".begun-"  # and the process that writes the note, and its thread


def _folder():
    base = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("TMPDIR") or "/tmp"
    return os.path.join(base, f"kinfolk-shm-{os.getuid()}")


def _own_folder(make=False):
    """The folder, if it is ours and nobody else can write there; else None."""
    folder = _folder()
    try:
        if make:
            os.makedirs(folder, 0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:
        return None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return folder if mine and not found.st_mode & 0o022 else None


def _started(pid):
    """When a process was started, in the system's ticks; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in b"ZX" else int(fields[19])


def _boot():
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def note(name, fd, tracker):
    """Note that this process has made the segment `name`, open as `fd`."""
    folder = _own_folder(make=True)
    if folder is None or "/" in name:
        return
    found = os.fstat(fd)
    record = {
        "inode": [found.st_dev, found.st_ino],
        "makers": [[pid, _started(pid)] for pid in (os.getpid(), tracker) if pid],
        "program": sys.argv[:1],
    }
    path = os.path.join(folder, name)
    try:
        record["boot"] = _boot()
        # Not below its own name until it is whole.  If this process is killed in between, what it
        # had begun is named by it, and removed once it is dead.
        new = os.path.join(folder, f"{_BEGUN}{os.getpid()}.{get_ident()}")
        with open(new, "w") as file:
            json.dump(record, file)
        os.replace(new, path)
    except OSError:
        pass  # no proc file system, no room: then the segment is as the standard library's


def forget(name):
    """The segment is gone."""
    folder = _own_folder()
    if folder is None or "/" in name:
        return
    try:
        os.unlink(os.path.join(folder, name))
        os.rmdir(folder)  # if it was the last one
    except OSError:
        pass


def left_behind():
    """Segments whose makers were killed: {name: (bytes, process id, program)}."""
    folder = _own_folder()
    found = {}
    for name in sorted(os.listdir(folder)) if folder else ():
        if name.startswith(_BEGUN):
            if _started(name[len(_BEGUN) :].partition(".")[0]) is None:
                forget(name)
            continue
        record = _read(os.path.join(folder, name))
        if record is None or not _is_there(name, record):
            forget(name)
        elif not _has_makers(record) and not _is_mapped(name):
            size = os.stat(f"{_SEGMENTS}/{name}").st_size
            program = "".join(map(str, record.get("program", ())))
            found[name] = size, record["makers"][0][0], program
    return found


def _read(path):
    try:
        with open(path) as file:
            record = json.load(file)
        (_device, _inode), ((_pid, _start), *_) = record["inode"], record["makers"]
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # torn, or not ours


def _is_there(name, record):
    try:
        found = os.stat(f"{_SEGMENTS}/{name}")
        return [found.st_dev, found.st_ino] == record["inode"] and record["boot"] == _boot()
    except (OSError, KeyError):
        return False


def _has_makers(record):
    return any(_started(pid) == start is not None for pid, start in record["makers"])


def _is_mapped(name):
    """Whether any process that we may look at has it mapped."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/maps") as file:
                if any(line.rstrip().endswith(f"{_SEGMENTS}/{name}") for line in file):
                    return True
        except OSError:
            continue
    return False
