"""Sorts waiting sequences into batches of nearly the same length. Knows nothing of Triton."""

from collections.abc import Sequence


def by_length(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Return batches of indices, the shortest sequences first.

    Args:
        lengths: time steps of each sequence.
        rows: the most sequences of a batch.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + rows] for start in range(0, len(order), rows)]
