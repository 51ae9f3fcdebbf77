"""The engines' view of `service.runtime`: chunks or whole sequences to run, and widths of tensors."""

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


class WholeCell(Protocol):
    """Something that runs whole sequences side by side (`service.runtime.WholeRuntime`)."""

    @property
    def takes_lengths(self) -> bool:
        """True if rows of a run may have different lengths."""
        ...

    def run(self, inputs: NDArray[Any], lengths: NDArray[np.int32] | None) -> NDArray[np.float32]:
        """Run a batch.

        Args:
            inputs: int64 (B, T) or float32 (B, T, F), C-contiguous.
            lengths: int32 (B,), 1..T; None if and only if the cell takes none.

        Returns:
            float32 (B, outputs), or (B, T, outputs) whose values behind a row's length mean nothing.

        Raises:
            ModelFailure: the run failed.
        """
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
