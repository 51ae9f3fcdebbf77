"""The vectorised sampler of the service with its options prepared once: what anybody who generates has to pay
for.
"""

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import key_of, options_of, pick


class Sampler:
    """Plain sampling at temperature 1, row b with seed b.

    Args:
        rows: B.
        vocabulary: V.
    """

    def __init__(self, rows: int, vocabulary: int) -> None:
        self._options = options_of(np.ones(rows), np.zeros(rows, np.int64), np.ones(rows), vocabulary)
        self._keys = np.array([key_of(row) for row in range(rows)])

    def __call__(self, logits: NDArray[np.float32], positions: NDArray[np.uint64]) -> NDArray[np.int64]:
        """One token a row: float32 (B, V), uint64 (B,) -> int64 (B,)."""
        return pick(logits, self._options, self._keys, positions)
