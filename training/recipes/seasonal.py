"""The methods that a forecaster is measured beside: the same time a season ago, and a linear model.

Each gets an interval from the errors that it makes itself on the development part, by steps ahead.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.forecasting import Prepared
from training.errors import TrainingError

Floats = NDArray[np.float64]
Days = NDArray[np.int64]

# A season is found where the changes of the target are alike a season apart: this much, and more than at the
# lags beside it.
LEAST_LIKENESS = 0.3
# A season that holds another one a whole number of times is only taken where it is this much more alike.
MUCH_MORE_ALIKE = 0.1
# Between a season and its double the likeness falls at least to this share.
LEAST_FALL = 0.5
# A season must come so many times in the training part.
SEASONS_SEEN = 4
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
MAX_DUMMIES = 400


def find_period(target: Floats) -> int:
    """Return the length of the season of a target in rows; 0 where there is none.

    It is the lag of the highest autocorrelation of the changes, the shortest of those about as high. Between
    a season and its double the autocorrelation falls: a peak that stays as high is noise on a longer wave.

    Args:
        target: the training part, (N,).
    """
    changes = np.diff(target)
    changes = changes - changes.mean()
    most = len(changes) // SEASONS_SEEN
    if most < 3 or not changes.any():
        return 0
    spectrum = np.fft.rfft(changes, 2 * len(changes))
    likeness = np.fft.irfft(np.abs(spectrum) ** 2)[: 2 * most]
    # The sums at long lags have fewer terms.
    likeness = likeness / likeness[0] * len(changes) / (len(changes) - np.arange(2 * most))
    inner = likeness[2:most]
    is_peak = (inner > likeness[1 : most - 1]) & (inner >= likeness[3 : most + 1]) & (inner > LEAST_LIKENESS)
    peaks = np.array(
        [
            lag
            for lag in 2 + np.flatnonzero(is_peak)
            if likeness[lag + 1 : 2 * lag].min() < LEAST_FALL * likeness[lag]
        ],
        np.int64,
    )
    if not len(peaks):
        return 0
    first = peaks[likeness[peaks] >= likeness[peaks].max() - MUCH_MORE_ALIKE][0]
    # Noise makes small peaks on the slope of a wide one.
    near = peaks[(peaks >= first) & (2 * peaks <= 3 * first)]
    return int(near[np.argmax(likeness[near])])


def chosen_period(option: int, target: Floats) -> int:
    """Return the season that `--period` gives, or the one that is found where it is 0.

    Raises:
        TrainingError: the training part does not hold it twice.
    """
    if not option:
        return find_period(target)
    if not 2 <= option <= len(target) // 2:
        raise TrainingError(
            f"--period: expected 2..{len(target) // 2} rows, twice in the {len(target)} rows of the "
            f"training part, found {option}"
        )
    return option


def season_ago(target: Floats, days: Days, horizon: int, period: int) -> Floats:
    """Return the newest known value of the same place in the season for each step: (D, horizon)."""
    steps = np.arange(1, horizon + 1)
    back = period * -(-steps // period)
    found: Floats = target[np.maximum(days[:, None] + steps - back, 0)]
    return found


class Errors(NamedTuple):
    """Quantiles of what came minus what was forecast, (horizon, levels)."""

    quantiles: Floats

    def around(self, forecast: Floats, median: int) -> Floats:
        """Return a forecast (D, horizon) as quantiles (D, horizon, levels); the median is itself."""
        spread = self.quantiles.copy()
        spread[:, median] = 0.0
        found: Floats = np.sort(forecast[:, :, None] + spread, axis=2)
        return found


def errors_of(future: Floats, forecast: Floats, levels: list[float]) -> Errors:
    """Return the quantiles of a method's errors on rows of which the future is known."""
    return Errors(np.nanquantile(future - forecast, levels, axis=0).T)


class LinearModel:
    """Ridge regression, one a step ahead, on lags of the target and the place in the season as dummies.

    The penalty of each step is the one that does best on the development part.

    Args:
        prepared: the series.
        period: length of the season; 0: there is none.
        train, develop: rows to fit to and to choose on, whose future is known.
    """

    def __init__(self, prepared: Prepared, period: int, train: Days, develop: Days) -> None:
        # scikit-learn takes two seconds to import.
        from sklearn.linear_model import Ridge  # noqa: PLC0415

        self._target, self._period = prepared.target, period
        self._mean, self._scale = self._target[train].mean(), self._target[train].std()
        self._models: list[Any] = []
        future = prepared.future(develop)
        for step in range(1, prepared.forecast.horizon + 1):
            inputs, wanted = self._inputs(train, step), prepared.future(train)[:, step - 1]
            fitted = [Ridge(alpha=penalty).fit(inputs, wanted) for penalty in PENALTIES]
            errors = [
                float(np.mean((model.predict(self._inputs(develop, step)) - future[:, step - 1]) ** 2))
                for model in fitted
            ]
            self._models.append(fitted[int(np.argmin(errors))])

    def forecast(self, days: Days) -> Floats:
        """Return the forecasts after the rows: (D, horizon)."""
        return np.stack(
            [model.predict(self._inputs(days, step)) for step, model in enumerate(self._models, 1)], axis=1
        )

    def _inputs(self, days: Days, step: int) -> Floats:
        """Return the last values, those one and seven seasons before the step, and dummies: (D, inputs)."""
        lags = days[:, None] - np.arange(max(7, min(self._period + 1, 64)))
        if self._period:
            back = np.array([self._period, 7 * self._period])
            lags = np.concatenate([lags, days[:, None] + step - back * -(-step // back)], axis=1)
        values = (self._target[np.maximum(lags, 0)] - self._mean) / self._scale
        places = ((days + step) // stride % size for stride, size in dummy_cycles(self._period))
        dummies = [
            np.eye(size)[place] for place, (_, size) in zip(places, dummy_cycles(self._period), strict=True)
        ]
        return np.concatenate([values, *dummies], axis=1)


def dummy_cycles(period: int) -> list[tuple[int, int]]:
    """Return the stride and the size of the dummies of a season: its rows, and seven of it.

    Of hourly rows with a daily season they are the hour of the day and the day of the week; the rows of a
    season of a week are the hours of it.
    """
    if not 0 < period <= MAX_DUMMIES:
        return []
    return [(1, period), (period, 7)]
