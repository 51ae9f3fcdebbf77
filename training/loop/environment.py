"""Records where a run takes place, since its weights depend on that, too."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from training.loop.parallel import share

CPU_FACTS = Path("/proc/cpuinfo")


def environment() -> dict[str, str]:
    """Return the interpreter, the machine, and the settings of PyTorch, for model.json."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "processes": str(share().size),
        "deterministic_algorithms": "yes" if torch.are_deterministic_algorithms_enabled() else "no",
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        facts |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }
    return facts


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Have the same numbers give the same bits while the block runs.

    On a CPU an operation that cannot is an error, on CUDA a warning.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device != "cpu":
        # Read when cuBLAS starts; without it, its answers depend on how its streams share memory.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # Costs time, and nothing here reads memory before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def _processor() -> str:
    if CPU_FACTS.exists():
        for line in CPU_FACTS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
