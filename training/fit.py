"""The training loop: optimiser, schedule, progress, checkpoints. It does not know any task.

A checkpoint is written after every epoch. All randomness of an epoch follows from (seed, epoch), so a resumed run goes on as if never stopped.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from pickle import UnpicklingError
from time import process_time
from typing import Any, NamedTuple, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from training.network import NetworkConfig, RecurrentNetwork

WARM_UP_SHARE = 0.03
LAST_RATE_SHARE = 0.02
CHECKPOINT_FILE = "checkpoint.pt"


class TrainingError(Exception):
    """A run cannot start or go on: wrong data, options or checkpoint. The text says what was expected and found."""


class Objective(Protocol):
    """What a recipe gives to the loop."""

    network: RecurrentNetwork
    steps_per_epoch: int

    def losses(self, epoch: int) -> Iterator[Tensor]:
        """Yield the loss of each of the epoch's `steps_per_epoch` batches, to be differentiated; scalar, mean over valid steps or rows."""
        ...

    def develop(self) -> float:
        """Loss on the development part, which picks the epoch whose weights are kept. Never the held-out part."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to optimise.

    Attributes:
        epochs: passes over the training part.
        learning_rate: peak of the schedule (warm-up, then cosine).
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        seed: of weights, shuffling and dropout.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of a run's history.

    Attributes:
        train, develop: mean training loss, development loss.
        cpu_seconds: processor time of all threads that it took.
        sample: what the network wrote after it, where it writes.
    """

    train: float
    develop: float
    cpu_seconds: float = 0.0
    sample: str = ""


def rate_at(step: int, total: int, peak: float) -> float:
    """Learning rate of a step: linear warm-up, then cosine (Loshchilov & Hutter 2017) down to a fiftieth of the peak."""
    warm_up = max(1, round(total * WARM_UP_SHARE))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return peak * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def build_network(config: NetworkConfig, seed: int, device: str) -> RecurrentNetwork:
    """A freshly initialised network, the same for the same seed.

    Raises:
        TrainingError: the device is not there.
    """
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if not found:
        raise TrainingError(f"--device: expected cpu, cuda or cuda:<number>, found {device}")
    if device != "cpu" and int(found[1] or 0) >= torch.cuda.device_count():
        raise TrainingError(f"--device {device}: PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here; --device cpu works")
    torch.manual_seed(seed)
    return RecurrentNetwork(config).to(device)


def fit(
    objective: Objective, schedule: Schedule, folder: Path, resume: bool, data: Mapping[str, str], sample: Callable[[], str] = str
) -> list[Epoch]:
    """Train, and leave in `objective.network` the weights of the epoch that did best on the development part.

    Args:
        objective: network, losses and development loss.
        schedule: how to optimise.
        folder: where the checkpoint lives.
        resume: go on from the checkpoint in `folder`, if there is one.
        data: what is trained on, by name: the file's hash, columns chosen. A checkpoint goes on with the same data alone.
        sample: asked after each epoch what the network writes now, for the history.
    Raises:
        TrainingError: the checkpoint belongs to another network, schedule or data.
    """
    network = objective.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    made_with = {"network": network.config.to_dict(), "schedule": asdict(schedule), "data": dict(data)}
    checkpoint = folder / CHECKPOINT_FILE
    history: list[Epoch] = []
    best = _copy(network.state_dict())
    if resume and checkpoint.exists():
        saved = _load_checkpoint(checkpoint, made_with)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        history = [Epoch(*line) for line in saved["history"]]
        best = saved["best"]
    with _progress(schedule.epochs * objective.steps_per_epoch, len(history) * objective.steps_per_epoch) as bar:
        if resume:
            bar.say(
                f"{len(history)} of {schedule.epochs} epochs found in {checkpoint}" if history else f"no {checkpoint}: starting from the beginning"
            )
        for epoch in range(len(history), schedule.epochs):
            started = process_time()
            train = _run_epoch(objective, optimizer, schedule, epoch, bar)
            network.eval()
            with torch.no_grad():
                develop = objective.develop()
                text = sample()
            if all(develop < earlier.develop for earlier in history):
                best = _copy(network.state_dict())
            history.append(Epoch(train, develop, process_time() - started, text))
            states = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
            _save_checkpoint(checkpoint, made_with, states, history)
            bar.say(f"epoch {epoch + 1:>3}/{schedule.epochs}  training loss {train:.4f}  development loss {develop:.4f}")
    network.load_state_dict(best)
    network.eval()
    return history


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in weights.items()}


class _Bar(NamedTuple):
    """The progress bar on the screen."""

    progress: Progress
    task: TaskID

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _run_epoch(objective: Objective, optimizer: torch.optim.Optimizer, schedule: Schedule, epoch: int, bar: _Bar) -> float:
    torch.manual_seed(schedule.seed * 1_000_003 + epoch)
    network, total = objective.network, schedule.epochs * objective.steps_per_epoch
    network.train()
    sum_of_losses = 0.0
    for index, loss in enumerate(objective.losses(epoch)):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(epoch * objective.steps_per_epoch + index, total, schedule.learning_rate)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"loss became {value} in epoch {epoch + 1}, step {index + 1}: lower the learning rate or check the data")
        sum_of_losses += value
        bar.progress.update(bar.task, advance=1, loss=f"{sum_of_losses / (index + 1):.4f}", epoch=epoch + 1)
    return sum_of_losses / objective.steps_per_epoch


@contextmanager
def _progress(total: int, done: int) -> Iterator[_Bar]:
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        yield _Bar(progress, progress.add_task("train", total=total, completed=done, loss="-", epoch="-"))


def _save_checkpoint(path: Path, made_with: dict[str, dict[str, Any]], states: dict[str, Any], history: list[Epoch]) -> None:
    """Write beside, then rename: a run killed while writing leaves the earlier checkpoint whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    saved = {
        "config": made_with["network"],
        "schedule": made_with["schedule"],
        "data": made_with["data"],
        "history": [astuple(epoch) for epoch in history],
        **states,
    }
    torch.save(saved, beside)
    beside.replace(path)


def read_history(checkpoint: Path, config: NetworkConfig | None = None) -> list[Epoch]:
    """The epochs of a run; none where there is no checkpoint, or it is another network's.

    Raises:
        TrainingError: the file is no checkpoint.
    """
    if not checkpoint.exists():
        return []
    saved = _load_checkpoint(checkpoint, {})
    return [Epoch(*line) for line in saved["history"]] if config is None or saved["config"] == config.to_dict() else []


def _load_checkpoint(path: Path, made_with: dict[str, dict[str, Any]]) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = {"network": saved["config"], "schedule": saved["schedule"], "data": saved.get("data", made_with.get("data"))}
    except (OSError, EOFError, KeyError, RuntimeError, UnpicklingError) as error:
        raise TrainingError(f"--resume: {path} is no whole checkpoint; without --resume the run starts anew") from error
    for kind, wanted in made_with.items():
        for name, value in wanted.items():
            if found[kind].get(name) != value:
                raise TrainingError(f"--resume: {path} was made with {kind} {name}={found[kind].get(name)}, this run asks for {name}={value}")
    return saved
