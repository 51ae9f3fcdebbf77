"""Tests of service.engine.prefill_buffer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.prefill_buffer import PrefillBuffer

ROWS, CHUNK = 3, 4


def buffer_of(features: int | None = None, rows: int = ROWS) -> PrefillBuffer:
    return PrefillBuffer(features, rows, CHUNK)


@given(
    st.sampled_from([None, 2, 300]),
    st.lists(st.tuples(st.integers(1, 2500), st.integers(1, CHUNK)), min_size=1, max_size=12),
)
def test_rows_find_their_own_steps_whoever_joins_and_leaves(
    features: int | None, drawn: list[tuple[int, int]]
) -> None:
    """Run each row by a few steps at a time, several side by side, in windows that are used again."""
    buffer = buffer_of(features)
    rows: dict[int, tuple[NDArray[Any], int, int, int]] = {}
    queue = list(enumerate(drawn))
    while queue or rows:
        while queue and len(rows) < ROWS:
            number, (length, by) = queue.pop(0)
            inputs = np.arange(length) * 100.0 + number
            if features is not None:
                inputs = np.repeat(inputs[:, None], features, axis=1)
            rows[number] = (inputs, by * 50 if features is None else by, 0, buffer.add(inputs))
        for number, (inputs, by, done, start) in list(rows.items()):
            loaded_from = done - start % (buffer.window + 1)
            steps = min(by, len(inputs) - done, CHUNK)
            position = start
            if done + steps >= loaded_from + buffer.window:
                position = buffer.load(start, inputs[done:])
            taken = buffer.take(np.arange(position, position + steps))
            np.testing.assert_array_equal(taken, inputs[done : done + steps])
            if done + steps == len(inputs):
                buffer.release(position + steps)
                del rows[number]
            else:
                rows[number] = (inputs, by, done + steps, position + steps)


def test_window_is_wider_than_a_chunk_however_wide_a_step_is() -> None:
    assert PrefillBuffer(5000, 1, 64).window == 65
    assert PrefillBuffer(None, 1, 64).window == 1024


def test_window_that_has_been_run_whole_is_free_again() -> None:
    buffer = buffer_of(rows=1)
    for number in range(3):
        start = buffer.add(np.full(buffer.window, number))
        buffer.release(start + buffer.window)


def test_features_keep_their_width() -> None:
    buffer = buffer_of(2)
    inputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    start = buffer.add(inputs)
    np.testing.assert_array_equal(buffer.take(np.arange(start, start + 3)), inputs)


def test_steps_are_written_into_the_given_array() -> None:
    buffer = buffer_of()
    start = buffer.add(np.arange(10, 16))
    into = np.zeros((2, 2), np.int64)
    buffer.take(start + np.array([[0, 1], [4, 5]]), into)
    assert into.tolist() == [[10, 11], [14, 15]]


@pytest.mark.parametrize("features", [None, 3])
def test_positions_past_the_end_are_valid_input(features: int | None) -> None:
    buffer = buffer_of(features)
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
    buffer = buffer_of()
    with pytest.raises(ValueError, match=r"could not broadcast|invalid literal"):
        buffer.add(inputs)
    start = buffer.add(np.array([7, 8]))
    assert buffer.take(np.arange(start, start + 2)).tolist() == [7, 8]
