"""Says how a run optimises and when it ends: pure functions of steps done, time spent and history."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from training.loop.precision import Precision

WARM_UP_SHARE = 0.03
LAST_RATE_SHARE = 0.02

# Why a run ended: all epochs are done, the development loss fell no more, or the time was up.
Ending = Literal["epochs", "patience", "time"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to optimise, and when to end.

    Attributes:
        epochs: passes over the training part.
        learning_rate: peak of the schedule (warm-up, then cosine).
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        seed: of weights, shuffling and dropout.
        precision: of the numbers it is computed in. Like the number of processes, it may change when a run is
            resumed.
        patience: epochs without a better development loss after which training ends; 0: it never does.
        time_limit_s: seconds of training and measuring after which training ends; None: no limit.
        batch: rows a step that the user asked for; None: the recipe's own. The recipe makes the batches, so
            the loop only binds the checkpoint to it.
        class_weights: as the user wrote them; None: all classes count alike. Bound like `batch`.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    precision: Precision = "fp32"
    patience: int = 0
    time_limit_s: float | None = None
    batch: int | None = None
    class_weights: str | None = None

    def of_member(self, seed: int, members: int) -> "Schedule":
        """Return the schedule of one of several networks: a seed of its own, a share of the time limit."""
        limit = self.time_limit_s
        return replace(self, seed=seed, time_limit_s=None if limit is None else limit / members)

    def facts(self) -> dict[str, Any]:
        """Return what all processes of a run must agree on."""
        return {name: value for name, value in asdict(self).items() if name != "precision"}

    def bound(self) -> dict[str, Any]:
        """Return what a resumed run must be given as before: all but when to end early."""
        return {
            name: value for name, value in self.facts().items() if name not in ("patience", "time_limit_s")
        }


class Spent(NamedTuple):
    """How far a run has come.

    Attributes:
        step: of all epochs, from 0.
        seconds: of training and measuring.
    """

    step: int
    seconds: float


def rate_at(step: float, total: int, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine down to a fiftieth of the peak.

    The cosine is that of Loshchilov & Hutter (2017).
    """
    warm_up = max(1, round(total * WARM_UP_SHARE))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return peak * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def rate_now(schedule: Schedule, spent: Spent, total: int) -> float:
    """Return the learning rate of the next step.

    Under a time limit the share of the time that is spent counts as the share of the steps, where it is the
    larger one: the rate comes down by the time that training ends, whatever the machine's speed.

    Args:
        schedule: how to optimise.
        spent: what is done.
        total: steps of all epochs.
    """
    step: float = spent.step
    if schedule.time_limit_s is not None:
        step = max(step, total * min(1.0, spent.seconds / schedule.time_limit_s))
    return rate_at(step, total, schedule.learning_rate)


def is_out_of_time(schedule: Schedule, seconds: float) -> bool:
    """Return whether the time limit, if there is one, is reached."""
    return schedule.time_limit_s is not None and seconds >= schedule.time_limit_s


def ending(schedule: Schedule, develop: Sequence[float], seconds: float) -> Ending | None:
    """Return why training ends now; None: it goes on.

    Args:
        schedule: how to optimise, and when to end.
        develop: development loss of each epoch so far.
        seconds: spent so far.
    """
    if len(develop) >= schedule.epochs:
        return "epochs"
    if develop and is_out_of_time(schedule, seconds):
        return "time"
    if schedule.patience and len(develop) - best_epoch(develop) >= schedule.patience:
        return "patience"
    return None


def best_epoch(develop: Sequence[float]) -> int:
    """Return the number, from 1, of the epoch whose weights are kept: the first with the least loss.

    It is 0 where no epoch is done. A loss that is no number is never the least, unless it is the first.
    """
    best = 0
    for number, loss in enumerate(develop, 1):
        if not best or all(loss < earlier for earlier in develop[: number - 1]):
            best = number
    return best
