"""Baselines for windows of rows: linear models over statistics of a window."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# At every time step the statistics are those of so many rows up to it.
RECENT_ROWS = 10
# The linear models learn from at most so many rows; more change nothing but the time.
MOST_ROWS = 20_000


def statistics(values: Floats) -> Floats:
    """Return mean, standard deviation, least, greatest, last value and slope of each feature.

    Args:
        values: float64 (T, F).
    Returns:
        float64 (6 F,).
    """
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    slope = steps @ values / max(1.0, float(steps @ steps))
    parts = [values.mean(0), values.std(0), values.min(0), values.max(0), values[-1], slope]
    return np.concatenate(parts)


def step_statistics(values: Floats) -> Floats:
    """Return the statistics of the recent rows at each time step, (T, F) -> (T, 6 F)."""
    return np.stack(
        [statistics(values[max(0, end - RECENT_ROWS) : end]) for end in range(1, len(values) + 1)]
    )


def logistic_regression(
    train: Floats, classes: NDArray[np.int64], rows: Floats, count: int, weights: Sequence[float] | None
) -> Floats:
    """Return class probabilities by logistic regression over standardised statistics.

    Args:
        train: (N, S).
        classes: (N,), below `count`.
        rows: (M, S).
        count: number of classes.
        weights: of each class; None: all count alike.
    Returns:
        float64 (M, count).
    """
    # scikit-learn takes two seconds to import, and baselines alone need it.
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    kept = _some(len(train))
    weighed = None if weights is None else {label: weights[label] for label in np.unique(classes[kept])}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight=weighed))
    model.fit(train[kept], classes[kept])
    probabilities = np.zeros((len(rows), count))
    probabilities[:, model.classes_] = model.predict_proba(rows)
    return probabilities


def ridge(train: Floats, targets: Floats, rows: Floats) -> Floats:
    """Return the targets by ridge regression over standardised statistics, (M, K)."""
    from sklearn.linear_model import Ridge  # noqa: PLC0415 - as above
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    kept = _some(len(train))
    model = make_pipeline(StandardScaler(), Ridge()).fit(train[kept], targets[kept])
    return np.asarray(model.predict(rows), np.float64).reshape(len(rows), -1)


def _some(count: int) -> NDArray[np.int64]:
    """Return the indices of at most `MOST_ROWS` rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).round().astype(np.int64))
