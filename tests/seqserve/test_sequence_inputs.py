"""Sequences that callers pass: each is sent by its values, or refused by name."""

import math
from collections import namedtuple
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqserve import InvalidArgument, WrongType, WrongValue, sequence_messages
from seqserve.frames import Frame, ModelColumns
from seqserve.sequence_inputs import read_input
from seqserve.v1.sequences_pb2 import SequenceInput, StepValues, TokenIds

ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
STEPS = SequenceInput(steps=StepValues(features=2, values=[1, 2, 3, 4, 5, 6]))
COLUMN = SequenceInput(steps=StepValues(features=1, values=[0.5, 2, 3]))
TOKENS = SequenceInput(tokens=TokenIds(ids=[3, 1, 2]))
COLUMNS = ModelColumns("activity", 3, ("ax", "ay"))
Step = namedtuple("Step", "ay ax")


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("so good", SequenceInput(text="so good")),
        ([3, 1, 2], TOKENS),
        ((3, np.int64(1), np.uint8(2)), TOKENS),
        (iter([3, 1, 2]), TOKENS),
        (np.array([3, 1, 2]), TOKENS),
        (torch.tensor([3, 1, 2]), TOKENS),
        (pd.Series([3, 1, 2]), TOKENS),
        (pl.Series([3, 1, 2]), TOKENS),
        ([0.5, 2, 3], COLUMN),
        (np.array([0.5, 2, 3], np.float32), COLUMN),
        (pd.Series([0.5, 2.0, 3.0]), COLUMN),
        (ROWS, STEPS),
        ([[1, 2], [3, 4], [5, 6]], STEPS),
        (np.array(ROWS), STEPS),
        (np.array(ROWS, dtype=np.int8), STEPS),
        (np.array(ROWS, dtype=np.float16), STEPS),
        (np.array(ROWS, dtype=object), STEPS),
        (np.array([[9.0], *[[0.0]] * 3]).repeat(2, 1)[:0:-1][:0], None),
        (np.asfortranarray(ROWS), STEPS),
        (torch.tensor(ROWS, requires_grad=True), STEPS),
        ([np.array(row) for row in ROWS], STEPS),
        (map(iter, ROWS), STEPS),
    ],
    ids=lambda each: type(each).__name__,
)
def test_sequences_of_any_kind_are_sent_by_their_values(value: Any, sent: SequenceInput | None) -> None:
    if sent is None:
        with pytest.raises(WrongValue, match="expected at least 1 time step"):
            read_input("inputs[0]", value)
    else:
        assert read_input("inputs[0]", value) == sent


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"ay": [2.0, 4, 6], "ax": [1.0, 3, 5]}),
        pd.DataFrame({"time": [0.0, 0.02, 0.04], "AX": [1.0, 3, 5], "ay": [2, 4, 6]}),
        pl.DataFrame({"ay": [2, 4, 6], "ax": [1, 3, 5]}),
        [{"ay": 2, "ax": 1}, {"ax": 3, "ay": 4}, {"ax": 5, "ay": 6}],
        [Step(2, 1), Step(4, 3), Step(6, 5)],
    ],
    ids=["pandas", "pandas with times", "polars", "dicts", "named tuples"],
)
def test_tables_are_sent_in_the_order_of_the_model(table: Any) -> None:
    frame = read_input("inputs[0]", table)
    assert isinstance(frame, Frame)
    message = SequenceInput()
    sequence_messages.set_frame("inputs[0]", message, frame, COLUMNS)
    assert message == STEPS


@pytest.mark.parametrize(
    ("value", "kind", "field"),
    [
        (None, WrongType, "inputs"),
        (5, WrongType, "inputs"),
        ({"a": ROWS}, WrongType, "inputs"),
        ([], WrongValue, "inputs"),
        ([1, 2, 3], WrongType, "inputs[0]"),
        (np.array(ROWS), WrongValue, "inputs"),
        (np.array([1, 2]), WrongValue, "inputs"),
        ([None], WrongType, "inputs[0]"),
        ([b"ab"], WrongType, "inputs[0]"),
        (["broken \ud800"], WrongValue, "inputs[0]"),
        ([[]], WrongValue, "inputs[0]"),
        ([[-1]], WrongValue, "inputs[0][0]"),
        ([[2**63]], WrongValue, "inputs[0][0]"),
        ([np.array([2**63], np.uint64)], WrongValue, "inputs[0]"),
        ([np.array([-3])], WrongValue, "inputs[0]"),
        ([[True, False]], WrongType, "inputs[0]"),
        ([np.array([True])], WrongType, "inputs[0]"),
        ([["1", "2"]], WrongType, "inputs[0]"),
        ([np.ones((1, 2, 3))], WrongValue, "inputs[0]"),
        ([np.array(1.0)], WrongValue, "inputs[0]"),
        ([np.empty((0, 3))], WrongValue, "inputs[0]"),
        ([np.array([[1.0, math.nan]])], WrongValue, "inputs[0]"),
        ([np.array([[1.0, 1e39]])], WrongValue, "inputs[0]"),
        ([[[1.0, math.inf]]], WrongValue, "inputs[0][0]"),
        ([[[1.0, 1e39]]], WrongValue, "inputs[0]"),
        ([[[1.0, 2.0], [3.0]]], WrongValue, "inputs[0][1]"),
        ([[[1.0, None]]], WrongType, "inputs[0][0]"),
        ([np.ma.masked_less(np.array([[-9.0, 1.0]]), 0)], WrongType, "inputs[0][0].values[0]"),
        ([np.ma.masked_less(np.array([1.0, -9.0]), 0)], WrongType, "inputs[0]"),
        ([np.ma.masked_less(np.array([1, -9]), 0)], WrongType, "inputs[0]"),
        ([np.array(["2020"], dtype="datetime64[ns]")], WrongType, "inputs[0]"),
        ([pd.Series([1.0, 2.0], index=["ax", "ay"])], WrongType, "inputs[0]"),
        ([pd.Series([1.0, 2.0], index=[1, 0])], WrongValue, "inputs[0]"),
    ],
    ids=lambda each: repr(each)[:30],
)
def test_what_is_no_sequence_is_refused_by_name(value: Any, kind: type[InvalidArgument], field: str) -> None:
    with pytest.raises(kind) as caught:
        _request(value)
    assert caught.value.violations[0].field.startswith(field)
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)


def test_an_array_of_three_dimensions_is_a_sequence_in_each_row() -> None:
    assert list(_request(np.array([ROWS, ROWS])).inputs) == [STEPS, STEPS]


def test_masked_arrays_without_a_masked_value_are_read() -> None:
    assert list(_request([np.ma.masked_invalid(np.array(ROWS))]).inputs) == [STEPS]


def test_a_single_text_is_one_sequence() -> None:
    assert list(_request("ab").inputs) == [SequenceInput(text="ab")]


@pytest.mark.parametrize(
    "initial",
    [{"image": [1, 2]}, [{"image": np.array([1, 2])}] * 2, {"image": np.array([[1.0, 2.0]])}],
    ids=["one for all", "one for each", "a batch of one"],
)
def test_initial_rows_are_sent_with_each_sequence(initial: Any) -> None:
    request = _request(["ab", "cd"], initial=initial)
    assert [dict(each.initial) for each in request.inputs] == [
        {"image": StepValues(features=2, values=[1, 2])}
    ] * 2


@pytest.mark.parametrize(
    ("initial", "field"),
    [
        (5, "initial"),
        ("ab", "initial"),
        ([{}], "initial"),
        ([{}, 5], "initial[1]"),
        ({"image": 5}, "initial[image]"),
        ({"image": ["a"]}, "initial[image]"),
        ({"image": ROWS}, "initial[image]"),
        ({"image": [math.nan]}, "initial[image][0]"),
        ({"image": []}, "initial[image]"),
        ({5: [1.0]}, "initial name"),
    ],
    ids=repr,
)
def test_initial_rows_that_are_none_are_refused_by_name(initial: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _request(["ab", "cd"], initial=initial)
    assert caught.value.violations[0].field.startswith(field)


@given(
    value=st.recursive(
        st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=2)),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=6,
    )
)
def test_any_value_is_sent_as_given_or_refused(value: object) -> None:
    try:
        sent: Any = read_input("inputs[0]", value)
    except InvalidArgument as error:
        sent = error
    if isinstance(sent, InvalidArgument):
        assert sent.violations[0].field.startswith("inputs[0]")
        return
    assert isinstance(sent, SequenceInput)
    if sent.HasField("text"):
        assert sent.text == value
        return
    assert isinstance(value, list)
    if sent.HasField("tokens"):
        assert list(sent.tokens.ids) == value
        return
    rows = [each if isinstance(each, list) else [each] for each in value]
    flat = [np.float32(number) for row in rows for number in row]
    assert list(sent.steps.values) == flat
    assert sent.steps.features * len(rows) == len(flat)


def _request(inputs: Any, initial: Any = None) -> Any:
    request, _ = sequence_messages.infer_request(
        inputs, initial, model="any", version=0, every=None, raw=False
    )
    return request
