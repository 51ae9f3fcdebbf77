"""Declares a conversion that is not proven yet, and what it is compared with."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from service.contract import spec
from training.convert.cases import Case, Drawing
from training.convert.converted import Converted


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network in graphs of contract 2, as a rung of the ladder wrote it; see `Converted`."""

    kind: spec.Kind
    graph: onnx.ModelProto
    layers: tuple[spec.Layer, ...]
    outputs: int
    init: onnx.ModelProto | None = None
    states: tuple[spec.State, ...] = ()
    padding: spec.Padding = "lengths"
    pooled: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, converted: Converted) -> "Candidate":
        """Return the graphs of a conversion, to be run once more."""
        return cls(
            kind=converted.kind,
            graph=converted.graph,
            layers=converted.layers,
            outputs=converted.outputs,
            init=converted.init,
            states=converted.states,
            padding=converted.padding,
            pooled=converted.pooled,
        )


class Reference(Protocol):
    """The original, as proofs run it.

    Attributes:
        drawing: what it takes.
        every_step: it gives a row of outputs a time step; false: one of the last step.
        lengths: numbers of time steps that the original can be run with; None: any.
        is_fixed: candidates can be run with these alone, too.
        turns: numbers of time steps at which it may begin to do something else.
        example_steps: time steps of every golden example; None: any.
    """

    drawing: Drawing
    every_step: bool
    lengths: tuple[int, ...] | None
    is_fixed: bool
    turns: tuple[int, ...]
    example_steps: int | None

    def answer(self, case: Case) -> NDArray[np.float32]:
        """Return what the original computes for a sequence alone, float32 (T, outputs) or (1, outputs)."""
        ...
