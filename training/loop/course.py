"""Reads the course of a run from its checkpoint: its epochs, why it ended, what it was given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from training.loop.checkpoint import CHECKPOINT_FILE, Epoch, load_checkpoint
from training.loop.schedule import Ending


class Course(NamedTuple):
    """How a run went.

    Attributes:
        history: its epochs.
        ending: why it ended; None: nobody noted it.
        epochs: that it was asked for.
        learning_rate: peak of its schedule.
        hidden: width of the widest layer's state.
        dropout: the larger of the network's two.
        class_weights: as the user wrote them; None: all classes count alike.
    """

    history: Sequence[Epoch]
    ending: Ending | None
    epochs: int
    learning_rate: float
    hidden: int
    dropout: float
    class_weights: str | None = None


def read_course(folder: Path) -> Course | None:
    """Return the course of the run in a folder; None where there is no checkpoint.

    Raises:
        TrainingError: The checkpoint is none.
    """
    if not (folder / CHECKPOINT_FILE).exists():
        return None
    saved = load_checkpoint(folder / CHECKPOINT_FILE, {})
    schedule, network = saved["schedule"], saved["config"]
    return Course(
        history=[Epoch(*line) for line in saved["history"]],
        ending=saved.get("ending"),
        epochs=schedule["epochs"],
        learning_rate=schedule["learning_rate"],
        hidden=_width(network),
        dropout=max(network.get("dropout", 0.0), network.get("input_dropout", 0.0)),
        class_weights=schedule.get("class_weights"),
    )


def _width(network: Mapping[str, Any]) -> int:
    """Return the width of the state, the widest where layers differ: `SequenceConfig` has one a layer."""
    return int(network["hidden"]) if "hidden" in network else max(one["width"] for one in network["layers"])
