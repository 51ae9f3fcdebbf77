"""Declares what a conversion gives: graphs of the contract, with the proof that they equal the original."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from service.contract import spec
from training.convert.foreign import Array


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence, and what the original computed for it alone.

    Attributes:
        inputs: int64 (T,) or float32 (T, F), as the network gets it.
        initial: inputs of the init graph by name, float32 (size,).
        source: what an encoder reads, int64 (S,) or float32 (S, F); None: there is no encoder.
        steps: time steps of which there are outputs, ascending; the last one alone for a pooled network.
        outputs: float32 (steps, outputs), of the original.
    """

    inputs: Array
    steps: tuple[int, ...]
    outputs: NDArray[np.float32]
    initial: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    source: Array | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One way in which the graphs were run and compared with the original.

    Attributes:
        way: how the sequences were run, in words, such as "in chunks of 4".
        sequences: number of sequences.
        steps: number of time steps of all of them.
        difference: largest difference, of the larger of 1 and the sequence's largest output.
    """

    way: str
    sequences: int
    steps: int
    difference: float


@dataclass(frozen=True, slots=True)
class Converted:
    """A network in graphs of contract 2.

    Attributes:
        kind: chunk or whole.
        graph: the network's graph, as docs/contract.md describes it for its kind. Weights above a few
            kilobytes may lie in a file beside it (`weights_folder`).
        init: graph of the first states, or None.
        weights_folder: folder of the file of weights that the graphs name.
        layers: recurrent layers, for people.
        input: kind and size of the input.
        outputs: width of a row of outputs.
        every_step: the original gives a row of outputs a time step; false: one of the last step.
        states: states of a chunk cell.
        initial: names and widths of the init graph's inputs.
        source: kind and size of what an encoder reads, where the init graph is one: its input `source`, int64
            [batch, time] or float32 [batch, time, features]; None: there is no encoder.
        padding: of a whole network.
        pooled: a whole network gives one row a sequence.
        window: length that every sequence must have, where the network takes one length alone.
        examples: golden examples, computed by the original.
        comparisons: the proof.
        found: sentences on what the network is.
        assumed: sentences on what was taken for granted.
        repaired: sentences on what was changed in the graph before it was converted.
        tried: rungs of the ladder above this one with the reason why each does not hold.
    """

    kind: spec.Kind
    graph: onnx.ModelProto
    layers: tuple[spec.Layer, ...]
    input: spec.TokenInput | spec.FeatureInput
    outputs: int
    every_step: bool
    examples: tuple[Example, ...]
    comparisons: tuple[Comparison, ...]
    init: onnx.ModelProto | None = None
    weights_folder: str = ""
    states: tuple[spec.State, ...] = ()
    initial: tuple[spec.NamedWidth, ...] = ()
    source: spec.TokenInput | spec.FeatureInput | None = None
    padding: spec.Padding = "lengths"
    pooled: bool = False
    window: spec.Window | None = None
    found: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    tried: tuple[tuple[str, str], ...] = ()

    @property
    def difference(self) -> float:
        """Largest difference from the original in all comparisons, NaN if there is one."""
        return float(np.max([one.difference for one in self.comparisons]))
