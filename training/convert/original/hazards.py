"""Finds what a comparison on random sequences would hardly meet, in the nodes and constants of a graph.

A network may do something else at one token, at a threshold or from a length on. The numbers that its graph
holds say where, and sequences are drawn there. What no sequence can show is refused by its operator.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from training.convert.foreign import Refused
from training.convert.graph.constants import optional_input, tensors_of
from training.convert.graph.copying import attributes_of, every_node, needed, subgraphs
from training.convert.original.roles import RECURRENT, ancestors

_RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
# Types of the inputs of recurrent nodes: weights, states, and lengths.
_TAKEN = {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32}
_KNOWN = frozenset(onnx.TensorProto.DataType.values())
_SEQUENCE_LENS = 4
# Numbers beyond it stand for minus infinity in masks.
_LARGEST_MARK = 1e6
_MAX_MARKS = 64
# Numbers of steps at which a graph is run because it holds the number.
_SHORTEST_TURN = 32
_LONGEST_TURN = 4096
_MAX_TURNS = 8
# Of steps and bytes of weights, which a step reads: about a minute.
_MAX_STEP_BYTES = 5e11


def refuse_random(graph: onnx.GraphProto) -> None:
    """Raise Refused if outputs depend on random numbers, which differ from run to run."""
    nodes = needed(graph.node, [one.name for one in graph.output])
    found = sorted({node.op_type for node in every_node(nodes)} & _RANDOM)
    if found:
        raise Refused(
            f"expected a network that gives one answer, found random numbers ({', '.join(found)})",
            "export it in eval mode",
        )


def refuse_other_types(graph: onnx.GraphProto) -> None:
    """Raise Refused if a recurrent node computes in 16 or 64 bits, where onnxruntime may end the process."""
    types = {one.name: one.data_type for one in graph.initializer}
    for node in every_node(graph.node):
        names = node.input if node.op_type in RECURRENT else ()
        others = {types[name] for name in names if name in types} - _TAKEN
        if others:
            first = min(others)
            kind = onnx.TensorProto.DataType.Name(first) if first in _KNOWN else f"type {first}"
            raise Refused(
                f"expected weights of 32-bit floats, found {kind} in a {node.op_type}",
                "export it in 32 bits, as with module.float()",
            )


def refuse_own_lengths(graph: onnx.GraphProto, data: str) -> None:
    """Raise Refused if a recurrent node takes lengths that are computed from the values of the sequence.

    The contract's lengths would stand in their place, and a padding token inside a sequence would count.
    """
    for node in graph.node:
        lengths = optional_input(node, _SEQUENCE_LENS) if node.op_type in RECURRENT else ""
        if lengths and data in ancestors(graph, [lengths]):
            raise Refused(f"a {node.op_type} takes lengths that are computed from the values of {data}")


def marks_of(graph: onnx.GraphProto) -> tuple[float, ...]:
    """Return single numbers that a graph holds, at which it may begin to do something else."""
    found = {float(number) for values in _values(graph) if values.size == 1 for number in values.ravel()}
    marks = sorted((one for one in found if abs(one) <= _LARGEST_MARK), key=abs)
    return tuple(marks[:_MAX_MARKS])


def turns_of(graph: onnx.GraphProto, weights_bytes: int) -> tuple[int, ...]:
    """Return numbers of time steps at which a graph may begin to do something else.

    Args:
        graph: the graph.
        weights_bytes: size of its weights; sequences at large ones are left out, since they take minutes.
    """
    longest = min(_LONGEST_TURN, _MAX_STEP_BYTES / max(1, weights_bytes))
    numbers = {float(one) for values in _values(graph) if values.size <= _MAX_TURNS for one in values.ravel()}
    turns = sorted(int(one) for one in numbers if _SHORTEST_TURN <= one < longest and one == int(one))
    return tuple(turns[:_MAX_TURNS])


def _values(graph: onnx.GraphProto) -> Iterator[NDArray[np.generic]]:
    """Yield small constants of numbers of a graph and its bodies, and limits that attributes hold."""
    tensors = tensors_of(graph)
    for name in tensors.constants:
        values = tensors.value(name)
        if values is not None and values.dtype.kind in "iuf" and values.size <= _MAX_TURNS:
            finite = values.ravel().astype(np.float64)
            yield finite[np.isfinite(finite)]
    for node in graph.node:
        if node.op_type in ("Clip", "ThresholdedRelu", "Slice"):
            for number in attributes_of(node).values():
                yield np.asarray(number, np.float64).ravel()
        for inner in subgraphs(node):
            yield from _values(inner)
