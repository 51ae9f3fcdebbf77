"""Keeps a run's weights and history in its folder, so that it goes on as if never stopped."""

from dataclasses import astuple, dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from training.errors import TrainingError
from training.networks.network import NetworkConfig
from training.networks.sequences import SequenceConfig
from training.writing import write_whole

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of a run's history.

    Attributes:
        train, develop: mean training loss, development loss.
        cpu_seconds: processor time of all threads and processes that it took.
        sample: what the network wrote after it, where it writes.
        time_steps: that went through the network in training, padding left out.
        seconds: that training took, without measuring.
    """

    train: float
    develop: float
    cpu_seconds: float = 0.0
    sample: str = ""
    time_steps: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Time steps a second; 0 where nobody counted."""
        return self.time_steps / self.seconds if self.seconds else 0.0


def save_checkpoint(
    path: Path, made_with: dict[str, dict[str, Any]], states: dict[str, Any], history: list[Epoch]
) -> None:
    """Write a checkpoint whole: a run that is killed or has no space while writing leaves the earlier one.

    Raises:
        WriteError: It cannot be written.
    """
    saved = {
        "config": made_with["network"],
        "schedule": made_with["schedule"],
        "data": made_with["data"],
        "history": [astuple(epoch) for epoch in history],
        **states,
    }
    # PyTorch's own writer hides the operating system's error.
    written = BytesIO()
    torch.save(saved, written)
    write_whole(path, written.getvalue())


def read_history(checkpoint: Path, config: NetworkConfig | SequenceConfig | None = None) -> list[Epoch]:
    """The epochs of a run; none where there is no checkpoint, or it is another network's.

    Raises:
        TrainingError: the file is no checkpoint.
    """
    if not checkpoint.exists():
        return []
    saved = load_checkpoint(checkpoint, {})
    return (
        [Epoch(*line) for line in saved["history"]]
        if config is None or saved["config"] == config.to_dict()
        else []
    )


def load_checkpoint(path: Path, made_with: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Args:
        path: the checkpoint.
        made_with: kinds of facts, each by name, that it must have been made with; {}: any.
    Raises:
        TrainingError: it is no checkpoint, or was made with other facts.
    """
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = {
            "network": saved["config"],
            "schedule": saved["schedule"],
            "data": saved.get("data", made_with.get("data")),
        }
    except (OSError, EOFError, KeyError, RuntimeError, UnpicklingError) as error:
        raise TrainingError(
            f"--resume: {path} is no whole checkpoint; without --resume the run starts anew"
        ) from error
    for kind, wanted in made_with.items():
        for name, value in wanted.items():
            if found[kind].get(name) != value:
                raise TrainingError(
                    f"--resume: {path} was made with {kind} {name}={found[kind].get(name)}, "
                    f"this run asks for {name}={value}"
                )
    return saved
