"""Where a measurement was made: cores, versions, commit; and pinning to a core."""

import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from training.export.export import commit

_PACKAGES = ("onnxruntime", "grpcio", "torch", "numpy", "uvloop", "protobuf", "tokenizers")

_CPU_INFO = Path("/proc/cpuinfo")
# As Linux names them, by what a reader calls them.
_INT8_FLAGS = {"VNNI": {"avx512_vnni", "avx_vnni"}, "AMX": {"amx_int8"}}


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores are used: the server, and everything in process, has one; the load generator another, where
    there are two.

    Attributes:
        server, client: numbers of cores.
    """

    server: int
    client: int

    @property
    def are_shared(self) -> bool:
        """There is one core for both."""
        return self.server == self.client

    @property
    def both(self) -> Set[int]:
        """The two of them."""
        return {self.server, self.client}


def choose_cores() -> Cores:
    """The first two cores that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[min(1, len(allowed) - 1)])


@contextmanager
def pinned(cores: Set[int]) -> Iterator[None]:
    """Keep every thread of this process, and those begun meanwhile, child processes included, to these
    cores.
    """
    before = os.sched_getaffinity(0)
    _pin(cores)
    try:
        yield
    finally:
        _pin(before)


def _pin(cores: Set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue  # it has ended meanwhile


@contextmanager
def taken() -> Iterator[None]:
    """Have the machine's cores to oneself, as far as other runs of this program go: two on one core measure
    each other. Waits for its turn.
    """
    path = Path(tempfile.gettempdir()) / "seqserve-benchmarks.lock"
    if not path.exists():
        path.touch()
    with path.open() as file:  # to read alone: another user may have made it
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def describe(cores: Cores) -> dict[str, str]:
    """What a reader has to know about the machine, by name."""
    placement = (
        "load generator and server on one core: there is only one"
        if cores.are_shared
        else f"server {cores.server}, client {cores.client}"
    )
    return {
        "CPU": _cpu_model(),
        "int8 instructions": _int8_instructions(),
        "cores": str(os.cpu_count()),
        "pinned to": placement,
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
    }


def _cpu_model() -> str:
    return _cpu_fact("model name") or platform.processor() or platform.machine()


def _int8_instructions() -> str:
    """Return which instructions the processor has for products of 8-bit integers."""
    flags = set(_cpu_fact("flags").split())
    return ", ".join(f"{name} {'yes' if flags & known else 'no'}" for name, known in _INT8_FLAGS.items())


def _cpu_fact(name: str) -> str:
    """Return what the kernel says of the first processor; empty if it does not say."""
    for line in _CPU_INFO.read_text().splitlines():
        if line.partition(":")[0].strip() == name:
            return line.partition(":")[2].strip()
    return ""
