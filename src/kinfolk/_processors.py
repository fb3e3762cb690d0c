"""How many processors this process may use: by affinity, and by the quota of its control groups.

Sources: sched_setaffinity(2); the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max) and
scheduler/sched-bwc.rst (cpu.cfs_quota_us, cpu.cfs_period_us).
"""

import os
from pathlib import Path

__all__ = ["usable_processors"]


def usable_processors():
    """At least 1.  Half a processor counts as a whole one."""
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    return max(1, min(count, _quota()))


def _quota(proc="/proc/self/cgroup", mount="/sys/fs/cgroup"):
    """The smallest quota of this process's control groups, in processors; inf if there is none."""
    least = float("inf")
    try:
        with open(proc) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        for _, controllers, path in lines:
            if not controllers:
                least = min(least, *_quotas(Path(mount), path, _quota_of_v2))
            elif "cpu" in controllers.split(","):
                for name in ("cpu", controllers):
                    least = min(least, *_quotas(Path(mount, name), path, _quota_of_v1))
    except (OSError, ValueError):
        return least  # no control groups, or of a kind that is not known here
    return least if least == float("inf") else -int(-least // 1)


def _quotas(root, path, quota_of):
    """Those of a group and of all above it.  In a container `path` may be the host's, not there."""
    group = root.joinpath(path.lstrip("/"))
    yield float("inf")
    for folder in (group, *group.parents):
        if folder == root or root in folder.parents:
            yield quota_of(folder)


def _quota_of_v2(folder):
    text = _read(folder / "cpu.max")
    if text is None or text.startswith("max"):
        return float("inf")
    quota, period = text.split()
    return int(quota) / int(period)


def _quota_of_v1(folder):
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota is None or period is None or int(quota) <= 0:
        return float("inf")
    return int(quota) / int(period)


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return None
