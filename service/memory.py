"""Memory of this process: what it may use, and what it uses now."""

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Cgroup version 1 writes a number near 2**63 where there is no limit.
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process may use: the smaller of the machine's memory and the cgroup's limit.

    Reads cgroup version 2 (memory.max), else version 1 (memory/memory.limit_in_bytes), as seen inside a
    container.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
    for name in _CGROUP_LIMITS:
        try:
            found = (cgroup / name).read_text().strip()
        except OSError:
            continue
        return min(machine, int(found)) if found.isdecimal() else machine
    return machine


def resident_bytes() -> int:
    """Return the bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def peak_resident_bytes() -> int:
    """Return the most bytes of memory that this process has had in use at once, since its program began."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1]) << 10
