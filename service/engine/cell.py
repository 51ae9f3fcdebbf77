"""The engine's view of a runtime (`service.runtime.Runtime`): chunks to run, and widths of tensors."""

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
    """Something that runs chunks."""

    def bind(self, chunk: Chunk) -> BoundChunk:
        """Tie arrays to the graph."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of a cell's tensors.

    Attributes:
        features: values a time step; None: token ids.
        outputs: width of the head.
        state: width of each state tensor.
        start: value of each state tensor at the start of a sequence, one number or float32 (H,); empty:
            zeros.
    """

    features: int | None
    outputs: int
    state: tuple[int, ...]
    start: tuple[float | NDArray[np.float32], ...] = ()

    def inputs(self, steps: int) -> NDArray[Any]:
        """Return zeros for so many time steps: int64 (steps,), or float32 (steps, F)."""
        return (
            np.zeros(steps, np.int64)
            if self.features is None
            else np.zeros((steps, self.features), np.float32)
        )
