"""Declares what every way in gives: a network from elsewhere as an ONNX graph, and what runs the original."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray

from service.contract import spec

Array = NDArray[Any]
# Runs the original: arrays by the names of the graph's inputs, one sequence (batch 1) in each, become the
# arrays of the graph's outputs, in their order.
Oracle = Callable[[Mapping[str, Array]], Sequence[Array]]


class Refused(Exception):
    """A network that cannot be served, or not in this way.

    Args:
        reason: what was expected, and what was found, one sentence for people.
        advice: what to do about it; empty where there is nothing to do.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{reason}; {advice}" if advice else reason)
        self.reason = reason
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Foreign:
    """A network from elsewhere.

    Attributes:
        graph: the network as an ONNX graph, as its exporter or a reader of this package wrote it.
        source: the file that it comes from.
        oracle: runs the original where that is something else than the graph, such as a PyTorch module; None:
            the graph in onnxruntime is the original.
        vocabulary: number of token ids, where the reader knows it; None: it is found in the graph.
        skipped_value: the network skips each time step of this token id, as Keras's `mask_zero` does, or each
            whose features all equal this number, as its Masking layer does; None: it skips none.
        assumed: sentences on what the reader took for granted, shown to the user.
        states: pairs of a graph input and the graph output that is its value after the time steps of a call,
            where the reader knows them; (): they are found, or there are none.
        is_step: the graph takes one time step a call, as [batch], [batch, features] or with a time axis of 1.
            The oracle of such a network gets the data alone, by the name of the graph's data input, with a
            time axis and as many steps as are wanted: (1, time) or (1, time, features). It gives the outputs
            that are no states, in the order of the graph, of the whole sequence.
        starts: the first value of a state by the name of its graph input, without the batch axis; a state
            that is not named starts with zeros.
        needs_a_step: a sequence of skipped steps alone has no finite answer, so that none is compared.
    """

    graph: onnx.ModelProto
    source: spec.Source
    oracle: Oracle | None = None
    vocabulary: int | None = None
    skipped_value: float | None = None
    assumed: tuple[str, ...] = ()
    states: tuple[tuple[str, str], ...] = ()
    is_step: bool = False
    starts: Mapping[str, Array] = field(default_factory=dict)
    needs_a_step: bool = False
