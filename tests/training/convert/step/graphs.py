"""Step graphs for tests: recurrent nodes with states as inputs and outputs, and cells written by hand."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.contract import spec
from training.convert.foreign import Foreign
from training.export.graph_builder import GraphBuilder

HIDDEN = 6
FEATURES = 4
OUTPUTS = 3
SOURCE = spec.Source(file="step.onnx", sha256="0" * 64)


class Weights:
    """Random weights that a seed decides."""

    def __init__(self, builder: GraphBuilder, seed: int) -> None:
        self._builder = builder
        self._rng = np.random.default_rng(seed)

    def __call__(self, name: str, *shape: int) -> str:
        values: NDArray[np.float32] = self._rng.normal(0, 0.4, shape).astype(np.float32)
        return self._builder.constant(name, values)


def floats(name: str, *sizes: str | int | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(sizes))


def foreign(
    builder: GraphBuilder, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> Foreign:
    return Foreign(builder.model("step", inputs, outputs), SOURCE)


def lstm(seed: int = 0, layers: int = 2, rank: int = 2, batch: str | int = "batch") -> Foreign:
    """A stack of LSTM nodes with states [layers, batch, hidden]; the head reads the data, too."""
    builder = GraphBuilder()
    weights = Weights(builder, seed)
    row = builder.node("Reshape", ["x", builder.constant("one", np.array([1, -1, FEATURES]))], ["row"])
    below, width = row, FEATURES
    ends: dict[str, list[str]] = {"h": [], "c": []}
    for layer in range(layers):
        place = builder.constant(f"place{layer}", np.array([layer]))
        first = [builder.node("Gather", [kind, place], [f"{kind}{layer}"], axis=0) for kind in ("h", "c")]
        names = [f"{kind}{layer}" for kind in ("y", "yh", "yc")]
        builder.node(
            "LSTM",
            [
                below,
                weights(f"w{layer}", 1, 4 * HIDDEN, width),
                weights(f"r{layer}", 1, 4 * HIDDEN, HIDDEN),
                weights(f"b{layer}", 1, 8 * HIDDEN),
                "",
                *first,
            ],
            names,
            hidden_size=HIDDEN,
        )
        ends["h"].append(names[1])
        ends["c"].append(names[2])
        below, width = builder.node("Squeeze", [names[0], builder.axis(1)], [f"out{layer}"]), HIDDEN
    for kind, names in ends.items():
        builder.node("Concat", names, [f"{kind}_out"], axis=0)
    _head(builder, weights, below, row)
    data = (batch, FEATURES) if rank == 2 else (batch, 1, FEATURES)
    states = [floats(kind, layers, batch, HIDDEN) for kind in ("h", "c")]
    nexts = [floats(f"{kind}_out", layers, batch, HIDDEN) for kind in ("h", "c")]
    return foreign(builder, [floats("x", *data), *states], [floats("y_out", batch, OUTPUTS), *nexts])


def _head(builder: GraphBuilder, weights: Weights, hidden: str, row: str) -> None:
    """y_out [batch, OUTPUTS] of hidden [1, batch, HIDDEN] and, past it, of the data [1, batch, FEATURES]."""
    both = builder.node("Concat", [hidden, row], ["both"], axis=2)
    flat = builder.node("Squeeze", [both, builder.axis(0)], ["flat"])
    logits = builder.node("MatMul", [flat, weights("head", HIDDEN + FEATURES, OUTPUTS)], ["logits"])
    builder.node("Softmax", [logits], ["y_out"], axis=-1)


def written_gru(seed: int = 0, tokens: int = 0) -> Foreign:
    """A GRU of MatMul, Sigmoid and Tanh, state [batch, hidden], of features or of token ids [batch]."""
    builder = GraphBuilder()
    weights = Weights(builder, seed)
    x = builder.node("Gather", [weights("table", tokens, FEATURES), "x"], ["row"]) if tokens else "x"
    both = builder.node("Concat", [x, "state/h:0"], ["both"], axis=1)
    gates = builder.node(
        "Sigmoid",
        [builder.node("MatMul", [both, weights("gates", FEATURES + HIDDEN, 2 * HIDDEN)], ["g"])],
        ["gs"],
    )
    parts = builder.constant("parts", np.array([HIDDEN, HIDDEN]))
    builder.node("Split", [gates, parts], ["z", "r"], axis=1)
    reset = builder.node("Mul", ["r", "state/h:0"], ["reset"])
    again = builder.node("Concat", [x, reset], ["again"], axis=1)
    new = builder.node(
        "Tanh", [builder.node("MatMul", [again, weights("new", FEATURES + HIDDEN, HIDDEN)], ["n"])], ["nt"]
    )
    old = builder.node("Mul", ["z", "state/h:0"], ["old"])
    keep = builder.node("Sub", [builder.constant("unit", np.ones((), np.float32)), "z"], ["keep"])
    builder.node("Add", [old, builder.node("Mul", [keep, new], ["fresh"])], ["hn"])
    builder.node("MatMul", ["hn", weights("head", HIDDEN, OUTPUTS)], ["y_out"])
    data = (
        helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])
        if tokens
        else floats("x", "batch", FEATURES)
    )
    return foreign(
        builder,
        [data, floats("state/h:0", "batch", HIDDEN)],
        [floats("y_out", "batch", OUTPUTS), floats("hn", "batch", HIDDEN)],
    )


def switched(rate: int) -> Foreign:
    """An LSTM with h and c in one state, behind an If that negates frames of another rate than `rate`."""
    builder = GraphBuilder()
    weights = Weights(builder, 3)
    same = builder.node("Equal", ["sr", builder.constant("rate", np.array(rate))], ["same"])
    builder.node("Identity", ["x"], ["as_is"])
    chosen = helper.make_node("If", [same], ["chosen"], name="If/chosen")
    for name, operator in (("then_branch", "Identity"), ("else_branch", "Neg")):
        output = f"{name}.x"
        node = helper.make_node(operator, ["as_is"], [output])
        branch = helper.make_graph([node], name, [], [floats(output, None, None)])
        chosen.attribute.append(helper.make_attribute(name, branch))
    builder.nodes.append(chosen)
    shape = builder.constant("one", np.array([1, -1, FEATURES]))
    row = builder.node("Reshape", ["chosen", shape], ["row"])
    first = [
        builder.node(
            "Gather", ["state", builder.constant(f"at{place}", np.array([place]))], [f"first{place}"], axis=0
        )
        for place in range(2)
    ]
    builder.node(
        "LSTM",
        [row, weights("w", 1, 4 * HIDDEN, FEATURES), weights("r", 1, 4 * HIDDEN, HIDDEN), "", "", *first],
        ["", "yh", "yc"],
        hidden_size=HIDDEN,
    )
    builder.node("Concat", ["yh", "yc"], ["stateN"], axis=0)
    flat = builder.node("Squeeze", ["yh", builder.axis(0)], ["flat"])
    builder.node("MatMul", [flat, weights("head", HIDDEN, 1)], ["y_out"])
    rate_input = helper.make_tensor_value_info("sr", TensorProto.INT64, [])
    return foreign(
        builder,
        [floats("x", None, None), floats("state", 2, None, HIDDEN), rate_input],
        [floats("y_out", None, 1), floats("stateN", 2, None, HIDDEN)],
    )
