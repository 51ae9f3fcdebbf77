"""A histogram of positive numbers with buckets of constant relative width.

Its memory is bounded, and no percentile is understated.
"""

import math
from collections import Counter
from typing import Any

_WIDTH = 1.01
_MIN_VALUE = 1e-6
_MAX_VALUE = 1e9
_LOG_WIDTH = math.log(_WIDTH)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


class Histogram:
    """Counts numbers in buckets of 1 % relative width, from 1e-6 to 1e9; numbers outside count at the ends.

    Attributes:
        count: Number of values.
        min_value: Smallest value, exact; NaN if empty.
        max_value: Largest value, exact; NaN if empty.
        total: Sum of the values.
    """

    __slots__ = ("_buckets", "count", "max_value", "min_value", "total")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.min_value = math.nan
        self.max_value = math.nan
        self.total = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Add `value`, `count` times."""
        self._buckets[math.ceil(math.log(min(max(value, _MIN_VALUE), _MAX_VALUE)) / _LOG_WIDTH)] += count
        self.min_value = value if not self.count else min(self.min_value, value)
        self.max_value = value if not self.count else max(self.max_value, value)
        self.count += count
        self.total += value * count

    @property
    def mean(self) -> float:
        """The mean of the values, or NaN if empty."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, level: float) -> float:
        """Estimate the value that a share `level` of all values does not exceed (nearest rank).

        Returns:
            The upper edge of its bucket: never below the exact quantile and at most 1 % above it. NaN if
                empty.
        """
        rank = max(1, math.ceil(level * self.count))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return self.max_value if seen == self.count else min(_WIDTH**bucket, self.max_value)
        return math.nan

    def buckets(self) -> list[tuple[float, int]]:
        """Return the upper edge and the count of each non-empty bucket, ascending."""
        return [(_WIDTH**bucket, self._buckets[bucket]) for bucket in sorted(self._buckets)]

    def as_json(self) -> dict[str, Any]:
        """Return count, mean, minimum, maximum, percentiles and buckets; None replaces NaN."""
        if not self.count:
            return {"count": 0, "mean": None, "min": None, "max": None, "percentiles": {}, "buckets": []}
        return {
            "count": self.count,
            "mean": self.mean,
            "min": self.min_value,
            "max": self.max_value,
            "percentiles": {f"{100 * level:g}": self.quantile(level) for level in QUANTILES},
            "buckets": [[float(f"{edge:.4g}"), count] for edge, count in self.buckets()],
        }
