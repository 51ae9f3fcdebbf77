"""Declares a graph that takes one time step a call, as a chunk cell is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from service.contract import spec
from training.convert.foreign import Array

_CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class StepState:
    """One tensor that carries a state from one time step to the next.

    Attributes:
        name: its name in the chunk cell.
        input: its name as input of the step graph.
        output: its name as output of the step graph.
        dims: sizes of its axes; that of the batch is 1.
        batch: axis of the batch.
        start: its value at the start of a sequence, float32 of shape `dims`.
    """

    name: str
    input: str
    output: str
    dims: tuple[int, ...]
    batch: int
    start: Array

    @property
    def width(self) -> int:
        """Numbers of one row."""
        return int(np.prod(self.dims))

    @property
    def order(self) -> tuple[int, ...]:
        """The axes with the batch first."""
        return (self.batch, *(axis for axis in range(len(self.dims)) if axis != self.batch))

    @property
    def rest(self) -> tuple[int, ...]:
        """Sizes of the axes without the batch."""
        return tuple(size for axis, size in enumerate(self.dims) if axis != self.batch)

    @property
    def back(self) -> tuple[int, ...]:
        """Permutation that undoes `order`."""
        return tuple(int(axis) for axis in np.argsort(self.order))


@dataclass(frozen=True, slots=True)
class StepGraph:
    """A graph that takes one time step a call.

    Attributes:
        graph: the graph; inputs that always have the same number are constants in it.
        data: input that holds the time step.
        dims: sizes of the data's axes; that of the batch is -1.
        dtype: element type of the data.
        vocabulary: number of token ids; None: the data are features.
        features: numbers of a time step as a caller sends it; 0 for tokens.
        overlap: last numbers of a time step that stand before the next one.
        output: output that is served.
        width: numbers of a row of outputs.
        states: what is carried, the overlap not among them.
        assumed: sentences on what was taken for granted.
        folder: folder of a file of its weights; None: the graph holds them.
    """

    graph: onnx.ModelProto
    data: str
    dims: tuple[int, ...]
    dtype: np.dtype[np.generic]
    vocabulary: int | None
    features: int
    overlap: int
    output: str
    width: int
    states: tuple[StepState, ...]
    assumed: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def input(self) -> spec.TokenInput | spec.FeatureInput:
        """The input of the chunk cell."""
        if self.vocabulary is not None:
            return spec.TokenInput(kind="tokens", size=self.vocabulary)
        return spec.FeatureInput(kind="features", size=self.features)

    @property
    def context(self) -> str:
        """Name of the state that holds the overlap."""
        return unused(_CONTEXT, [one.name for one in self.states])


def unused(name: str, taken: Sequence[str]) -> str:
    """Return the name, with a number behind it where it is taken."""
    candidates = [name, *(f"{name}.{number}" for number in range(2, len(taken) + 3))]
    return next(one for one in candidates if one not in taken)
