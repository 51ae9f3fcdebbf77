"""The training loop: optimiser, schedule, progress, checkpoints. It does not know any task.

A checkpoint is written after every epoch. All randomness of an epoch follows from (seed, epoch), so a resumed
run goes on as if never stopped, unless a time limit makes the learning rate follow the clock. Several
processes train as one (training.loop.parallel): the leader reads and writes checkpoints and says when
training ends, the others take its weights.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Protocol

import torch
from torch import Tensor

from training.errors import TrainingError
from training.loop import parallel
from training.loop.checkpoint import CHECKPOINT_FILE, Epoch, load_checkpoint, save_checkpoint
from training.loop.precision import computed_in, gradient_scaler
from training.loop.progress import Bar, counting, progress
from training.loop.schedule import (
    Ending,
    Schedule,
    Spent,
    best_epoch,
    ending,
    is_out_of_time,
    rate_now,
)
from training.networks.network import NetworkConfig, RecurrentNetwork
from training.networks.sequences import SequenceConfig, SequenceNetwork


class Objective(Protocol):
    """What a recipe gives to the loop."""

    steps_per_epoch: int

    @property
    def network(self) -> RecurrentNetwork | SequenceNetwork:
        """The network that is trained, in training mode during `losses`."""
        ...

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


def build_network(config: NetworkConfig, seed: int, device: str) -> RecurrentNetwork:
    """A freshly initialised network, the same for the same seed.

    Raises:
        TrainingError: the device is not there.
    """
    check_device(device)
    torch.manual_seed(seed)
    return RecurrentNetwork(config).to(device)


def build_sequence_network(config: SequenceConfig, seed: int, device: str) -> SequenceNetwork:
    """Initialise a network of contract 2, the same for the same seed.

    Raises:
        TrainingError: the device is not there.
    """
    check_device(device)
    torch.manual_seed(seed)
    return SequenceNetwork(config).to(device)


def check_device(device: str) -> None:
    """Check that PyTorch has the device.

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
        "schedule": schedule.bound(),
        "data": dict(data),
    }
    checkpoint = folder / CHECKPOINT_FILE
    _check_agreement(share, {**made_with, "schedule": schedule.facts()}, resume)
    run = _Run(objective, schedule, share)
    history: list[Epoch] = []
    saved = share.from_leader(
        lambda: load_checkpoint(checkpoint, made_with) if resume and checkpoint.exists() else None
    )
    if saved:
        history = run.restore(saved)
    share.copy_leader(network.state_dict().values())
    best = saved["best"] if saved else _copy(network.state_dict())
    ended = share.from_leader(lambda: run.ending(history))
    epoch = len(history)
    with progress(run.num_steps, epoch * objective.steps_per_epoch, is_shown=share.is_leader) as bar:
        if resume:
            bar.say(
                f"{len(history)} of {schedule.epochs} epochs found in {checkpoint}"
                if history
                else f"no {checkpoint}: starting from the beginning"
            )
        while ended is None:
            done = _run_epoch(run, epoch, bar)
            epoch += 1
            network.eval()
            if share.is_leader:
                history.append(_measured(objective, done, sample))
                if best_epoch(_develop(history)) == len(history):
                    best = _copy(network.state_dict())
                states = run.states() | {"best": best, "ending": run.ending(history)}
                save_checkpoint(checkpoint, made_with, states, history)
                bar.say(_shown(history[-1], epoch, schedule.epochs))
            ended = share.from_leader(lambda: run.ending(history))
        bar.say(_said(ended, schedule, history))
        bar.say(f"trained in {sum(epoch.cpu_seconds for epoch in history):,.1f} s of processor time")
    network.load_state_dict(best)
    network.eval()
    return history


def _develop(history: Sequence[Epoch]) -> list[float]:
    return [epoch.develop for epoch in history]


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
        f"epoch {epoch:>3}/{epochs}  training loss {done.train:.4f}  "
        f"development loss {done.develop:.4f}  {done.rate:,.0f} time steps/s"
    )


def _said(ended: Ending, schedule: Schedule, history: Sequence[Epoch]) -> str:
    """Return a line on why training ended and which epoch's weights are kept."""
    kept = f"kept: the weights of epoch {best_epoch(_develop(history))}"
    if ended == "time":
        return f"ended after {len(history)} epochs by --time-limit {schedule.time_limit_s:g}s; {kept}"
    if ended == "patience":
        return (
            f"ended after {len(history)} of {schedule.epochs} epochs: "
            f"{schedule.patience} without a better development loss (--patience); {kept}"
        )
    return kept


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
        self.num_steps = schedule.epochs * objective.steps_per_epoch
        # Seconds of the leader's clock, the same in all processes: told with the sum of the gradients.
        self.seconds = 0.0
        self._started, self._seconds_before = monotonic(), 0.0

    def restore(self, saved: Mapping[str, Any]) -> list[Epoch]:
        """Take the states of a checkpoint; return its epochs."""
        self.objective.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved.get("scaler") or self.scaler.state_dict())
        history = [Epoch(*line) for line in saved["history"]]
        self._seconds_before = saved.get("seconds", sum(epoch.seconds for epoch in history))
        self.seconds = self._seconds_before
        return history

    def clock(self) -> float:
        """Return the seconds of training and measuring so far, those of the checkpoint included."""
        return self._seconds_before + monotonic() - self._started

    def ending(self, history: Sequence[Epoch]) -> Ending | None:
        """Return why training ends now, by this process's clock; None: it goes on."""
        return ending(self.schedule, _develop(history), self.clock())

    def states(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "network": self.objective.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "seconds": self.clock(),
        }

    def step(self, loss: Tensor, rate: float, time_steps: int) -> tuple[float, int]:
        """One step of all processes down the gradient; the loss and the time steps of all of them."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        seconds = self.clock() if self.share.is_leader else 0.0
        value, steps, self.seconds = self.share.add_up(
            self.parameters, float(loss.detach()), time_steps, seconds
        )
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, round(steps)


def _run_epoch(run: _Run, epoch: int, bar: Bar) -> Epoch:
    """Train for an epoch, or for the part of it that the time limit leaves; it is not measured yet."""
    schedule, steps_per_epoch = run.schedule, run.objective.steps_per_epoch
    torch.manual_seed(schedule.seed * 1_000_003 + epoch)
    run.objective.network.train()
    started, cpu_started = monotonic(), process_time()
    sum_of_losses, time_steps, num_done = 0.0, 0, 0
    with counting(run.objective.network) as counter:
        for index, loss in enumerate(
            computed_in(schedule.precision, run.device_type, run.objective.losses(epoch))
        ):
            rate = rate_now(schedule, Spent(epoch * steps_per_epoch + index, run.seconds), run.num_steps)
            value, steps = run.step(loss, rate, counter.take())
            if not math.isfinite(value):
                raise TrainingError(
                    f"loss became {value} in epoch {epoch + 1}, step {index + 1}: "
                    "expected a finite number; try a lower --learning-rate, or check the data"
                )
            sum_of_losses += value
            time_steps += steps
            num_done = index + 1
            bar.advance(epoch + 1, sum_of_losses / num_done, time_steps / max(monotonic() - started, 1e-9))
            if is_out_of_time(schedule, run.seconds):
                break
    seconds = monotonic() - started
    (cpu_seconds,) = run.share.add_up((), process_time() - cpu_started)
    return Epoch(sum_of_losses / num_done, math.nan, cpu_seconds, time_steps=time_steps, seconds=seconds)
