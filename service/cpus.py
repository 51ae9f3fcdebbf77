"""CPU limit of this process: the smaller of its affinity and its cgroup's quota, not the host's cores."""

import math
import os
from pathlib import Path


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the cgroup's CPU quota in cores, or None if there is none.

    Reads cgroup version 2 (cpu.max), else version 1 (cpu/cpu.cfs_quota_us), as seen inside a container.
    """
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def usable_cpus() -> int:
    """Return the number of usable cores, rounded up, at least one."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))
