"""Length distributions, written as text: `constant:50`, `uniform:10:200`, `lognormal:50:1:400`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_EXPECTED = "expected N, constant:N, uniform:MIN:MAX or lognormal:MEAN:SIGMA[:MAX]"
_MAX_OVER_MEAN = 10
MAX_LENGTH = 10_000_000
"""Longer than any server accepts; prevents a typing error from exhausting the memory."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of independent whole numbers of at least 1.

    Attributes:
        text: The distribution as the user wrote it.
        min_length: Smallest number drawn.
        max_length: Largest number drawn.
        sample: Draws a number before rounding and clipping.
    """

    text: str
    min_length: int
    max_length: int
    sample: Callable[[Random], float]

    def draw(self, random: Random) -> int:
        """Draw the next number."""
        return min(max(round(self.sample(random)), self.min_length), self.max_length)


def parse_distribution(text: str) -> Distribution:
    """Parse a distribution.

    `N` or `constant:N`; `uniform:MIN:MAX`, both included; `lognormal:MEAN:SIGMA[:MAX]`, where MEAN is the
    mean before clipping, SIGMA the standard deviation of the logarithm, and MAX defaults to ten times MEAN.

    Raises:
        ValueError: The text has another form, or a number is out of range.
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


def _uniform(text: str, min_length: int, max_length: int) -> Distribution:
    _check_bounds(min_length, max_length)
    return Distribution(text, min_length, max_length, lambda random: random.randint(min_length, max_length))


def _lognormal(text: str, mean: float, sigma: float, max_length: int | None) -> Distribution:
    if not (1 <= mean <= MAX_LENGTH and 0 <= sigma <= _MAX_OVER_MEAN):
        raise ValueError(f"expected a mean in 1..{MAX_LENGTH} and a sigma in 0..{_MAX_OVER_MEAN}")
    bound = min(math.ceil(_MAX_OVER_MEAN * mean), MAX_LENGTH) if max_length is None else max_length
    _check_bounds(1, bound)
    mu = math.log(mean) - sigma * sigma / 2
    return Distribution(text, 1, bound, lambda random: random.lognormvariate(mu, sigma))


def _check_bounds(min_length: int, max_length: int) -> None:
    if not 1 <= min_length <= max_length <= MAX_LENGTH:
        raise ValueError(f"expected lengths in 1..{MAX_LENGTH}, the smaller one first")
