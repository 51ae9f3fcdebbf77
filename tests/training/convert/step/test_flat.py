"""Graphs that cannot be run flat are refused, and are run in a loop instead."""

from pathlib import Path

import pytest

from tests.training.convert.step.graphs import FEATURES, HIDDEN, Weights, floats, foreign, lstm
from training.convert.foreign import Foreign, Refused
from training.convert.options import Choices
from training.convert.step.climbing import climb_step
from training.convert.step.flat import flat
from training.convert.step.reading import read_step
from training.export.graph_builder import GraphBuilder

STATES = Choices(state=(("h", "hn"), ("c", "cn")))


def one_lstm(fed_back: bool = False, served: str = "yh", kept: str = "yh") -> Foreign:
    """One LSTM step with what breaks it: h beside the data, c as output, a state of the data."""
    builder = GraphBuilder()
    weights = Weights(builder, 5)
    width = FEATURES + HIDDEN if fed_back else FEATURES
    both = builder.node("Concat", ["x", "h"], ["both"], axis=1) if fed_back else "x"
    row = builder.node("Unsqueeze", [both, builder.axis(0)], ["row"])
    first = [builder.node("Unsqueeze", [name, builder.axis(0)], [f"{name}0"]) for name in ("h", "c")]
    inputs = [row, weights("w", 1, 4 * HIDDEN, width), weights("r", 1, 4 * HIDDEN, HIDDEN), "", "", *first]
    builder.node("LSTM", inputs, ["y", "yh", "yc"], hidden_size=HIDDEN)
    builder.node("Squeeze", [served, builder.axis(0)], ["y_out"])
    if kept == "x":
        spread = builder.node("MatMul", ["x", weights("spread", FEATURES, HIDDEN)], ["spread.x"])
        builder.node("Add", [builder.node("Squeeze", ["yh", builder.axis(0)], ["h1"]), spread], ["hn"])
    else:
        builder.node("Squeeze", [kept, builder.axis(0)], ["hn"])
    builder.node("Squeeze", ["yc", builder.axis(0)], ["cn"])
    states = [floats(name, "batch", HIDDEN) for name in ("h", "c")]
    nexts = [floats(name, "batch", HIDDEN) for name in ("hn", "cn")]
    outputs = [floats("y_out", "batch", HIDDEN), *nexts]
    return foreign(builder, [floats("x", "batch", FEATURES), *states], outputs)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (one_lstm(fed_back=True), r"the input of a recurrent node \(row\) needs h"),
        (one_lstm(served="yc"), r"the output \(y_out\) needs yc"),
        (one_lstm(kept="x"), r"a state \(hn\) needs x"),
    ],
    ids=["states beside the data", "the cell's state as output", "the data in a state"],
)
def test_graph_is_run_in_a_loop_where_it_cannot_be_flat(graph: Foreign, message: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=message):
        flat(read_step(graph, STATES))
    converted = climb_step(graph, STATES, tmp_path)
    assert "Scan" in [node.op_type for node in converted.graph.graph.node]
    assert converted.difference <= 1e-6


def test_flat_graph_runs_its_head_where_it_is_wanted() -> None:
    step = read_step(lstm(), Choices(state=(("h", "h_out"), ("c", "c_out"))))
    graph = flat(step)
    products = [node for node in graph.graph.node if node.op_type == "MatMul"]
    assert [node.name.startswith("head/") for node in products] == [True]
    assert "Scan" not in [node.op_type for node in graph.graph.node]
