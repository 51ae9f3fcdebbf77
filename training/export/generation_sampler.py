"""Writes the sampler of a generation graph: what `service.engine.sampling` does, in float64 operations.

onnxruntime and numpy round exponentials and sums differently in the last bits. So beside each token the graph
gives how far the draw was from another one (`service.engine.draws`), and the engine takes no token that was
too close to tell: it samples that step itself.
"""

from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.contract.generation_graph import NAMES, PREFIX
from training.export.graph_builder import GraphBuilder

_FIRST_OPSET_OF_AXES = 18  # of ReduceMax and ReduceMin as an input


class Picked(NamedTuple):
    """Names of the tensors that a step has picked.

    Attributes:
        tokens: int64 (B,).
        reached: sum of the weights up to the token, it included, float64 (B, 1).
        weights: weight of the token, float64 (B, 1).
        totals: sum of all weights of a row, float64 (B, 1).
        cut_margins: least distance of a sum from a row's top_p, as a part of the total, float64 (1, 1).
    """

    tokens: str
    reached: str
    weights: str
    totals: str
    cut_margins: str


def add_sampler(inner: GraphBuilder, outer: GraphBuilder, logits: str, vocabulary: int, opset: int) -> Picked:
    """Add the nodes that pick a token of each row.

    Args:
        inner: of the step; its graph has the input `NAMES.uniform`, float64 (B, 1).
        outer: of the graph around it, which gets the constants and has the options as inputs.
        logits: float32 (B, V).
        vocabulary: V.
        opset: of the graph.

    Returns:
        The names of what it gives.
    """
    axis = outer.constant(f"{PREFIX}axis", np.array(1))
    last = outer.constant(f"{PREFIX}last_index", np.array([-1], np.int64))
    columns = outer.constant(f"{PREFIX}columns", np.array([1], np.int64))
    wide = inner.node("Cast", [logits], [f"{PREFIX}wide"], to=TensorProto.DOUBLE)
    highest = _reduce(inner, "ReduceMax", wide, f"{PREFIX}highest", [1], outer, opset)
    shifted = inner.node("Sub", [wide, highest], [f"{PREFIX}shifted"])
    scaled = inner.node("Mul", [shifted, NAMES.inverse], [f"{PREFIX}scaled"])
    every = inner.node("Exp", [scaled], [f"{PREFIX}weight"])  # (B, V), the largest of each row 1
    kept, margin = f"{PREFIX}kept", NAMES.cut_margins + ".step"
    inner.nodes.append(
        helper.make_node(
            "If",
            [NAMES.has_cuts],
            [kept, margin],
            then_branch=_cut(outer, every, logits, axis, last, vocabulary, opset),
            else_branch=_uncut(every),
        )
    )
    sums = inner.node("CumSum", [kept, axis], [f"{PREFIX}sums"])
    total = inner.node("Gather", [sums, last], [f"{PREFIX}total"], axis=1)  # (B, 1)
    drawn = inner.node("Mul", [NAMES.uniform, total], [f"{PREFIX}drawn"])
    exceeds = inner.node("Greater", [sums, drawn], [f"{PREFIX}exceeds"])
    flags = inner.node("Cast", [exceeds], [f"{PREFIX}flags"], to=TensorProto.UINT8)
    column = inner.node("ArgMax", [flags], [f"{PREFIX}column"], axis=1, keepdims=1)  # (B, 1), the first
    return Picked(
        inner.node("Squeeze", [column, columns], [f"{PREFIX}picked_step"]),
        inner.node("GatherElements", [sums, column], [f"{PREFIX}reached_step"], axis=1),
        inner.node("GatherElements", [kept, column], [f"{PREFIX}weight_step"], axis=1),
        total,
        margin,
    )


def _uncut(every: str) -> onnx.GraphProto:
    """Return the branch of a run of which no row has top_k or top_p."""
    builder = GraphBuilder()
    same = builder.node("Identity", [every], [f"{PREFIX}uncut"])
    far = helper.make_tensor("far", TensorProto.DOUBLE, [1, 1], [1.0])
    builder.nodes.append(helper.make_node("Constant", [], [f"{PREFIX}uncut_margin"], value=far))
    return _branch("uncut", builder, same, f"{PREFIX}uncut_margin")


def _cut(
    outer: GraphBuilder, every: str, logits: str, axis: str, last: str, vocabulary: int, opset: int
) -> onnx.GraphProto:
    """Return the branch that sets to zero what top_k and top_p exclude."""
    ranks = outer.constant(f"{PREFIX}ranks", np.arange(vocabulary, dtype=np.int64)[None])
    count = outer.constant(f"{PREFIX}vocabulary", np.array([vocabulary], np.int64))
    builder = GraphBuilder()

    def node(operator: str, inputs: list[str], name: str, **attributes: int) -> str:
        return builder.node(operator, inputs, [f"{PREFIX}cut.{name}"], **attributes)

    # Ranked by logits, most likely first, and of equal ones those of lower token ids first.
    order = f"{PREFIX}cut.order"
    builder.node("TopK", [logits, count], [f"{PREFIX}cut.values", order], axis=1)
    ranked = node("GatherElements", [every, order], "ranked", axis=1)
    is_inside = node("Cast", [node("Less", [ranks, NAMES.top_k], "inside")], "in_k", to=TensorProto.DOUBLE)
    ranked = node("Mul", [ranked, is_inside], "of_k")
    sums = node("CumSum", [ranked, axis], "sums")
    before = node("Sub", [sums, ranked], "before")  # weight of those more likely
    total = node("Gather", [sums, last], "total", axis=1)
    distance = node("Sub", [node("Div", [before, total], "part"), NAMES.top_p], "distance")
    margin = _reduce(
        builder, "ReduceMin", node("Abs", [distance], "away"), f"{PREFIX}cut.margin", [0, 1], outer, opset
    )
    limit = node("Mul", [NAMES.top_p, total], "limit")
    is_kept = node("Cast", [node("Less", [before, limit], "below")], "in_p", to=TensorProto.DOUBLE)
    ranked = node("Mul", [ranked, is_kept], "of_p")
    return _branch("cut", builder, node("ScatterElements", [every, order, ranked], "kept", axis=1), margin)


def _reduce(
    builder: GraphBuilder,
    operator: str,
    given: str,
    name: str,
    axes: list[int],
    outer: GraphBuilder,
    opset: int,
) -> str:
    """Add a reduction that keeps its axes, in the form of the opset."""
    if opset < _FIRST_OPSET_OF_AXES:
        return builder.node(operator, [given], [name], axes=axes, keepdims=1)
    return builder.node(
        operator, [given, outer.constant(f"{name}.axes", np.array(axes, np.int64))], [name], keepdims=1
    )


def _branch(name: str, builder: GraphBuilder, weights: str, margin: str) -> onnx.GraphProto:
    outputs = [helper.make_tensor_value_info(one, TensorProto.DOUBLE, None) for one in (weights, margin)]
    return helper.make_graph(builder.nodes, name, [], outputs)
