"""Writes the measure of `training.networks.volatility` into the graph of a chunk cell.

The recurrence is a Scan of elementwise operators: what a row gets does not depend on the rows beside it or on
where its sequence is cut, to the last bit. onnxruntime's RNN has an Affine activation that could compute it
too, but not on CUDA. Inside the Scan arrays are time first.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.contract import spec
from training.export.graph_builder import GraphBuilder
from training.networks.network import NetworkConfig
from training.networks.volatility import STATE, Volatility

# Names of the results: features that are divided, float32 (B, T, F); the deviation, float32 (B, T, 1).
SCALED = "volatility.scaled"
DEVIATION = "volatility.deviation"


def add_volatility(builder: GraphBuilder, config: NetworkConfig) -> None:
    """Add the nodes that compute `SCALED`, `DEVIATION` and the measure's next state; none without a measure.

    Args:
        builder: gets the nodes and their constants.
        config: of the network.
    """
    volatility = config.volatility
    if volatility is None:
        return
    states = _scan(builder, volatility, _squares(builder, volatility))  # (B, T, 3)
    prior = builder.constant("volatility.prior", np.array(volatility.prior, np.float32))
    sums, weights = (
        builder.node(
            "Gather",
            [states, builder.constant(f"volatility.{name}.index", np.array([index]))],
            [f"volatility.{name}"],
            axis=2,
        )
        for index, name in enumerate(("sum", "weight"))
    )  # (B, T, 1) each
    above = builder.node("Add", [sums, prior], ["volatility.above"])
    below = builder.node("Add", [weights, prior], ["volatility.below"])
    builder.node("Sqrt", [builder.node("Div", [above, below], ["volatility.mean"])], [DEVIATION])
    mask = volatility.mask(config.features)
    share = builder.node(
        "Div", [builder.constant("volatility.divided", mask), DEVIATION], ["volatility.part"]
    )
    factor = builder.node(
        "Add", [share, builder.constant("volatility.left", 1 - mask)], ["volatility.factor"]
    )  # (B, T, F)
    builder.node("Mul", [spec.INPUT, factor], [SCALED])


def _squares(builder: GraphBuilder, volatility: Volatility) -> str:
    """Add the nodes of what a time step adds to a state that has begun; return the name of the (T, B, 3)."""
    index = builder.constant("volatility.measured", np.array(volatility.measured))
    columns = builder.node("Gather", [spec.INPUT, index], ["volatility.columns"], axis=2)  # (B, T, K)
    raw = builder.node("Mul", [columns, columns], ["volatility.squares.raw"])
    units = builder.constant("volatility.mean_squares", np.array(volatility.mean_squares, np.float32))
    squares = builder.node("Div", [raw, units], ["volatility.squares"])
    scaled = builder.node("ReduceMean", [squares], ["volatility.square"], axes=[2], keepdims=1)  # (B, T, 1)
    first = builder.constant("volatility.first", np.array([1, 0, 0], np.float32))
    second = builder.constant("volatility.second", np.array([0, 1, 0], np.float32))
    placed = builder.node("Mul", [scaled, first], ["volatility.placed"])  # (B, T, 3)
    added = builder.node("Add", [placed, second], ["volatility.added.batch_first"])
    return builder.node("Transpose", [added], ["volatility.added"], perm=[1, 0, 2])


def _scan(builder: GraphBuilder, volatility: Volatility, added: str) -> str:
    """Add the recurrence; return the name of the states after each step, (B, T, 3)."""
    bounds = [
        builder.constant("volatility.start", np.array(0, np.int64)),
        builder.node(
            "Squeeze",
            [builder.node("Shape", [spec.INPUT], ["volatility.time"], start=1, end=2)],
            ["volatility.end"],
        ),
        builder.constant("volatility.by", np.array(1, np.int64)),
    ]
    numbers = builder.node("Range", bounds, ["volatility.numbers"])  # (T,)
    long = builder.node("Cast", [spec.LENGTHS], ["volatility.lengths"], to=TensorProto.INT64)
    axis = builder.constant("volatility.axis", np.array([1], np.int64))
    builder.node("Unsqueeze", [long, axis], ["volatility.ends"])  # (B, 1)
    builder.node(
        "Scan",
        [STATE, added, numbers],
        [STATE + spec.NEXT_SUFFIX, "volatility.states"],
        body=_turn(volatility),
        num_scan_inputs=2,
    )
    return builder.node("Transpose", ["volatility.states"], ["volatility.states.batch_first"], perm=[1, 0, 2])


def _turn(volatility: Volatility) -> onnx.GraphProto:
    """Return one turn of the Scan: a time step, in which rows that have ended keep their states."""
    builder = GraphBuilder()
    decay = np.array([volatility.decay, volatility.decay, 0], np.float32)
    kept = builder.node("Mul", ["turn.before", builder.constant("turn.decay", decay)], ["turn.kept"])
    last = builder.constant("turn.last", np.array([2]))
    begun = builder.node("Gather", ["turn.before", last], ["turn.begun"], axis=1)  # (B, 1)
    taken = builder.node("Mul", ["turn.added", begun], ["turn.taken"])
    moved = builder.node("Add", [kept, taken], ["turn.moved"])
    begins = builder.constant("turn.begins", np.array([0, 0, 1], np.float32))
    found = builder.node("Add", [moved, begins], ["turn.found"])  # (B, 3)
    runs = builder.node("Less", ["turn.number", "volatility.ends"], ["turn.runs"])  # (B, 1)
    builder.node("Where", [runs, found, "turn.before"], ["turn.after"])
    builder.node("Identity", [found], ["turn.state"])
    entering = [_value("turn.before"), _value("turn.added"), _value("turn.number", TensorProto.INT64)]
    return builder.graph("volatility_turn", entering, [_value("turn.after"), _value("turn.state")])


def _value(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Return a tensor at the subgraph's edge, of a shape that its surroundings give."""
    return helper.make_tensor_value_info(name, kind, None)
