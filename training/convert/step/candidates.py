"""Offers the chunk cells that can be made of a step graph."""

from collections.abc import Callable
from typing import Final

import onnx

from service.contract import spec
from training.convert.candidate import Candidate
from training.convert.graph.copying import every_node
from training.convert.graph.describing import layers_of
from training.convert.original.roles import RECURRENT
from training.convert.step.edge import contract_states
from training.convert.step.flat import flat
from training.convert.step.graphs import StepGraph
from training.convert.step.parted import parted
from training.convert.step.scanned import scanned

WAYS: Final[dict[str, Callable[[StepGraph], onnx.ModelProto]]] = {
    "the recurrent nodes over time, everything else for all time steps at once": flat,
    "what the states need in a loop over time (Scan), everything else outside of it": parted,
    "the whole graph in a loop over time (Scan)": scanned,
}


def candidate(step: StepGraph, way: str) -> Candidate:
    """Return the chunk cell that one of `WAYS` makes.

    Raises:
        Refused: the graph cannot be taken this way.
    """
    return Candidate(
        kind="chunk",
        graph=WAYS[way](step),
        layers=layers(step),
        outputs=step.width,
        states=contract_states(step),
        notes=(f"run as: {way}", *_written(step)),
    )


def _written(step: StepGraph) -> tuple[str, ...]:
    """Return a sentence on a cell without recurrent nodes."""
    if _nodes(step):
        return ()
    return ("the cell is written out in other operators; it is described as rnn of its states' width",)


def _nodes(step: StepGraph) -> list[onnx.NodeProto]:
    return [node for node in every_node(step.graph.graph.node) if node.op_type in RECURRENT]


def layers(step: StepGraph) -> tuple[spec.Layer, ...]:
    """Return the recurrent layers, for people; a cell written by hand is one of the width of its states."""
    found = _nodes(step)
    if not found:
        width = max(one.dims[-1] for one in step.states)
        return (spec.Layer(kind="rnn", width=width),)
    return layers_of(found)
