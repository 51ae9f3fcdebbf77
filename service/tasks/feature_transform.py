"""The arithmetic of forecasting: observations to the features that the network sees, its outputs to values.

It is that of `service.contract.spec.Column` and `service.contract.spec.ForecastSpec`; nothing is refused
here. There are two ways with the same results, bit for bit: arrays, for anything, and plain numbers, for one
short series, whose code takes a fifth less of a call's processor time. Logarithms and exponentials are
numpy's in both, for those of Python's `math` differ in the last bit. Every operation is element by element,
so that an observation has the same features whatever comes with it. Models with levels or a calendar
(`service.tasks.level_features`) take the way of arrays alone.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, cycle
from math import isfinite
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import ForecastSpec
from service.tasks.level_features import FeatureLayout

# Up to so many values plain numbers are faster.
_MAX_PLAIN_VALUES = 200
# Plain numbers leave to arrays what comes near the end of 32 bits (features) or of 64 (exponents).
_MAX_PLAIN_FEATURE, _MAX_PLAIN_EXPONENT = 1e30, 700.0


class FeatureTransform:
    """One model's columns and scales.

    C: columns, F: features, H: horizon, Q: quantiles. A level is f(value), where f is a column's transform.

    Args:
        spec: spec of the model.

    Attributes:
        target: index of the target's column.
        is_log: bool (C,), whether f is the logarithm.
        layout: which features there are of each column.
    """

    def __init__(self, spec: ForecastSpec) -> None:
        names = [column.name for column in spec.columns]
        self.target = names.index(spec.target)
        self.layout = FeatureLayout(spec.columns)
        self.is_log = np.array([column.transform == "log" for column in spec.columns])
        self._is_one_transform = len({column.transform for column in spec.columns}) == 1
        self._is_target_log = bool(self.is_log[self.target])
        self._references = [names.index(column.reference) for column in spec.columns]
        # Takes of a row of C values those that the columns of the next row are compared with.
        self._references_of: Callable[[Any], Iterable[float]] = (
            itemgetter(*self._references) if len(names) > 1 else itemgetter(slice(None))
        )
        self._scales = [column.scale for column in spec.columns]
        self._step_scales = np.array(spec.scales)[:, None]  # (H, 1)
        self._shape = (spec.horizon, len(spec.quantiles))
        self._plain_step_scales = np.repeat(spec.scales, len(spec.quantiles)).tolist()  # (H * Q,)

    def levels(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return f(value), float64 (N, C) contiguous; not finite where a value is outside f's domain."""
        if self._is_one_transform:
            return np.log(observations) if self._is_target_log else observations
        return np.where(self.is_log, np.log(np.where(self.is_log, observations, 1.0)), observations)

    def features(
        self, levels: NDArray[np.float64], starts: Iterable[int], before: Sequence[float] | None = None
    ) -> NDArray[np.float32]:
        """Return the features of `service.contract.forecast.Column`.

        Args:
            levels: float64 (N, C), series after series.
            starts: rows at which a series starts.
            before: levels before the first row, (C,); None: a first observation stands in for its
                predecessor.

        Returns:
            float32 (N, F); not finite where 32 bits do not hold one.
        """
        earlier = np.empty_like(levels)
        earlier[1:] = levels[:-1]
        for start in starts:
            earlier[start] = levels[start] if before is None else before
        changes = levels - earlier[:, self._references]
        features: NDArray[np.float32] = (changes / self._scales).astype(np.float32)
        return features if self.layout.is_plain else self.layout.features(levels, features)

    def values(self, outputs: NDArray[np.float32], last_levels: Sequence[float]) -> NDArray[np.float64]:
        """Return the forecasts.

        Args:
            outputs: outputs of the network, float32 (S, H * Q).
            last_levels: levels of the target at each series' end, (S,).

        Returns:
            float64 (S, H * Q) in the target's unit, each step's rising; not finite where a value is too
            large.
        """
        changes = outputs.astype(np.float64).reshape(-1, *self._shape) * self._step_scales
        levels = np.array(last_levels)[:, None, None] + changes
        values: NDArray[np.float64] = np.exp(levels) if self._is_target_log else levels
        # Quantiles that cross are put in order (rearrangement: Chernozhukov, Fernandez-Val & Galichon 2010).
        values.sort(axis=2)
        return values.reshape(len(outputs), -1)

    def plain_features(
        self, rows: Sequence[Sequence[float]], before: Sequence[float] | None
    ) -> tuple[NDArray[np.float32], list[float]] | None:
        """Return the features of one short series as `features` does, and its last levels.

        Args:
            rows: observations of C values each.
            before: levels before the first, (C,); None: it stands in for its predecessor.

        Returns:
            float32 (T, C), and (C,); None for a series that is left to arrays: a long one, one to be refused,
            or one of a model with levels or a calendar.
        """
        if (
            not self.layout.is_plain
            or not self._is_one_transform
            or len(rows) * len(self._scales) > _MAX_PLAIN_VALUES
        ):
            return None
        levels = rows
        if self._is_target_log:
            if not min(map(min, rows)) > 0:
                return None
            levels = np.log(rows).tolist()
        earlier = (levels[0] if before is None else before, *levels[:-1])
        pairs = zip(
            chain.from_iterable(levels),
            chain.from_iterable(map(self._references_of, earlier)),
            cycle(self._scales),
            strict=False,
        )
        features = [(level - past) / scale for level, past, scale in pairs]
        is_small = max(features) < _MAX_PLAIN_FEATURE and min(features) > -_MAX_PLAIN_FEATURE
        if not (is_small and isfinite(sum(features))):
            return None
        return np.array(features, np.float32).reshape(len(rows), -1), list(levels[-1])

    def plain_values(self, output: NDArray[np.float32], last_level: float) -> list[float] | None:
        """Return the forecast of one series as `values` does, (H * Q,); None where it is left to arrays."""
        scaled = zip(output.tolist(), self._plain_step_scales, strict=True)
        numbers = [last_level + change * scale for change, scale in scaled]
        if not isfinite(sum(numbers)):
            return None
        if self._is_target_log:
            if max(numbers) > _MAX_PLAIN_EXPONENT:
                return None
            numbers = np.exp(numbers).tolist()
        width = self._shape[1]
        for start in range(0, len(numbers), width):
            numbers[start : start + width] = sorted(numbers[start : start + width])
        return numbers
