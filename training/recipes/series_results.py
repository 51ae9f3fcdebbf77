"""Held-out results of windows of rows, the network beside its baselines."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from training.data.windows import Window, Windows
from training.recipes.class_measures import log_losses, mean_f1, mean_recall, share_right
from training.recipes.report import Contender, Measure, Results
from training.recipes.window_baselines import logistic_regression, ridge, statistics, step_statistics

Floats = NDArray[np.float64]

# Squared error of numbers, as a share of their variance over the training part: it decides.
ERROR_KEY = "scaled_error"


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
    return softmax(counted(windows, outputs))


def softmax(logits: Floats) -> Floats:
    """Return the probabilities of logits, float64 (N, classes)."""
    found: Floats = np.exp(log_softmax(logits, axis=1))
    return found


def counted(windows: Windows, outputs: Sequence[Floats]) -> Floats:
    """Return the outputs that are answers: of each window's last step, or of every step.

    Args:
        windows: which answers count.
        outputs: of each held-out window, (T, outputs), or (1, outputs).
    """
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
    return _of_numbers(title, windows, counted(windows, outputs), train, held_out)


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
    block, losses = (
        answers_a_sequence(windows.held_out, len(known)),
        [log_losses(one, known) for one in given],
    )
    measures = (
        share_right("right, %", labels, known, block),
        mean_recall("found, mean of classes, %", labels, known, block),
        mean_f1("F1, mean of classes, %", labels, known),
        Measure("log loss, nats", "log_loss", tuple(float(one.mean()) for one in losses)),
    )
    return Results(title, contenders, measures)


def answers_a_sequence(part: Sequence[Window], answers: int) -> int:
    """Return how many answers a sequence has on average: those of one sequence depend on each other."""
    return max(1, round(answers / len({one.sequence for one in part})))


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
    # Of several targets each counts alike: errors are measured by the target's spread.
    units = tuple((((one - known) / scale) ** 2).mean(axis=1) for one in given)
    block = answers_a_sequence(windows.held_out, len(known))
    values = tuple(float(one.mean()) for one in units)
    measures = [Measure("squared error / variance", ERROR_KEY, values, ".4g", "less", units, block)]
    for index, name in enumerate(windows.targets):
        errors = [one[:, index] - known[:, index] for one in given]
        rmse = tuple(float(np.sqrt((error**2).mean())) for error in errors)
        mae = tuple(float(np.abs(error).mean()) for error in errors)
        measures += [
            Measure(f"{name}: RMSE", f"rmse_{index}" if index else "rmse", rmse, ".4g"),
            Measure(f"{name}: mean absolute error", f"mae_{index}" if index else "mae", mae, ".4g"),
        ]
    return Results(title, contenders, tuple(measures))
