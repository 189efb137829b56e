"""How many cores this process may use, which the other processes of its job share."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CONTROL_GROUPS, _OF_THIS_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that this process may use; the processes that a launcher started on this machine share them.

    >>> available_cores() >= 1
    True
    """
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, own_cores() // max(1, int(beside) if beside.isdecimal() else 1))


def own_cores() -> int:
    """Cores that this process may use: those that it may run on, and no more than its control groups give it time on,
    as a container's `--cpus=2` or a pod's limit does.

    >>> allowed_cores() >= own_cores() >= available_cores()
    True
    """
    given = given_time()
    return allowed_cores() if given is None else max(1, min(allowed_cores(), math.ceil(given)))


def allowed_cores() -> int:
    """Cores that this process may run on, as OpenMP counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def given_time(groups: Path = _CONTROL_GROUPS, listed: Path = _OF_THIS_PROCESS) -> float | None:
    """Cores whose whole time the control groups of this process may use (`cpu.max`, or `cpu.cfs_quota_us` of version
    1), the least of all groups around it; None where there is no limit, or no control groups.

    groups: where their folders are. listed: which of them are this process's.
    """
    try:
        lines = listed.read_text().splitlines()
    except OSError:  # not Linux
        return None
    named = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return min((limit for _, kinds, path in named for limit in _limits(groups, kinds, path)), default=None)


def _limits(groups: Path, controllers: str, path: str) -> Iterator[float]:
    """Those of one group and of the groups around it. In a container its path may be that of the machine outside, where
    only the outermost folder is there.
    """
    if controllers and "cpu" not in controllers.split(","):
        return
    outermost = groups / "cpu" if controllers else groups
    names = Path(path.strip("/")).parts
    for depth in range(len(names) + 1):
        folder = outermost.joinpath(*names[:depth])
        try:
            if controllers:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            else:
                quota, period = (folder / "cpu.max").read_text().split()
            if float(quota) > 0 and float(period) > 0:
                yield float(quota) / float(period)
        except (OSError, ValueError):  # ValueError: "max" is no number
            continue
