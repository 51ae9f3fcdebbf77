"""Distributions of lengths, written as text: `constant:50`, `uniform:10:200`, `lognormal:50:1:400`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_EXPECTED = "expected N, constant:N, uniform:LEAST:MOST or lognormal:MEAN:SIGMA[:MOST]"
_MOST_OVER_MEAN = 10
MOST_LENGTH = 10_000_000
"""Longer than any server takes; keeps a slip of the finger from filling the memory."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Whole numbers of at least 1, drawn independently.

    Attributes:
        text: as it was written.
        least, most: bounds of what is drawn.
        sample: a number before it is rounded and bounded.
    """

    text: str
    least: int
    most: int
    sample: Callable[[Random], float]

    def draw(self, random: Random) -> int:
        """The next number."""
        return min(max(round(self.sample(random)), self.least), self.most)


def parse_distribution(text: str) -> Distribution:
    """A distribution as users write it.

    `constant:N`, or N alone; `uniform:LEAST:MOST`, both included; `lognormal:MEAN:SIGMA[:MOST]`, where MEAN
    is that of the numbers before they are bounded, SIGMA that of their logarithm, and MOST ten times the mean
    where it is not given.

    Raises:
        ValueError: it is none of these, or its numbers make no sense.
    """
    kind, *parts = text.split(":")
    try:
        if not parts:
            return _constant(text, int(kind))
        if kind == "constant" and len(parts) == 1:
            return _constant(text, int(parts[0]))
        if kind == "uniform" and len(parts) == 2:
            return _uniform(text, int(parts[0]), int(parts[1]))
        if kind == "lognormal" and len(parts) in (2, 3):
            return _lognormal(
                text, float(parts[0]), float(parts[1]), int(parts[2]) if len(parts) == 3 else None
            )
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{_EXPECTED}, found {text!r}: {error}") from error
    raise ValueError(f"{_EXPECTED}, found {text!r}")


def _constant(text: str, length: int) -> Distribution:
    _check_bounds(length, length)
    return Distribution(text, length, length, lambda _random: length)


def _uniform(text: str, least: int, most: int) -> Distribution:
    _check_bounds(least, most)
    return Distribution(text, least, most, lambda random: random.randint(least, most))


def _lognormal(text: str, mean: float, sigma: float, most: int | None) -> Distribution:
    if not (1 <= mean <= MOST_LENGTH and 0 <= sigma <= _MOST_OVER_MEAN):
        raise ValueError(f"expected a mean in 1..{MOST_LENGTH} and a sigma in 0..{_MOST_OVER_MEAN}")
    bound = min(math.ceil(_MOST_OVER_MEAN * mean), MOST_LENGTH) if most is None else most
    _check_bounds(1, bound)
    mu = math.log(mean) - sigma * sigma / 2
    return Distribution(text, 1, bound, lambda random: random.lognormvariate(mu, sigma))


def _check_bounds(least: int, most: int) -> None:
    if not 1 <= least <= most <= MOST_LENGTH:
        raise ValueError(f"expected lengths in 1..{MOST_LENGTH}, the least one first")
