"""Graphs of one time step a call become chunk cells that equal them run step by step."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.contract import spec
from tests.training.convert.step.graphs import FEATURES, HIDDEN, OUTPUTS, lstm, switched, written_gru
from training.convert.converted import Converted
from training.convert.foreign import Array, Foreign, Refused
from training.convert.graph.session import Session
from training.convert.options import Choices
from training.convert.step.climbing import climb_step

LSTM = Choices(state=(("h", "h_out"), ("c", "c_out")))
GRU = Choices(state=(("state/h:0", "hn"),))
SWITCHED = Choices(state=(("state", "stateN"),), width=3, overlap=1, fixed={"sr": 16000})


def by_steps(foreign: Foreign, choices: Choices, frames: Array) -> NDArray[np.float32]:
    """The file's graph on one sequence, a call a time step: what a user's own loop does."""
    session = Session(foreign.graph, None)
    shapes = {"h": (2, 1, HIDDEN), "c": (2, 1, HIDDEN), "state": (2, 1, HIDDEN), "state/h:0": (1, HIDDEN)}
    state = {name: np.zeros(shapes[name], np.float32) for name, _ in choices.state}
    before, rows = np.zeros(choices.overlap, np.float32), []
    for frame in frames:
        data = np.concatenate([before, frame]) if choices.overlap else frame
        feeds = {"x": data[None], **state, **{name: np.array(one) for name, one in choices.fixed.items()}}
        row, *after = session.run(feeds, ["y_out", *(name for _, name in choices.state)])
        state = dict(zip(state, after, strict=True))
        before = data[len(data) - choices.overlap :]
        rows.append(row[0])
    return np.array(rows)


def in_two_chunks(converted: Converted, frames: Array, first: int) -> NDArray[np.float32]:
    """The chunk cell on one sequence, in two chunks, beside a longer row of other numbers."""
    session = Session(converted.graph, Path(converted.weights_folder))
    state: dict[str, Array] = {
        one.input: np.tile(np.broadcast_to(np.asarray(one.start, np.float32), one.size), (2, 1))
        for one in converted.states
    }
    rows = []
    for part in (frames[:first], frames[first:]):
        other = np.concatenate([part[::-1], part[:1]])
        padded = np.stack([np.concatenate([part, part[:1]]), other])
        feeds = {
            "input": padded,
            "lengths": np.array([len(part), len(part) + 1], np.int32),
            "wanted": np.arange(len(part)),
            **state,
        }
        output, *after = session.run(feeds, ["output", *(one.output for one in converted.states)])
        state = dict(zip(state, after, strict=True))
        rows.append(output)
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("foreign", "choices", "features"),
    [(lstm(), LSTM, FEATURES), (written_gru(), GRU, FEATURES), (switched(16000), SWITCHED, 3)],
    ids=["LSTM nodes", "a GRU written by hand", "a sample rate and an overlap"],
)
def test_chunk_cell_equals_the_graph_called_step_by_step(
    foreign: Foreign, choices: Choices, features: int, tmp_path: Path
) -> None:
    converted = climb_step(foreign, choices, tmp_path)
    frames = np.random.default_rng(1).normal(0, 1, (13, features)).astype(np.float32)
    np.testing.assert_allclose(
        in_two_chunks(converted, frames, 5), by_steps(foreign, choices, frames), rtol=0, atol=1e-6
    )


def test_recurrent_nodes_are_run_over_time_without_a_loop(tmp_path: Path) -> None:
    converted = climb_step(lstm(), LSTM, tmp_path)
    operators = [node.op_type for node in converted.graph.graph.node]
    assert operators.count("LSTM") == 2
    assert "Scan" not in operators
    assert [(one.kind, one.width) for one in converted.layers] == [("lstm", HIDDEN)] * 2


def test_cell_written_by_hand_is_run_in_a_loop(tmp_path: Path) -> None:
    converted = climb_step(written_gru(), GRU, tmp_path)
    assert "Scan" in [node.op_type for node in converted.graph.graph.node]
    assert [why for _, why in converted.tried] == ["expected a recurrent node (LSTM, GRU, RNN), found none"]


def test_states_get_short_names_and_rows_of_their_width(tmp_path: Path) -> None:
    gru = climb_step(written_gru(), GRU, tmp_path)
    assert [(one.input, one.output, one.size) for one in gru.states] == [
        ("state.h.0", "state.h.0.next", HIDDEN)
    ]


def test_overlap_is_one_more_state_and_fixed_inputs_are_gone(tmp_path: Path) -> None:
    converted = climb_step(switched(16000), SWITCHED, tmp_path)
    assert [(one.input, one.size) for one in converted.states] == [("state", 2 * HIDDEN), ("context", 1)]
    assert [one.name for one in converted.graph.graph.input] == [
        "input",
        "lengths",
        "state",
        "context",
        "wanted",
    ]
    assert "If" not in [node.op_type for node in converted.graph.graph.node]
    assert converted.input == spec.FeatureInput(kind="features", size=3)


def test_fixed_input_selects_its_branch(tmp_path: Path) -> None:
    """Negated frames give other outputs, so that a folded If that took the wrong branch would be found."""
    frames = np.random.default_rng(2).normal(0, 1, (4, 3)).astype(np.float32)
    foreign = switched(8000)
    converted = climb_step(foreign, SWITCHED, tmp_path)
    expected = by_steps(foreign, SWITCHED, frames)
    np.testing.assert_allclose(in_two_chunks(converted, frames, 2), expected, rtol=0, atol=1e-6)
    other = by_steps(switched(16000), SWITCHED, frames)
    assert np.abs(other - expected).max() > 1e-3


@pytest.mark.parametrize("batch", ["batch", 1], ids=["a symbolic batch", "a batch of 1 in the file"])
def test_data_with_a_time_axis_of_one_are_taken(batch: str | int, tmp_path: Path) -> None:
    converted = climb_step(lstm(rank=3, batch=batch), LSTM, tmp_path)
    assert converted.difference <= 1e-6
    assert converted.outputs == OUTPUTS


def test_token_ids_are_taken(tmp_path: Path) -> None:
    converted = climb_step(written_gru(tokens=11), GRU, tmp_path)
    assert converted.input == spec.TokenInput(kind="tokens", size=11)
    assert converted.difference <= 1e-6
    assert converted.examples[0].inputs.dtype == np.int64


def test_oracle_that_answers_for_the_last_step_alone_is_compared_at_every_prefix(tmp_path: Path) -> None:
    graph = written_gru()

    def last(feeds: dict[str, Array]) -> list[Array]:
        assert list(feeds) == ["x"]
        return [by_steps(graph, GRU, feeds["x"][0])[-1:]]

    foreign = Foreign(graph.graph, graph.source, oracle=last, states=GRU.state, is_step=True)  # type: ignore[arg-type]
    converted = climb_step(foreign, Choices(), tmp_path)
    assert not converted.every_step
    assert converted.difference <= 1e-6


def test_oracle_that_disagrees_is_refused(tmp_path: Path) -> None:
    graph = written_gru()

    def wrong(feeds: dict[str, Array]) -> list[Array]:
        return [by_steps(graph, GRU, feeds["x"][0])[None] * np.float32(1.01)]

    foreign = Foreign(graph.graph, graph.source, oracle=wrong, states=GRU.state, is_step=True)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="off by"):
        climb_step(foreign, Choices(), tmp_path)


def test_first_states_that_are_not_zeros_are_kept(tmp_path: Path) -> None:
    graph = written_gru()
    start = np.linspace(-1, 1, HIDDEN, dtype=np.float32)
    foreign = Foreign(graph.graph, graph.source, states=GRU.state, is_step=True, starts={"state/h:0": start})
    converted = climb_step(foreign, Choices(), tmp_path)
    np.testing.assert_array_equal(np.array(converted.states[0].start, np.float32), start)
    assert converted.difference <= 1e-6


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), layers=st.integers(1, 3), rank=st.sampled_from([2, 3]))
def test_random_stacks_are_proven(
    seed: int, layers: int, rank: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    converted = climb_step(lstm(seed, layers, rank), LSTM, tmp_path_factory.mktemp("weights"))
    assert converted.difference <= 1e-6
    assert [one.size for one in converted.states] == [layers * HIDDEN] * 2
