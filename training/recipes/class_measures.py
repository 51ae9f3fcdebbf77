"""Measures of labels that are given to parts of sequences, for tables of held-out results."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.recipes.report import Measure
from training.recipes.verdict import RECALL_KEY

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


def share_right(title: str, given: Sequence[Classes], known: Classes, block: int) -> Measure:
    """Return the share of right labels, per cent.

    Args:
        title: for people.
        given: labels of each contender, int64 (N,).
        known: the true labels, int64 (N,).
        block: so many neighbours depend on each other.
    """
    units = tuple(100.0 * (one == known) for one in given)
    values = tuple(float(one.mean()) for one in units)
    return Measure(title, "accuracy", values, ".2f", "more", units, block)


def mean_recall(title: str, given: Sequence[Classes], known: Classes, block: int) -> Measure:
    """Return the share of each label that is found, per cent, as the mean over the labels that are there.

    Args:
        title: for people.
        given: labels of each contender, int64 (N,).
        known: the true labels, int64 (N,).
        block: so many neighbours depend on each other.
    """
    counts = np.bincount(known)
    even = len(known) / (counts[known] * np.count_nonzero(counts))
    units = tuple(100.0 * even * (one == known) for one in given)
    return Measure(title, RECALL_KEY, tuple(float(one.mean()) for one in units), ".1f", "more", units, block)


def mean_f1(title: str, given: Sequence[Classes], known: Classes) -> Measure:
    """Return the mean F1 of the labels that are there, per cent."""
    values = tuple(100 * float(np.mean(list(f1_by_class(one, known).values()))) for one in given)
    return Measure(title, "macro_f1", values, ".1f", "more")


def f1_by_class(given: Classes, known: Classes) -> dict[int, float]:
    """Return the F1 of each label that is there, 0..1."""
    found = {}
    for label in np.unique(known):
        hits = float(((given == label) & (known == label)).sum())
        found[int(label)] = 2 * hits / float((given == label).sum() + (known == label).sum())
    return found


def log_losses(probabilities: Floats, known: Classes) -> Floats:
    """Return the log loss of each part in nats, float64 (N,); of a probability of 0 it is a large number.

    Args:
        probabilities: float64 (N, labels).
        known: int64 (N,).
    """
    right = probabilities[np.arange(len(known)), known]
    losses: Floats = -np.log(np.maximum(right, np.finfo(np.float64).tiny))
    return losses
