"""Weighs the classes of training rows, so that rare ones count as much as the user wants them to."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

NONE, BALANCED = "none", "balanced"
_EXPECTED = f"expected {NONE}, {BALANCED} or LABEL=WEIGHT,LABEL=WEIGHT with numbers above 0"


def class_weights(
    asked: str, labels: Sequence[str], counts: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    """Return the weight of each class in the loss; None where all count alike.

    The weights are scaled so that their mean over the training rows is 1, which leaves the learning rate's
    meaning as it is.

    Args:
        asked: "none", "balanced" (each class counts as much as any other, however rare it is), or
            "LABEL=WEIGHT,...": labels that are not named have a weight of 1.
        labels: names of the classes.
        counts: training rows of each class, all above 0; fractions where targets are soft.
    Returns:
        float32 (classes,).
    Raises:
        TrainingError: the text is none of these, or names a label that is not there.
    """
    if asked == NONE:
        return None
    if asked == BALANCED:
        weights = 1 / counts
    else:
        named = _named(asked, labels)
        weights = np.array([named.get(label, 1.0) for label in labels])
    return np.asarray(weights * counts.sum() / (weights * counts).sum(), np.float32)


def _named(asked: str, labels: Sequence[str]) -> dict[str, float]:
    named: dict[str, float] = {}
    for part in asked.split(","):
        label, equals, number = (piece.strip() for piece in part.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not equals or not 0 < weight < np.inf:
            raise TrainingError(f"--class-weights: {_EXPECTED}, found {asked!r}")
        if label not in labels:
            raise TrainingError(
                f"--class-weights: expected labels among {', '.join(map(repr, labels))}, found {label!r}"
            )
        if label in named:
            raise TrainingError(f"--class-weights: expected each label once, found {label!r} twice")
        named[label] = weight
    return named
