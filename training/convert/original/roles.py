"""Finds what the inputs and outputs of a foreign graph are: data, lengths, states, inputs of first states."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from training.convert.foreign import Refused
from training.convert.graph.copying import every_node, read_by
from training.convert.options import Choices

RECURRENT = ("LSTM", "GRU", "RNN")
LOOPS = ("Loop", "Scan")
# Operators that move numbers and change none: what lies only behind these is the tensor itself.
_RESHAPING = frozenset(["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose"])
_MOVING = _RESHAPING | frozenset(["Slice", "Gather", "Split", "Concat", "Expand", "Constant", "Shape"])
_NUMBERS = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING}
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)


@dataclass(frozen=True, slots=True)
class Edge:
    """An input of a foreign graph.

    Attributes:
        name: its name.
        dtype: element type.
        dims: sizes of its axes; None: the axis may have any size.
    """

    name: str
    dtype: np.dtype[np.generic]
    dims: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """What the inputs and outputs of a foreign graph are.

    Attributes:
        data: the sequence.
        is_tokens: the data are token ids.
        lengths: lengths of the sequences, or None.
        source_lengths: lengths of what an encoder reads, or None.
        states: inputs that carry states; they start at zero.
        extras: inputs from which first states are computed, one row a sequence or a sequence themselves.
        output: name of the output that is served.
    """

    data: Edge
    is_tokens: bool
    lengths: Edge | None
    source_lengths: Edge | None
    states: tuple[Edge, ...]
    extras: tuple[Edge, ...]
    output: str


def edges(graph: onnx.GraphProto) -> tuple[Edge, ...]:
    """Return the inputs of a graph that are no initializers."""
    weights = {one.name for one in graph.initializer}
    return tuple(_edge(one) for one in graph.input if one.name not in weights)


def recurrent_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the recurrent nodes that are not inside a loop or branch, those of an encoder among them."""
    return [node for node in graph.node if node.op_type in RECURRENT]


def served_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the recurrent nodes without those of an encoder, which computes their first states."""
    encoder = ancestors(graph, _first_states(graph))
    return [node for node in recurrent_nodes(graph) if not encoder.intersection(filter(None, node.output))]


def find_roles(graph: onnx.GraphProto, choices: Choices) -> Roles:
    """Find what the inputs and outputs are.

    Raises:
        Refused: an input that is needed is not there, or one has no role; the sentence names it.
    """
    inputs = edges(graph)
    data = _data(graph, inputs, choices)
    others = [one for one in inputs if one != data]
    reaching = ancestors(graph, _first_states(graph))
    # Packing puts first states into the order of lengths, so that these reach them without any encoder.
    states = carrying_inputs(graph, choices)
    has_source = any(is_source(one) and one.name in reaching for one in others if one not in states)
    source_lengths = next(
        (one for one in others if has_source and _is_row(one) and one.name in reaching), None
    )
    others = [one for one in others if one != source_lengths]
    lengths = _lengths(others, choices)
    others = [one for one in others if one != lengths]
    states = tuple(one for one in states if one in others)
    extras = tuple(one for one in others if one not in states)
    for one in extras:
        if one.name not in reaching:
            raise Refused(
                f"input {one.name} is neither the sequence ({data.name}), nor its lengths, nor a state",
                f"if it has always one value, give it: --set {one.name}=VALUE",
            )
    is_tokens, output = _is_tokens(graph, data), _output(graph, choices)
    return Roles(data, is_tokens, lengths, source_lengths, states, extras, output)


def carrying_inputs(graph: onnx.GraphProto, choices: Choices) -> tuple[Edge, ...]:
    """Return the inputs that recurrent nodes start with as they are, and those named as states."""
    carrying = ancestors(graph, _first_states(graph), _MOVING) | {name for name, _ in choices.state}
    return tuple(one for one in edges(graph) if one.name in carrying and one.dtype == np.float32)


def ancestors(
    graph: onnx.GraphProto, names: Iterable[str], operators: frozenset[str] | None = None
) -> set[str]:
    """Return the tensors that others are computed from, shapes not counted, these others among them.

    Args:
        graph: the graph.
        names: tensors to begin with.
        operators: go on through nodes of these operators alone; None: through all.
    """
    makers = {name: node for node in graph.node for name in node.output if name}
    found: set[str] = set()
    waiting = [name for name in names if name]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        node = makers.get(name)
        if node is not None and node.op_type != "Shape" and (operators is None or node.op_type in operators):
            waiting.extend(read_by(node))
    return found


def _first_states(graph: onnx.GraphProto) -> list[str]:
    """Return the tensors that the recurrent nodes start with."""
    return [name for node in recurrent_nodes(graph) for name in node.input[5:7] if name]


def _edge(info: onnx.ValueInfoProto) -> Edge:
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type") or kind.elem_type not in _NUMBERS:
        raise Refused(f"input {info.name} is no tensor of numbers")
    dims = tuple(one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim)
    return Edge(info.name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), dims)


def _data(graph: onnx.GraphProto, inputs: tuple[Edge, ...], choices: Choices) -> Edge:
    if choices.data is not None:
        return _named(inputs, choices.data, "--data-input")
    nodes = served_nodes(graph)
    if nodes:
        reached = ancestors(graph, [nodes[0].input[0]])
    elif loops := [node for node in graph.node if node.op_type in LOOPS]:
        reached = ancestors(graph, read_by(loops[0]))
    else:
        found = ", ".join(sorted({node.op_type for node in every_node(graph.node)}))
        raise Refused(
            f"expected a recurrent node (LSTM, GRU, RNN, Loop or Scan), found {found or 'none'}",
            "a loop over time that the exporter unrolled has a fixed number of steps: export one step with "
            "its states as inputs and outputs, or give the PyTorch module itself",
        )
    known = {choices.lengths, *(name for name, _ in choices.state)}
    # With attention an encoder's source reaches the recurrent node, too.
    source = ancestors(graph, _first_states(graph))
    direct = ancestors(graph, [node.input[0] for node in nodes[:1]]) - source
    reached = direct if any(one.name in direct and len(one.dims) > 1 for one in inputs) else reached
    sequences = [one for one in inputs if one.name in reached and one.name not in known and len(one.dims) > 1]
    if not sequences:
        raise Refused("expected an input that reaches a recurrent node, found none")
    return sequences[0]


def _lengths(others: list[Edge], choices: Choices) -> Edge | None:
    if choices.lengths is not None:
        return _named(tuple(others), choices.lengths, "--lengths-input")
    return next((one for one in others if _is_row(one)), None)


def is_source(edge: Edge) -> bool:
    """Return True if an input is a sequence: of ids, or of rows of features."""
    return len(edge.dims) == (2 if edge.dtype.kind == "i" else 3)


def _is_row(edge: Edge) -> bool:
    """Return True if an input is one whole number a sequence."""
    return edge.dtype.kind == "i" and len(edge.dims) == 1


def _named(inputs: tuple[Edge, ...], name: str, option: str) -> Edge:
    for one in inputs:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in inputs)
    raise Refused(f"{option}: expected one of the inputs {names}, found {name}")


def _is_tokens(graph: onnx.GraphProto, data: Edge) -> bool:
    """Return True if the data are ids: whole numbers, or numbers cast to whole ones."""
    if data.dtype.kind == "i":
        return True
    readers = [node for node in graph.node if data.name in node.input]
    return bool(readers) and all(
        node.op_type == "Cast" and any(one.name == "to" and one.i in _INTEGERS for one in node.attribute)
        for node in readers
    )


def _output(graph: onnx.GraphProto, choices: Choices) -> str:
    names = [one.name for one in graph.output]
    if choices.output is not None:
        if choices.output not in names:
            raise Refused(
                f"--output-name: expected one of the outputs {', '.join(names)}, found {choices.output}"
            )
        return choices.output
    carried = {name for _, name in choices.state}
    left = [name for name in names if name not in carried]
    if not left:
        raise Refused(f"expected an output beside the states, found {', '.join(names) or 'none'}")
    return left[0]
