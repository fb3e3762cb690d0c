"""How many processors this process may use: by affinity, and by the quota of its control groups.

Sources: sched_setaffinity(2); the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max) and
scheduler/sched-bwc.rst (cpu.cfs_quota_us, cpu.cfs_period_us).
"""

import os

__all__ = ["groups", "usable_processors"]

_PROC = "/proc/self/cgroup"
_MOUNT = "/sys/fs/cgroup"


def usable_processors():
    """At least 1.  Half a processor counts as a whole one."""
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    return max(1, min(count, _quota()))


def _quota(proc=_PROC, mount=_MOUNT):
    """The smallest quota of this process's control groups, in processors; inf if there is none."""
    least = float("inf")
    for folder, is_v2 in _groups(proc, mount, "cpu"):
        try:
            least = min(least, _quota_of_v2(folder) if is_v2 else _quota_of_v1(folder))
        except ValueError:
            pass  # of a kind that is not known here
    return least if least == float("inf") else -int(-least // 1)


def groups(controller, proc=_PROC, mount=_MOUNT):
    """The folders (paths) of this process's control groups, each before those above it."""
    return [folder for folder, _ in _groups(proc, mount, controller)]


def _groups(proc, mount, controller):
    """Pairs: a folder, and whether it is of version 2."""
    text = _read(proc) or ""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path and not controllers:
            yield from ((folder, True) for folder in _upwards(mount, path))
        elif controller in controllers.split(","):
            for name in {controller, controllers}:
                yield from ((folder, False) for folder in _upwards(os.path.join(mount, name), path))


def _upwards(root, path):
    """A group and all above it.  In a container `path` may be the host's, and not be there."""
    folder = path.rstrip("/")
    while folder:
        yield str(root) + folder
        folder = folder.rpartition("/")[0]
    yield str(root)


def _quota_of_v2(folder):
    text = _read(f"{folder}/cpu.max")
    if text is None or text.startswith("max"):
        return float("inf")
    quota, period = text.split()
    return int(quota) / int(period)


def _quota_of_v1(folder):
    quota, period = (_read(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
    if quota is None or period is None or int(quota) <= 0:
        return float("inf")
    return int(quota) / int(period)


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None
