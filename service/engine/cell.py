"""The engines' view of `service.runtime`: chunks or whole sequences to run, and widths of tensors."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.runtime import Chunk, StepRun


class BoundChunk(Protocol):
    """A run that can be repeated."""

    def run(self) -> None:
        """Compute the arrays of outputs."""
        ...


class Cell(Protocol):
    """Something that runs chunks."""

    def bind(self, chunk: Chunk) -> BoundChunk:
        """Tie arrays to the graph."""
        ...


class Generator(Protocol):
    """Something that runs a few steps with the sampler in them (`service.runtime.GenerationRuntime`)."""

    def bind(self, run: StepRun) -> BoundChunk:
        """Tie arrays to the graph."""
        ...


class StepSize(NamedTuple):
    """Steps of a step tick of at most so many rows; 1: a generation graph is no faster.

    Attributes:
        rows: rows of the tick at most.
        steps: where all tokens may be picked.
        cut_steps: where top_k or top_p of some row excludes tokens: the graph then sorts those of all rows.
    """

    rows: int
    steps: int
    cut_steps: int


@dataclass(frozen=True, slots=True)
class Decoding:
    """Options of step ticks that a model decides.

    Attributes:
        end_tokens: tokens that end the row that generates them.
        generator: runs ticks of several steps; None: all have one.
        step_sizes: steps of those, by rows, which rise; beyond the last one ticks have one step.
    """

    end_tokens: Collection[int] = ()
    generator: Generator | None = None
    step_sizes: tuple[StepSize, ...] = ()


PLAIN = Decoding()


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
