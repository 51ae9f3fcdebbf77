"""What the states do not need runs outside the loop; every way that a graph can be run is proven."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.convert.step.graphs import FEATURES, floats, foreign, lstm, switched, written_gru
from training.convert.foreign import Foreign, Refused
from training.convert.graph.copying import every_node
from training.convert.options import Choices
from training.convert.proofs.proving import prove_chunk
from training.convert.step.candidates import WAYS, candidate
from training.convert.step.climbing import with_weights_in
from training.convert.step.original import StepOriginal
from training.convert.step.parted import find_parts, parted
from training.convert.step.reading import read_step
from training.export.graph_builder import GraphBuilder

LSTM = Choices(state=(("h", "h_out"), ("c", "c_out")))
GRU = Choices(state=(("state/h:0", "hn"),))
SWITCHED = Choices(state=(("state", "stateN"),), width=3, overlap=1, fixed={"sr": 16000})


def running_sum(output: str) -> Foreign:
    """A state that is a sum of all steps, with an output of several kinds."""
    builder = GraphBuilder()
    builder.node("Add", ["x", "h"], ["total"])
    builder.node("Tanh", ["total"], ["hn"])
    builder.node("Identity", ["total"], ["twice"])
    builder.node("Mul", ["x", "x"], ["square"])
    builder.node("Sub", ["x", "h"], ["change"])
    return foreign(
        builder,
        [floats("x", "batch", FEATURES), floats("h", "batch", FEATURES)],
        [floats(output, "batch", FEATURES), floats("hn", "batch", FEATURES)],
    )


SUM = Choices(state=(("h", "hn"),))
CASES = {
    "LSTM nodes": (lstm(), LSTM),
    "LSTM nodes with a time axis": (lstm(rank=3), LSTM),
    "a GRU written by hand": (written_gru(), GRU),
    "token ids": (written_gru(tokens=11), GRU),
    "an overlap": (switched(8000), SWITCHED),
    "the output is of the data alone": (running_sum("square"), SUM),
    "the output needs the state before the step": (running_sum("change"), SUM),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_every_way_equals_the_original(case: str, way: str, tmp_path: Path) -> None:
    graph, choices = CASES[case]
    step = read_step(graph, choices)
    reference = StepOriginal(graph, choices, step)
    step = with_weights_in(step, tmp_path)
    if not case.startswith(("LSTM", "an overlap")) and way.startswith("the recurrent"):
        with pytest.raises(Refused):
            candidate(step, way)
        return
    proof = prove_chunk(reference, candidate(step, way), tmp_path)
    assert np.max([one.difference for one in proof.comparisons]) <= 1e-6


def test_head_and_table_are_outside_the_loop() -> None:
    step = read_step(written_gru(tokens=11), GRU)
    parts = find_parts(step)
    assert [one.name for one in parts.entering] == ["row"]
    assert [one.name for one in parts.leaving] == ["hn"]
    graph = parted(step).graph
    (scan,) = [node for node in graph.node if node.op_type == "Scan"]
    inside = [node.op_type for node in every_node(graph.node) if node not in graph.node]
    assert inside.count("MatMul") == 2
    assert [node.op_type for node in graph.node].count("MatMul") == 1
    assert len(scan.input) == 1 + 2  # the state, what enters, and the place


def test_graph_that_is_all_loop_is_not_parted() -> None:
    step = read_step(running_sum("twice"), SUM)
    with pytest.raises(Refused, match="a part of the graph that its states do not need"):
        parted(step)
