"""Held-out results of windows of rows, the network beside its baselines."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from training.data.windows import Window, Windows
from training.recipes.report import Contender, Measure, Results
from training.recipes.window_baselines import logistic_regression, ridge, statistics, step_statistics

Floats = NDArray[np.float64]


def unit(windows: Windows) -> str:
    """Return what one answer is given for, in the plural."""
    return "windows" if windows.steps == "last" else "time steps"


def truth(windows: Sequence[Window]) -> NDArray[np.int64]:
    """Return the classes of all windows, or of all their steps, int64 (N,)."""
    return np.concatenate([np.atleast_1d(one.target) for one in windows]).astype(np.int64)


def probabilities(windows: Windows, outputs: Sequence[Floats]) -> Floats:
    """Return the probability of each class for each window or step, float64 (N, classes).

    Args:
        windows: which answers count.
        outputs: logits of each held-out window, (T, classes), or (1, classes).
    """
    found: Floats = np.exp(log_softmax(_counted(windows, outputs), axis=1))
    return found


def _counted(windows: Windows, outputs: Sequence[Floats]) -> Floats:
    return np.concatenate([one[-1:] if windows.steps == "last" else one for one in outputs])


def results(windows: Windows, outputs: Sequence[Floats], weights: Sequence[float] | None) -> Results:
    """Return the table of the held-out part.

    Args:
        windows: the data.
        outputs: of the network for each held-out window.
        weights: of the classes in training; None: all alike.
    """
    train, held_out = _features(windows, windows.train), _features(windows, windows.held_out)
    title = (
        f"{len({one.sequence for one in windows.held_out}):,} sequences, {len(held_out):,} {unit(windows)}"
    )
    if windows.labels:
        return _of_classes(title, windows, probabilities(windows, outputs), train, held_out, weights)
    return _of_numbers(title, windows, _counted(windows, outputs), train, held_out)


def _features(windows: Windows, part: Sequence[Window]) -> Floats:
    if windows.steps == "last":
        return np.stack([statistics(one.values) for one in part])
    return np.concatenate([step_statistics(one.values) for one in part])


def _of_classes(
    title: str,
    windows: Windows,
    network: Floats,
    train: Floats,
    held_out: Floats,
    weights: Sequence[float] | None,
) -> Results:
    known, classes, size = truth(windows.held_out), truth(windows.train), len(windows.labels)
    linear = logistic_regression(train, classes, held_out, size, weights)
    shares = np.bincount(classes, minlength=size) / len(classes)
    frequent = np.tile(shares, (len(known), 1))
    contenders = (
        Contender("network", "held_out"),
        Contender("logistic regression over statistics", "baseline_logistic"),
        Contender("most frequent class", "baseline_frequent"),
    )
    given = (network, linear, frequent)
    labels = [one.argmax(1) for one in given]
    right = tuple(100 * float((one == known).mean()) for one in labels)
    f1 = tuple(100 * macro_f1(one, known) for one in labels)
    measures = (
        Measure("right, %", "accuracy", right, ".1f"),
        Measure("F1, mean of classes, %", "macro_f1", f1, ".1f"),
        Measure("log loss, nats", "log_loss", tuple(_log_loss(one, known) for one in given)),
    )
    return Results(title, contenders, measures)


def macro_f1(given: NDArray[np.int64], known: NDArray[np.int64]) -> float:
    """Return the mean F1 of the classes that are there, 0..1."""
    return float(np.mean(list(f1_by_class(given, known).values())))


def f1_by_class(given: NDArray[np.int64], known: NDArray[np.int64]) -> dict[int, float]:
    """Return the F1 of each class that is there, 0..1."""
    found = {}
    for label in np.unique(known):
        hits = float(((given == label) & (known == label)).sum())
        found[int(label)] = 2 * hits / float((given == label).sum() + (known == label).sum())
    return found


def _log_loss(given: Floats, known: NDArray[np.int64]) -> float:
    right = given[np.arange(len(known)), known]
    return float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())


def _of_numbers(title: str, windows: Windows, outputs: Floats, train: Floats, held_out: Floats) -> Results:
    mean, scale = windows.target_scales()
    known, learnt = (
        np.concatenate([np.atleast_2d(one.target) for one in part])
        for part in (windows.held_out, windows.train)
    )
    given = (outputs * scale + mean, ridge(train, learnt, held_out), np.tile(mean, (len(known), 1)))
    contenders = (
        Contender("network", "held_out"),
        Contender("ridge regression over statistics", "baseline_ridge"),
        Contender("mean", "baseline_mean"),
    )
    measures = []
    for index, name in enumerate(windows.targets):
        errors = [one[:, index] - known[:, index] for one in given]
        rmse = tuple(float(np.sqrt((error**2).mean())) for error in errors)
        mae = tuple(float(np.abs(error).mean()) for error in errors)
        measures += [
            Measure(f"{name}: RMSE", f"rmse_{index}" if index else "rmse", rmse, ".4g"),
            Measure(f"{name}: mean absolute error", f"mae_{index}" if index else "mae", mae, ".4g"),
        ]
    return Results(title, contenders, tuple(measures))
