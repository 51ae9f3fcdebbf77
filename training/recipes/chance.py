"""Says how far a mean over held-out units may lie from its true value by chance."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE = 0.95
# Fewer blocks than this say little about chance: they are made smaller. More than that say no more: they are
# made larger.
FEWEST_BLOCKS, MOST_BLOCKS = 20, 2000


def bootstrap(values: Floats, block: int) -> tuple[float, float]:
    """Return the confidence interval of the mean of values, drawn in blocks of neighbours.

    The bootstrap is that of Efron (1979), with blocks on a ring (Politis & Romano 1992). The same values give
    the same interval.

    Args:
        values: float64 (N,).
        block: so many neighbours depend on each other.
    """
    size = len(values)
    block = max(1, min(block, size // FEWEST_BLOCKS), size // MOST_BLOCKS)
    ring = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: block - 1]]))])
    sums = ring[block:] - ring[:-block]  # of the block that begins at each place
    generator = np.random.default_rng(0)
    count = -(-size // block)
    means = [sums[generator.integers(size, size=count)].sum() / (count * block) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
