"""The training loop: optimiser, schedule, progress, checkpoints. It does not know any task.

A checkpoint is written after every epoch. All randomness of an epoch follows from (seed, epoch), so a resumed
run goes on as if never stopped. Several processes train as one (training.loop.parallel): the leader reads and
writes checkpoints, the others take its weights.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from time import monotonic, process_time
from typing import Any, Protocol

import torch
from torch import Tensor

from training.errors import TrainingError
from training.loop import parallel
from training.loop.precision import Precision, computed_in, gradient_scaler
from training.loop.progress import Bar, counting, progress
from training.networks.network import NetworkConfig, RecurrentNetwork
from training.writing import write_whole

WARM_UP_SHARE = 0.03
LAST_RATE_SHARE = 0.02
CHECKPOINT_FILE = "checkpoint.pt"


class Objective(Protocol):
    """What a recipe gives to the loop."""

    network: RecurrentNetwork
    steps_per_epoch: int

    def losses(self, epoch: int) -> Iterator[Tensor]:
        """Yield the loss of each of the epoch's `steps_per_epoch` batches, to be differentiated; scalar, mean
        over valid steps or rows.

        Where several processes train together, each yields its part of that mean: of the rows that
        `parallel.share().part` gives it, by their weight.
        """
        ...

    def develop(self) -> float:
        """Loss on the development part, which picks the epoch whose weights are kept. Never the held-out
        part.
        """
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
        precision: of the numbers it is computed in. Like the number of processes, it may change when a run is
            resumed.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    precision: Precision = "fp32"


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


def rate_at(step: int, total: int, peak: float) -> float:
    """Learning rate of a step: linear warm-up, then cosine (Loshchilov & Hutter 2017) down to a fiftieth of
    the peak.
    """
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
    if found[1] and parallel.share().size > 1:
        raise TrainingError(
            "--device: expected cuda where several processes train, "
            f"since each takes the GPU of its own number, found {device}"
        )
    if device != "cpu" and int(found[1] or parallel.local_rank()) >= torch.cuda.device_count():
        raise TrainingError(
            f"--device {device}: PyTorch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices here; --device cpu works"
        )
    torch.manual_seed(seed)
    return RecurrentNetwork(config).to(device)


def fit(
    objective: Objective,
    schedule: Schedule,
    folder: Path,
    resume: bool,
    data: Mapping[str, str],
    sample: Callable[[], str] = str,
) -> list[Epoch]:
    """Train, and leave in `objective.network` the weights of the epoch that did best on the development part.

    Args:
        objective: network, losses and development loss.
        schedule: how to optimise.
        folder: where the checkpoint lives.
        resume: go on from the checkpoint in `folder`, if there is one.
        data: what is trained on, by name: the file's hash, columns chosen. A checkpoint goes on with the same
            data alone.
        sample: asked after each epoch what the network writes now, for the history.
    Raises:
        TrainingError: the checkpoint belongs to another network, schedule or data.
        WriteError: a checkpoint cannot be written.
    """
    share, network = parallel.share(), objective.network
    made_with = {
        "network": network.config.to_dict(),
        "schedule": _schedule_facts(schedule),
        "data": dict(data),
    }
    checkpoint = folder / CHECKPOINT_FILE
    _check_agreement(share, made_with, resume)
    run = _Run(objective, schedule, share)
    history: list[Epoch] = []
    saved = share.from_leader(
        lambda: _load_checkpoint(checkpoint, made_with) if resume and checkpoint.exists() else None
    )
    if saved:
        network.load_state_dict(saved["network"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.scaler.load_state_dict(saved.get("scaler") or run.scaler.state_dict())
        history = [Epoch(*line) for line in saved["history"]]
    share.copy_leader(network.state_dict().values())
    best = saved["best"] if saved else _copy(network.state_dict())
    with progress(
        schedule.epochs * objective.steps_per_epoch,
        len(history) * objective.steps_per_epoch,
        is_shown=share.is_leader,
    ) as bar:
        if resume:
            bar.say(
                f"{len(history)} of {schedule.epochs} epochs found in {checkpoint}"
                if history
                else f"no {checkpoint}: starting from the beginning"
            )
        for epoch in range(len(history), schedule.epochs):
            done = _run_epoch(run, epoch, bar)
            network.eval()
            if share.is_leader:
                history.append(_measured(objective, done, sample))
                if all(history[-1].develop < earlier.develop for earlier in history[:-1]):
                    best = _copy(network.state_dict())
                _save_checkpoint(checkpoint, made_with, run.states() | {"best": best}, history)
                bar.say(_shown(history[-1], epoch, schedule.epochs))
        bar.say(f"trained in {sum(epoch.cpu_seconds for epoch in history):,.1f} s of processor time")
    network.load_state_dict(best)
    network.eval()
    return history


def _schedule_facts(schedule: Schedule) -> dict[str, Any]:
    """What a checkpoint is bound to."""
    return {name: value for name, value in asdict(schedule).items() if name != "precision"}


def _check_agreement(share: parallel.Share, made_with: Mapping[str, Mapping[str, Any]], resume: bool) -> None:
    """All processes must mean the same run; one that torchrun started again must go on with it."""
    if parallel.restarts() and not resume:
        raise TrainingError(
            "torchrun started the run again: expected --resume, "
            "which goes on from the last checkpoint; all would be done anew"
        )
    for rank, other in enumerate(share.everyone(made_with)):
        for kind, facts in made_with.items():
            for name, value in facts.items():
                if other[kind].get(name) != value:
                    raise TrainingError(
                        f"process {rank} was started with {kind} {name}={other[kind].get(name)}, "
                        f"process {share.rank} with {value}"
                    )


def _measured(objective: Objective, done: Epoch, sample: Callable[[], str]) -> Epoch:
    """An epoch with what the leader measures after it."""
    started = process_time()
    with torch.no_grad():
        develop, text = objective.develop(), sample()
    return replace(
        done, develop=develop, sample=text, cpu_seconds=done.cpu_seconds + process_time() - started
    )


def _shown(done: Epoch, epoch: int, epochs: int) -> str:
    return (
        f"epoch {epoch + 1:>3}/{epochs}  training loss {done.train:.4f}  "
        f"development loss {done.develop:.4f}  {done.rate:,.0f} time steps/s"
    )


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in weights.items()}


class _Run:
    """What training changes, beside the network."""

    def __init__(self, objective: Objective, schedule: Schedule, share: parallel.Share) -> None:
        self.objective = objective
        self.schedule = schedule
        self.share = share
        self.parameters = list(objective.network.parameters())
        self.device_type = self.parameters[0].device.type
        # Fused: a tenth of the time of PyTorch's default on a CPU, where a step over a large embedding
        # otherwise takes as long as the network itself.
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
        )
        self.scaler = gradient_scaler(schedule.precision, self.device_type)

    def states(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "network": self.objective.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def step(self, loss: Tensor, rate: float, time_steps: int) -> tuple[float, int]:
        """One step of all processes down the gradient; the loss and the time steps of all of them."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        value, steps = self.share.add_up(self.parameters, float(loss.detach()), time_steps)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, round(steps)


def _run_epoch(run: _Run, epoch: int, bar: Bar) -> Epoch:
    """Train for an epoch; its development loss is not known yet."""
    schedule, steps_per_epoch = run.schedule, run.objective.steps_per_epoch
    torch.manual_seed(schedule.seed * 1_000_003 + epoch)
    run.objective.network.train()
    started, cpu_started = monotonic(), process_time()
    sum_of_losses, time_steps = 0.0, 0
    with counting(run.objective.network) as counter:
        for index, loss in enumerate(
            computed_in(schedule.precision, run.device_type, run.objective.losses(epoch))
        ):
            rate = rate_at(
                epoch * steps_per_epoch + index, schedule.epochs * steps_per_epoch, schedule.learning_rate
            )
            value, steps = run.step(loss, rate, counter.take())
            if not math.isfinite(value):
                raise TrainingError(
                    f"loss became {value} in epoch {epoch + 1}, step {index + 1}: "
                    "lower the learning rate or check the data"
                )
            sum_of_losses += value
            time_steps += steps
            bar.advance(epoch + 1, sum_of_losses / (index + 1), time_steps / max(monotonic() - started, 1e-9))
    seconds = monotonic() - started
    (cpu_seconds,) = run.share.add_up((), process_time() - cpu_started)
    return Epoch(
        sum_of_losses / steps_per_epoch, math.nan, cpu_seconds, time_steps=time_steps, seconds=seconds
    )


def _save_checkpoint(
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


def read_history(checkpoint: Path, config: NetworkConfig | None = None) -> list[Epoch]:
    """The epochs of a run; none where there is no checkpoint, or it is another network's.

    Raises:
        TrainingError: the file is no checkpoint.
    """
    if not checkpoint.exists():
        return []
    saved = _load_checkpoint(checkpoint, {})
    return (
        [Epoch(*line) for line in saved["history"]]
        if config is None or saved["config"] == config.to_dict()
        else []
    )


def _load_checkpoint(path: Path, made_with: dict[str, dict[str, Any]]) -> dict[str, Any]:
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
