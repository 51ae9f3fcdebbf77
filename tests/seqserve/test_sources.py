"""The source of an encoder in requests of the clients, and in what the command says of a model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seqserve import WrongType, WrongValue
from seqserve.cli.describing import command, sentence
from seqserve.repeating import Received
from seqserve.sequence_inputs import read_source
from seqserve.v1.sequences_pb2 import SequenceInput, StepValues, TokenIds
from seqserve.v1.text_generation_pb2 import GenerateRequest, GenerateResponse
from tests.seqserve.test_cli_describing import BEGUN, model

TEXT: dict[str, Any] = {
    "input": {"kind": "tokens", "size": 9},
    "text": {"kind": "characters"},
    "max_steps": 7,
}
ROWS: dict[str, Any] = {"input": {"kind": "features", "size": 2}, "columns": [{"name": "x"}, {"name": "y"}]}
IDS: dict[str, Any] = {"input": {"kind": "tokens", "size": 9}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("3 May", SequenceInput(text="3 May")),
        ([4, 1], SequenceInput(tokens=TokenIds(ids=[4, 1]))),
        (np.array([4, 1]), SequenceInput(tokens=TokenIds(ids=[4, 1]))),
        ([0.5, 1], SequenceInput(steps=StepValues(features=1, values=[0.5, 1]))),
        ([[0.5, 1], [2, 3]], SequenceInput(steps=StepValues(features=2, values=[0.5, 1, 2, 3]))),
        (np.array([[0.5, 1.0]]), SequenceInput(steps=StepValues(features=2, values=[0.5, 1]))),
    ],
)
def test_source_becomes_the_kind_that_its_values_are(given: Any, message: SequenceInput) -> None:
    assert read_source("source", given) == message


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ([], WrongValue, "source: expected at least 1 time step, found 0"),
        (3, WrongType, "source"),
        ([{"x": 1.0}], WrongType, "source: expected a str, token ids or rows of numbers, found a table"),
        ([[0.5, float("nan")]], WrongValue, "source"),
    ],
)
def test_what_is_no_source_is_refused(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read_source("source", given)


def test_call_that_goes_on_from_a_state_sends_no_source() -> None:
    received = Received()
    request = GenerateRequest(model="digits", source=SequenceInput(text="123"))
    received.begin(request)
    assert request.source.text == "123"
    received.take(GenerateResponse(text="a", token_count=1, state=b"sealed"))
    received.begin(request)
    assert (request.state, request.HasField("source")) == (b"sealed", False)


@pytest.mark.parametrize(
    ("source", "reads", "way"),
    [
        (TEXT, "a text of at most 7 steps", "--source TEXT"),
        (ROWS, "rows of 2 numbers a time step (x, y) of at most 4096 steps", "--source-file FILE.json"),
        (IDS, "token ids of at most 4096 steps", "--source-file FILE.json"),
    ],
)
def test_model_with_an_encoder_is_described_with_its_source(
    source: dict[str, Any], reads: str, way: str
) -> None:
    about = replace(model(task="text-generation"), spec={"init": {"file": "init.onnx", "source": source}})
    assert sentence(about) == (
        "Takes text and answers with the text that follows. "
        f"Its encoder reads {reads} first, given as source."
    )
    assert command(about) == f"seqserve generate --model some {way}"


def test_model_that_begins_from_more_than_a_source_is_described_with_both() -> None:
    about = replace(model(task="text-generation"), spec={"init": BEGUN["init"] | {"source": TEXT}})
    assert "given as source. It begins from image (5 numbers)" in sentence(about)
    assert command(about) == "seqserve generate --model some --source TEXT --initial FILE.json"
