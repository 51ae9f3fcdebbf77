"""Frees the axes of batch and time where an exporter wrote their sizes into a foreign graph.

A repair is a guess at what the exporter would have written with free axes. It leaves the results at the sizes
of the export as they are; whether it holds at others is for the comparisons to decide.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.convert.graph.constants import Tensors, optional_input, tensors_of
from training.convert.graph.copying import attributes_of, needed, read_by
from training.convert.graph.zeros import are_zeros
from training.convert.original.fixed_sizes import FREED, follows_rules, free_sizes

RECURRENT = ("LSTM", "GRU", "RNN")
# Indices of the inputs that hold first states.
_FIRST_STATES = (5, 6)


def relax(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a copy of a model whose axes of batch and time are free, and a sentence for each kind of change.

    The model itself is returned, with no sentence, where nothing is written into it, and where it breaks
    ONNX's rules, which is for onnxruntime to say.

    Raises:
        Refused: sizes of tensors do not fit, or are too large.
    """
    if not follows_rules(model):
        return model, ()
    made = onnx.ModelProto()
    made.CopyFrom(model)
    fixed = _fixed_axes(made.graph)
    done = [
        _without_fixed_zeros(made.graph, has_fixed_inputs=bool(fixed)),
        _with_widened_states(made.graph),
        _with_free_recurrent_reshapes(made.graph),
        *free_sizes(made, fixed),
    ]
    sentences = tuple(one for one in done if one)
    if not sentences:
        return model, ()
    _forget_shapes(made.graph)
    _drop_unused(made.graph)
    return made, sentences


def _recurrent(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type in RECURRENT and not node.domain]


def _without_fixed_zeros(graph: onnx.GraphProto, *, has_fixed_inputs: bool) -> str:
    """Remove first states that are zeros of a fixed batch: a node without a first state starts with zeros."""
    tensors, count = tensors_of(graph), 0
    inputs = {one.name for one in graph.input} - {one.name for one in graph.initializer}
    for node in _recurrent(graph):
        for index in _FIRST_STATES:
            name = optional_input(node, index)
            if not name or not are_zeros(tensors, name):
                continue
            if has_fixed_inputs or not _behind(tensors, [name]) & inputs:
                node.input[index] = ""
                count += 1
    return f"{count} first states that are zeros of a fixed batch size were removed" if count else ""


def _behind(tensors: Tensors, names: Iterable[str]) -> set[str]:
    """Return the tensors that others are computed from, these among them."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += read_by(tensors.makers[name]) if name in tensors.makers else []
    return found


def _with_widened_states(graph: onnx.GraphProto) -> str:
    """Repeat first states that are one constant row over the batch of their node's input."""
    tensors, count = tensors_of(graph), 0
    added = []
    for node in _recurrent(graph):
        for index in _FIRST_STATES:
            row = _constant_row(tensors, optional_input(node, index))
            if row:
                wide = f"widened.{_key(node)}.{index}"
                added.append((node, _widening(node.input[0], row, wide)))
                node.input[index] = wide
                count += 1
    if not added:
        return ""
    _insert(graph, added)
    return f"{count} first states that are one constant row are now repeated for every row of a batch"


def _constant_row(tensors: Tensors, name: str) -> str:
    """Return the constant (D, B, H) that a first state is, if its rows are the same; else an empty name.

    A state that is repeated for a size that the data decide is free already.
    """
    expand = tensors.maker(name, "Expand")
    inputs = [one for one in _behind(tensors, [name]) if one not in tensors.makers]
    if expand is not None and all(one in tensors.constants for one in inputs):
        name = expand.input[0]
    dims = tensors.dims(name)
    if dims is None or len(dims) != 3:
        return ""
    value = tensors.value(name)
    if dims[1] == 1 or (
        value is not None and np.array_equal(value, np.broadcast_to(value[:, :1], value.shape))
    ):
        return name
    return ""


def _widening(x: str, state: str, wide: str) -> list[onnx.NodeProto]:
    """Return the nodes that repeat the first row of (D, B, H) for the batch of X (T, B, C)."""

    def constant(name: str, number: int) -> onnx.NodeProto:
        value = numpy_helper.from_array(np.array([number], np.int64), name)
        return helper.make_node("Constant", [], [f"{wide}.{name}"], value=value)

    return [
        constant("zero", 0),
        constant("one", 1),
        helper.make_node("Shape", [x], [f"{wide}.x"]),
        helper.make_node("Gather", [f"{wide}.x", f"{wide}.one"], [f"{wide}.batch"]),
        helper.make_node(
            "Concat", [f"{wide}.one", f"{wide}.batch", f"{wide}.one"], [f"{wide}.shape"], axis=0
        ),
        helper.make_node("Gather", [state, f"{wide}.zero"], [f"{wide}.row"], axis=1),
        helper.make_node("Expand", [f"{wide}.row", f"{wide}.shape"], [wide]),
    ]


def _insert(graph: onnx.GraphProto, added: Iterable[tuple[onnx.NodeProto, list[onnx.NodeProto]]]) -> None:
    """Insert nodes in front of those that read from them."""
    before: dict[str, list[onnx.NodeProto]] = {}
    for node, made in added:
        before.setdefault(_key(node), []).extend(made)
    nodes = [one for node in graph.node for one in (*before.get(_key(node), ()), node)]
    copies = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _key(node: onnx.NodeProto) -> str:
    return next((name for name in node.output if name), node.name)


def _with_free_recurrent_reshapes(graph: onnx.GraphProto) -> str:
    """Free the sizes in the reshapes by which torch's dynamo exporter joins directions and hidden state.

    Y (T, D, B, H) is transposed to (T, B, D, H) and reshaped to (T, B, D * H), whose sizes it writes down.
    """
    found = _recurrent_reshapes(graph)
    for node, recurrent in found:
        attributes = attributes_of(recurrent)
        directions = 2 if attributes.get("direction") == b"bidirectional" else 1
        # A width, not -1: a head has no rows where nothing is wanted, and -1 cannot be told then.
        _set_shape(graph, node, [0, 0, directions * attributes["hidden_size"]])
    return (
        f"{len(found)} reshapes of recurrent outputs no longer have the sizes of the export" if found else ""
    )


def written_steps(model: onnx.ModelProto) -> int | None:
    """Return the number of time steps that the reshapes of recurrent outputs have written down, or None."""
    tensors = tensors_of(model.graph)
    shapes = [tensors.integers(node.input[1]) or [0] for node, _ in _recurrent_reshapes(model.graph)]
    return next((sizes[0] for sizes in shapes if sizes[0] > 0), None)


def _recurrent_reshapes(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Return the reshapes with sizes of their own by which recurrent outputs are joined, with their nodes."""
    tensors, found = tensors_of(graph), []
    for node in graph.node:
        if node.op_type != "Reshape" or tensors.integers(node.input[1]) is None:
            continue
        turned = tensors.maker(node.input[0], "Transpose")
        if turned is None or list(attributes_of(turned).get("perm", [])) != [0, 2, 1, 3]:
            continue
        sizes = tensors.integers(node.input[1]) or []
        recurrent = tensors.maker(turned.input[0], *RECURRENT)
        has_width = recurrent is not None and "hidden_size" in attributes_of(recurrent)
        if recurrent is not None and has_width and len(sizes) == 3 and sizes[:2] != [0, 0]:
            found.append((node, recurrent))
    return found


def _set_shape(graph: onnx.GraphProto, node: onnx.NodeProto, sizes: list[int]) -> None:
    """Give a Reshape a shape of its own; 0 stands for the size of the input's axis."""
    name = f"{FREED}{node.output[0]}"
    graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    node.input[1] = name
    for one in [one for one in node.attribute if one.name == "allowzero"]:
        node.attribute.remove(one)


def _fixed_axes(graph: onnx.GraphProto) -> dict[str, dict[int, int]]:
    """Return the fixed axes of batch and time of the graph's inputs, with their sizes, by input and axis."""
    weights = {one.name for one in graph.initializer}
    tensors = tensors_of(graph)
    nodes = _recurrent(graph)
    data = _behind_values(tensors, [node.input[0] for node in nodes[:1]])
    starts = [name for node in nodes for name in node.input[5:7] if name]
    states = _behind_values(tensors, starts) - data
    found = {}
    for one in graph.input:
        dims = one.type.tensor_type.shape.dim
        if one.name in weights or not dims:
            continue
        kind = one.type.tensor_type.elem_type
        axes = _state_axes(len(dims)) if one.name in states else _data_axes(kind, len(dims))
        fixed = {axis: dims[axis].dim_value for axis in axes if dims[axis].HasField("dim_value")}
        if fixed:
            found[one.name] = fixed
    return found


def _behind_values(tensors: Tensors, names: Iterable[str]) -> set[str]:
    """Return the tensors whose values, not only their shapes, others are computed from."""
    found: set[str] = set()
    waiting = [name for name in names if name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            node = tensors.makers.get(name)
            waiting += read_by(node) if node is not None and node.op_type != "Shape" else []
    return found


def _data_axes(kind: int, rank: int) -> tuple[int, ...]:
    """Return the axes of batch and time: rows of features have one more axis, token ids have none."""
    is_tokens = kind in (TensorProto.INT64, TensorProto.INT32)
    return tuple(range(min(2, rank if is_tokens else max(rank - 1, 1))))


def _state_axes(rank: int) -> tuple[int, ...]:
    """Return the axis of batch of a state (..., B, H), or of a row of other numbers (B, N)."""
    return (max(rank - 2, 0),)


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Remove the sizes of the export from the outputs and from the tensors between; ranks stay."""
    del graph.value_info[:]
    for one in graph.output:
        for dim in one.type.tensor_type.shape.dim:
            dim.Clear()


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes that no output depends on: onnxruntime runs them, and their sizes no longer fit."""
    nodes = [onnx.NodeProto.FromString(one.SerializeToString()) for one in graph.node]
    del graph.node[:]
    graph.node.extend(needed(nodes, [one.name for one in graph.output]))
