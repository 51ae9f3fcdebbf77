"""Writes the graph that generates: a few steps of a chunk cell with the sampler between them.

It is a Scan over the random numbers of the steps. Its body feeds a token of each row, computes the head, and
picks the next tokens (docs/contract.md lists the tensors). It holds no weights: they are external data in the
file of the chunk cell, which stores them once.

The body is the chunk cell's own nodes or, of an LSTM that was trained here, the same arithmetic in fewer
operations: the product of each token's embedding with the first layer's input weights is a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.contract import spec
from service.contract.generation_graph import NAMES, PREFIX, next_name, state_name
from training.export.external_weights import ExternalWeights
from training.export.generation_sampler import add_sampler
from training.export.graph_builder import GraphBuilder, float_tensor

# Squeeze and Unsqueeze take their axes as an input from this opset on.
_MIN_OPSET = 13


class StateTensor(NamedTuple):
    """A state tensor of the chunk cell: names as its input and output, and its width."""

    before: str
    after: str
    size: int


@dataclass(frozen=True, slots=True)
class Body:
    """Nodes that compute a step before a token is picked.

    Attributes:
        nodes: they read a row's token, int64 (B,), as `NAMES.token`, and the state tensors; their first nodes
            may read `lengths`, int32 (B,) of ones, and `wanted`, 0..B-1, as a chunk cell does.
        logits: name of the head's output, float32 (B, V).
        states: names before and after the step.
        initializers: weights.
    """

    nodes: Sequence[onnx.NodeProto]
    logits: str
    states: Sequence[StateTensor]
    initializers: Sequence[onnx.TensorProto]


def cell_body(graph: bytes, file: str, states: Sequence[StateTensor]) -> Body:
    """Return the body that has the nodes of a chunk cell.

    Args:
        graph: the serialized chunk cell, whose input is token ids.
        file: name of its file.
        states: its state tensors.
    """
    made, weights = onnx.load_from_string(graph), ExternalWeights(graph, file)
    builder = GraphBuilder()
    column = builder.constant(f"{PREFIX}time_axis", np.array([1], np.int64))
    builder.node("Unsqueeze", [NAMES.token, column], [spec.INPUT])  # (B, 1)
    kept = [weights.tensor(one, one.name, one.dims) for one in made.graph.initializer]
    return Body([*builder.nodes, *made.graph.node], spec.OUTPUT, states, [*kept, *builder.initializers])


def build_generation_graph(chunk_cell: onnx.ModelProto, body: Body, vocabulary: int) -> bytes:
    """Return the serialized graph.

    Args:
        chunk_cell: gives the opsets and the functions that the body needs; not changed.
        body: of a step.
        vocabulary: V.

    Raises:
        ValueError: the chunk cell has an opset before 13, or a name with the prefix of the names here.
    """
    opset = next(one.version for one in chunk_cell.opset_import if one.domain in ("", "ai.onnx"))
    if opset < _MIN_OPSET:
        raise ValueError(f"expected opset {_MIN_OPSET} or newer, found {opset}")
    if taken := sorted(name for name in _names_in(chunk_cell.graph) if name.startswith(PREFIX)):
        raise ValueError(f"expected no name that starts with {PREFIX}, found {taken[0]}")
    outer = GraphBuilder()
    _add_scan(outer, body, vocabulary, opset)
    made = helper.make_model(
        helper.make_graph(
            outer.nodes,
            "generation",
            _inputs(body.states),
            _outputs(body.states, vocabulary),
            [*body.initializers, *outer.initializers],
        ),
        opset_imports=list(chunk_cell.opset_import),
        functions=list(chunk_cell.functions),
        producer_name="seqserve",
        ir_version=chunk_cell.ir_version,
    )
    serialized: bytes = made.SerializeToString()
    return serialized


def _names_in(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the values of a graph; those inside its loops are their own."""
    values = {name for node in graph.node for name in (*node.input, *node.output)}
    return values | {one.name for one in graph.input} | {one.name for one in graph.initializer}


def _add_scan(outer: GraphBuilder, body: Body, vocabulary: int, opset: int) -> None:
    """Add the Scan and what its body reads beside the weights."""
    shape = outer.node("Shape", [NAMES.tokens], [f"{PREFIX}batch"])
    one = helper.make_tensor(f"{PREFIX}length", TensorProto.INT32, [1], [1])
    outer.nodes.append(helper.make_node("ConstantOfShape", [shape], [spec.LENGTHS], value=one))
    count = outer.node("Squeeze", [shape], [f"{PREFIX}count"])
    bounds = [
        outer.constant(f"{PREFIX}{name}", np.array(value)) for name, value in (("first", 0), ("stride", 1))
    ]
    outer.node("Range", [bounds[0], count, bounds[1]], [spec.WANTED])
    inner = GraphBuilder()
    inner.nodes.extend(body.nodes)
    picked = add_sampler(inner, outer, body.logits, vocabulary, opset)
    carried = [inner.node("Identity", [picked.tokens], [f"{PREFIX}carried"])]
    # A state that goes through unchanged, or leaves twice, needs a name of its own.
    carried += [
        inner.node("Identity", [one.after], [f"{PREFIX}after{index}"])
        for index, one in enumerate(body.states)
    ]
    scanned = [picked.tokens, picked.reached, picked.weights, picked.totals, picked.cut_margins, body.logits]
    inputs = [(NAMES.token, TensorProto.INT64), *((one.before, TensorProto.FLOAT) for one in body.states)]
    outer.node(
        "Scan",
        [NAMES.tokens, *(state_name(index) for index in range(len(body.states))), NAMES.uniforms],
        [
            f"{PREFIX}last",
            *(next_name(index) for index in range(len(body.states))),
            NAMES.picked,
            NAMES.reached,
            NAMES.weights,
            NAMES.totals,
            NAMES.cut_margins,
            NAMES.logits,
        ],
        body=helper.make_graph(
            inner.nodes,
            "step",
            [
                *(helper.make_tensor_value_info(name, kind, None) for name, kind in inputs),
                helper.make_tensor_value_info(NAMES.uniform, TensorProto.DOUBLE, None),
            ],
            [
                helper.make_tensor_value_info(name, kind, None)
                for name, kind in zip(
                    [*carried, *scanned],
                    [kind for _, kind in inputs]
                    + [TensorProto.INT64, *[TensorProto.DOUBLE] * 4, TensorProto.FLOAT],
                    strict=True,
                )
            ],
        ),
        num_scan_inputs=1,
    )


def _inputs(states: Sequence[StateTensor]) -> list[onnx.ValueInfoProto]:
    tensor = helper.make_tensor_value_info
    return [
        tensor(NAMES.tokens, TensorProto.INT64, ["batch"]),
        tensor(NAMES.uniforms, TensorProto.DOUBLE, ["steps", "batch", 1]),
        tensor(NAMES.inverse, TensorProto.DOUBLE, ["batch", 1]),
        tensor(NAMES.has_cuts, TensorProto.BOOL, []),
        tensor(NAMES.top_k, TensorProto.INT64, ["batch", 1]),
        tensor(NAMES.top_p, TensorProto.DOUBLE, ["batch", 1]),
        *(float_tensor(state_name(index), "batch", one.size) for index, one in enumerate(states)),
    ]


def _outputs(states: Sequence[StateTensor], vocabulary: int) -> list[onnx.ValueInfoProto]:
    tensor = helper.make_tensor_value_info
    drawn = [NAMES.reached, NAMES.weights, NAMES.totals]
    return [
        *(float_tensor(next_name(index), "batch", one.size) for index, one in enumerate(states)),
        tensor(NAMES.picked, TensorProto.INT64, ["steps", "batch"]),
        *(tensor(name, TensorProto.DOUBLE, ["steps", "batch", 1]) for name in drawn),
        tensor(NAMES.cut_margins, TensorProto.DOUBLE, ["steps", 1, 1]),
        float_tensor(NAMES.logits, "steps", "batch", vocabulary),
    ]
