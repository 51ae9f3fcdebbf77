"""Counts of positive numbers in buckets of constant relative width: memory is bounded, and no percentile is
understated.
"""

import math
from collections import Counter
from typing import Any

_WIDTH = 1.01
_LEAST = 1e-6
_MOST = 1e9
_LOG_WIDTH = math.log(_WIDTH)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


class Histogram:
    """Numbers counted in buckets that are 1 % wide, from 1e-6 (all below count there) to 1e9.

    Attributes:
        count: how many.
        least, most: exact; NaN where there are none.
        total: their sum.
    """

    __slots__ = ("_buckets", "count", "least", "most", "total")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.least = math.nan
        self.most = math.nan
        self.total = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Count a number, `count` times."""
        self._buckets[math.ceil(math.log(min(max(value, _LEAST), _MOST)) / _LOG_WIDTH)] += count
        self.least = value if not self.count else min(self.least, value)
        self.most = value if not self.count else max(self.most, value)
        self.count += count
        self.total += value * count

    @property
    def mean(self) -> float:
        """NaN where there is no number."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, level: float) -> float:
        """The number that a share `level` of all does not exceed (nearest rank), at most 1 % above it and
        never below; NaN where there is none.
        """
        rank = max(1, math.ceil(level * self.count))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return self.most if seen == self.count else min(_WIDTH**bucket, self.most)
        return math.nan

    def buckets(self) -> list[tuple[float, int]]:
        """Upper edge and count of each bucket that is not empty, ascending."""
        return [(_WIDTH**bucket, self._buckets[bucket]) for bucket in sorted(self._buckets)]

    def as_json(self) -> dict[str, Any]:
        """Count, mean, extremes, percentiles and buckets; NaN is null."""
        if not self.count:
            return {"count": 0, "mean": None, "min": None, "max": None, "percentiles": {}, "buckets": []}
        return {
            "count": self.count,
            "mean": self.mean,
            "min": self.least,
            "max": self.most,
            "percentiles": {f"{100 * level:g}": self.quantile(level) for level in QUANTILES},
            "buckets": [[float(f"{edge:.4g}"), count] for edge, count in self.buckets()],
        }
