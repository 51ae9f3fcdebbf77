"""What a step graph's inputs and outputs are is found, or refused in a sentence that names what is wrong."""

from dataclasses import replace

import onnx
import pytest

from tests.training.convert.step.graphs import FEATURES, floats, lstm, switched, written_gru
from training.convert.foreign import Foreign, Refused
from training.convert.options import Choices
from training.convert.step.reading import is_step, read_step

LSTM = Choices(state=(("h", "h_out"), ("c", "c_out")))
SWITCHED = Choices(state=(("state", "stateN"),), width=3, overlap=1, fixed={"sr": 16000})


def with_input(foreign: Foreign, name: str, *dims: int | str | None) -> Foreign:
    """The same with other axes for an input."""
    graph = onnx.ModelProto()
    graph.CopyFrom(foreign.graph)
    for one in graph.graph.input:
        if one.name == name:
            one.CopyFrom(floats(name, *dims))
    return replace(foreign, graph=graph)


@pytest.mark.parametrize(
    ("foreign", "choices", "expected"),
    [
        (lstm(), LSTM, True),
        (lstm(rank=3), LSTM, True),
        (lstm(), Choices(), False),
        (with_input(lstm(rank=3), "x", "batch", "time", FEATURES), LSTM, False),
        (written_gru(tokens=5), Choices(state=(("state/h:0", "hn"),)), True),
        (replace(lstm(), states=LSTM.state), Choices(), True),
        (switched(1), SWITCHED, True),
    ],
    ids=[
        "rows",
        "a time axis of 1",
        "no states",
        "a time axis",
        "token ids",
        "states of a reader",
        "a fixed input",
    ],
)
def test_graph_without_an_axis_of_time_is_a_step(foreign: Foreign, choices: Choices, expected: bool) -> None:
    assert is_step(foreign, choices) is expected


@pytest.mark.parametrize(
    ("foreign", "choices", "message"),
    [
        (
            lstm(),
            Choices(state=(("hh", "h_out"),)),
            "--state hh:h_out: expected one of the inputs x, h, c, found hh",
        ),
        (lstm(), Choices(state=(("h", "hn"),)), "expected one of the outputs y_out, h_out, c_out, found hn"),
        (lstm(), Choices(state=(("h", "h_out"),)), "expected one input beside the states, found x, c"),
        (lstm(), Choices(), "expected states .* found none"),
        (switched(1), replace(SWITCHED, fixed={}), "found x, sr"),
        (
            switched(1),
            replace(SWITCHED, fixed={"rate": 1}),
            "--set: expected one of the inputs x, state, sr, found rate",
        ),
        (switched(1), replace(SWITCHED, width=None), r"known number of values .* found \[\?, \?\]"),
        (lstm(), replace(LSTM, width=7), f"--width and --overlap: expected {FEATURES} values together"),
        (
            lstm(),
            replace(LSTM, overlap=3),
            "--overlap: expected at most the values of a time step, 1, found 3",
        ),
        (lstm(), replace(LSTM, output="z"), "--output-name: expected one of the outputs"),
        (with_input(lstm(), "h", None, None, 6), LSTM, r"state h: expected one axis .* found \[\?, \?, 6\]"),
        (
            lstm(),
            Choices(state=(("h", "y_out"), ("c", "c_out"))),
            "state h: expected output y_out of its shape",
        ),
    ],
)
def test_what_is_wrong_is_named(foreign: Foreign, choices: Choices, message: str) -> None:
    with pytest.raises(Refused, match=message):
        read_step(foreign, choices)


def test_one_of_several_outputs_is_served_and_said() -> None:
    foreign = written_gru()
    foreign.graph.graph.output.append(floats("gs", "batch", 12))
    step = read_step(foreign, Choices(state=(("state/h:0", "hn"),)))
    assert step.output == "y_out"
    assert step.assumed == ("the output that is served is y_out, the first of y_out, gs",)
    assert read_step(foreign, Choices(state=(("state/h:0", "hn"),), output="gs")).width == 12


def test_files_graph_is_not_changed() -> None:
    foreign = switched(16000)
    before = foreign.graph.SerializeToString(deterministic=True)
    read_step(foreign, SWITCHED)
    assert foreign.graph.SerializeToString(deterministic=True) == before
