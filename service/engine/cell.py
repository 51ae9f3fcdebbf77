"""What the engine needs of a runtime, and how wide the tensors are. service.runtime.Runtime is such a
cell.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.runtime import Chunk


class BoundChunk(Protocol):
    """A chunk that can be run again and again."""

    def run(self) -> None:
        """Compute `output` and `after` of the chunk."""
        ...


class Cell(Protocol):
    """Runs chunks."""

    def bind(self, chunk: Chunk) -> BoundChunk:
        """Tie arrays to the graph."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of a cell's tensors.

    Attributes:
        features: values a time step; None: token ids.
        outputs: of the head.
        state: of each state tensor.
    """

    features: int | None
    outputs: int
    state: tuple[int, ...]

    def inputs(self, steps: int) -> NDArray[Any]:
        """An array for so many time steps: int64 (steps,), or float32 (steps, F)."""
        return (
            np.zeros(steps, np.int64)
            if self.features is None
            else np.zeros((steps, self.features), np.float32)
        )
