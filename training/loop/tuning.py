"""Declares the options that tune a run, checks them, and reads durations as people write them."""

import math
import re
from dataclasses import dataclass

from training.errors import TrainingError

# Under a cosine schedule the development loss may rest for some epochs and fall again as the rate comes down.
PATIENCE = 10
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Options that tune a run; None is the recipe's own default.

    Attributes:
        learning_rate: peak of the schedule, above 0 and at most 1.
        batch: rows a step, 1 or more.
        dropout: share of the values that is dropped in training, from 0 to below 1.
        patience: epochs without a better development loss after which training ends; 0: it never does.
        time_limit_s: seconds after which training ends.
        class_weights: "none", "balanced" or "LABEL=WEIGHT,...": `training.data.weights` reads it.
    Raises:
        TrainingError: a value is out of its range.
    """

    learning_rate: float | None = None
    batch: int | None = None
    dropout: float | None = None
    patience: int = PATIENCE
    time_limit_s: float | None = None
    class_weights: str = "none"

    def __post_init__(self) -> None:
        """Check the ranges; written so that NaN is refused."""
        rate, batch, dropout = self.learning_rate, self.batch, self.dropout
        if rate is not None and not 0 < rate <= 1:
            raise TrainingError(f"--learning-rate: expected a number above 0 and at most 1, found {rate}")
        if batch is not None and batch < 1:
            raise TrainingError(f"--batch: expected 1 row a step or more, found {batch}")
        if dropout is not None and not 0 <= dropout < 1:
            raise TrainingError(f"--dropout: expected a number from 0 to below 1, found {dropout}")
        if self.patience < 0:
            raise TrainingError(
                f"--patience: expected a number of epochs, or 0 for no end, found {self.patience}"
            )
        if self.time_limit_s is not None and not (0 < self.time_limit_s < math.inf):
            raise TrainingError(f"--time-limit: expected more than 0 seconds, found {self.time_limit_s}")

    def dropout_or(self, default: float) -> float:
        """Return the dropout, the recipe's own where none was given.

        A place where the recipe drops nothing stays as it is.
        """
        return default if self.dropout is None or not default else self.dropout

    def batch_or(self, default: int, rows: int) -> int:
        """Return the rows a step, the recipe's own where none was given.

        Args:
            default: the recipe's own.
            rows: that there are to train on.
        Raises:
            TrainingError: more were asked for than there are.
        """
        if self.batch is not None and self.batch > rows:
            raise TrainingError(
                f"--batch: expected at most {rows:,}, the rows there are to train on, found {self.batch:,}"
            )
        return default if self.batch is None else self.batch


def seconds_of(text: str) -> float | None:
    """Return the seconds of a duration such as 90s, 10m, 1.5h or 1h30m; None for an empty text.

    Raises:
        TrainingError: the text is no duration, or it is 0.
    """
    if not text:
        return None
    found = _DURATION.fullmatch(text.strip())
    seconds = sum(
        float(number) * factor
        for number, factor in zip(found.groups() if found else (), _SECONDS.values(), strict=False)
        if number
    )
    if not 0 < seconds < math.inf:
        raise TrainingError(f"--time-limit: expected a duration such as 90s, 10m or 1h30m, found {text!r}")
    return seconds
