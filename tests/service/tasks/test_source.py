"""service.tasks.source: what an encoder gets of a request's source, and what is refused, by field."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import spec
from service.engine.request import ANYONE
from service.errors import InvalidArgument
from service.tasks.inline_time import InlineTime
from service.tasks.sequence_inputs import SequenceInput
from service.tasks.source import SourceReader
from service.tasks.text_work import TextWork
from service.tasks.workers import Workers
from tests import encoder_decoder
from tests.service.builders import LIMITS

WORK = TextWork(Workers(1), InlineTime())
MAX_STEPS = 6


def reader(name: str, max_steps: int = MAX_STEPS) -> SourceReader:
    section = encoder_decoder.PACKAGES[name]().source
    assert section is not None
    tokenizer = encoder_decoder.words() if name == "worded" else None
    return SourceReader("model", section, tokenizer, max_steps, LIMITS, WORK)


READERS = {name: reader(name) for name in encoder_decoder.PACKAGES}


def said(text: str) -> SequenceInput:
    return SequenceInput(text, None, None, {})


def ids(*tokens: int) -> SequenceInput:
    return SequenceInput(None, np.array(tokens, np.int64), None, {})


def rows(*values: tuple[float, ...]) -> SequenceInput:
    return SequenceInput(None, None, np.array(values, np.float32), {})


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("digits", said("203"), [2, 0, 3]),
        ("digits", ids(9, 1), [9, 1]),
        ("worded", said("two unheard one"), [3, 0, 2, 1]),
        ("coded", ids(4, 0), [4, 0]),
    ],
)
async def test_text_and_token_ids_become_ids_of_64_bits(
    name: str, source: SequenceInput, expected: list[int]
) -> None:
    found = await READERS[name].read(source, ANYONE)
    assert (str(found.dtype), found.tolist()) == ("int64", expected)


async def test_rows_become_the_features_of_their_columns() -> None:
    found = await READERS["moved"].read(rows((3.0, 0.5), (1.0, -1.0)), ANYONE)
    assert (str(found.dtype), found.tolist()) == ("float32", [[1.0, 0.5], [0.0, -1.0]])


INF = float("inf")
REFUSED = [
    ("digits", None, r"source: expected text or tokens, which the model's encoder reads, found none"),
    ("coded", None, r"source: expected tokens, which the model's encoder reads, found none"),
    ("moved", None, r"source: expected steps, which the model's encoder reads, found none"),
    (
        "digits",
        SequenceInput(None, None, None, {}),
        r"source: expected text or tokens, .*, found neither text, tokens nor steps",
    ),
    ("digits", rows((1.0, 2.0)), r"source: expected text or tokens, as the model takes, found steps"),
    ("coded", said("x"), r"source: expected tokens, as the model takes, found text"),
    ("moved", ids(1), r"source: expected steps, as the model takes, found tokens"),
    ("digits", said("12a"), r"source\.text: character 'a' \(U\+0061\) at position 2 is not among the 10"),
    ("digits", said(""), r"source\.text: expected at least 1 characters, found 0"),
    ("digits", said("1234567"), r"source\.text: expected at most 6 time steps, .*, found 7"),
    ("worded", said("one " * 6), r"source\.text: expected at most 6 time steps, .*, found 7"),
    ("worded", said("x" * 201), r"source\.text: expected at most 200 characters, found 201"),
    ("digits", ids(1, 10), r"source\.tokens\.ids\[1\]: expected a token id of 0\.\.9, found 10"),
    ("digits", ids(), r"source\.tokens\.ids: expected at least 1 tokens, found 0"),
    ("coded", ids(0, 1, 2, 3, 4, 0, 1), r"source\.tokens\.ids: expected at most 6 tokens, found 7"),
    ("moved", rows(*[(0.0, 0.0)] * 7), r"source\.steps\.values: expected at most 6 time steps, found 7"),
    ("moved", rows((0.0, 1.0), (0.0, INF)), r"source\.steps\.values\[3\]: expected a finite number for turn"),
    ("moved", rows((0.0,)), r"source\.steps\.values: expected 2 values a time step \(speed, turn\), found 1"),
    (
        "digits",
        replace(said("1"), initial={"image": np.zeros(2, np.float32)}),
        r"source\.initial: expected none, since the init graph's other inputs are given in initial",
    ),
]


@pytest.mark.parametrize(("name", "source", "text"), REFUSED)
async def test_wrong_source_is_refused_by_its_field(name: str, source: Any, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await READERS[name].read(source, ANYONE)


def test_limits_of_the_server_bound_the_source_too() -> None:
    assert reader("coded", 1000).max_steps == LIMITS.text_length
    assert reader("moved", 1000).max_steps == LIMITS.observations
    assert reader("moved", 10).limits.observations == 10


@given(st.text("0123456789", max_size=9))
async def test_every_text_is_either_read_whole_or_refused_for_its_length(text: str) -> None:
    if 1 <= len(text) <= MAX_STEPS:
        assert (await READERS["digits"].read(said(text), ANYONE)).tolist() == list(map(int, text))
    else:
        with pytest.raises(InvalidArgument, match=r"source\.text"):
            await READERS["digits"].read(said(text), ANYONE)


async def test_section_of_another_vocabulary_gives_other_ids() -> None:
    section = spec.SourceSpec(
        input=spec.TokenInput(kind="tokens", size=3),
        text=spec.Characters(kind="characters", vocabulary="cba"),
    )
    found = await SourceReader("model", section, None, 9, LIMITS, WORK).read(said("abc"), ANYONE)
    assert found.tolist() == [2, 1, 0]
