"""Tests of service.engine.prefill_buffer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.prefill_buffer import PrefillBuffer

LENGTHS = st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=40)


@given(LENGTHS)
def test_rows_find_their_own_steps_however_often_the_buffer_was_compacted(
    drawn: list[tuple[int, bool]],
) -> None:
    """Give each row inputs of its own; some rows stay, the others are forgotten at the next compaction."""
    buffer, spans = PrefillBuffer(None), dict[int, tuple[int, int]]()
    for number, (length, stays) in enumerate(drawn):
        inputs = np.full(length, number, np.int64)
        if not buffer.has_capacity(length):
            starts, lengths = (
                np.array([span[index] for span in spans.values()], np.int64) for index in (0, 1)
            )
            moved = buffer.compact(starts, lengths, length)
            spans = {
                one: (start, lengths_one)
                for one, start, lengths_one in zip(spans, moved.tolist(), lengths.tolist(), strict=True)
            }
        start = buffer.add(inputs)
        if stays:
            spans[number] = (start, length)
        for one, (begin, count) in spans.items():
            assert set(buffer.take(np.arange(begin, begin + count)).tolist()) == {one}


def test_features_keep_their_width() -> None:
    buffer = PrefillBuffer(2)
    inputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    start = buffer.add(inputs)
    np.testing.assert_array_equal(buffer.take(np.arange(start, start + 3)), inputs)


def test_steps_are_written_into_the_given_array() -> None:
    buffer = PrefillBuffer(None)
    start = buffer.add(np.arange(10, 16))
    into = np.zeros((2, 2), np.int64)
    buffer.take(start + np.array([[0, 1], [4, 5]]), into)
    assert into.tolist() == [[10, 11], [14, 15]]


@pytest.mark.parametrize("features", [None, 3])
def test_positions_past_the_end_are_valid_input(features: int | None) -> None:
    buffer = PrefillBuffer(features)
    buffer.add(np.ones(2, np.int64) if features is None else np.ones((2, features), np.float32))
    taken = buffer.take(np.array([5, 10**9]))
    assert len(taken) == 2
    assert (taken == 0).all()


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(np.ones((3, 2), np.int64), id="too many dimensions"),
        pytest.param(np.array(["a", "b"]), id="no numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_not_added(inputs: NDArray[Any]) -> None:
    buffer = PrefillBuffer(None)
    with pytest.raises(ValueError, match=r"could not broadcast|invalid literal"):
        buffer.add(inputs)
    start = buffer.add(np.array([7, 8]))
    assert buffer.take(np.arange(start, start + 2)).tolist() == [7, 8]
