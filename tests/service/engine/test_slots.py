"""Tests of service.engine.slots."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.cell import Shape
from service.engine.request import Row
from service.engine.slots import Pool
from tests.service.engine.fakes import last_of

WIDTHS = (1, 3)
START = ([0.5], [0.0, -1.0, 2.0])
COLUMNS = {"count": np.int64, "ids": (np.int32, (2,))}
CAPACITY = 4
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["join", "join_fresh", "leave", "return", "tick"]), st.integers(0, 99)),
    max_size=60,
)


class Kept(NamedTuple):
    """State and values of a row, as the model of the pool knows them."""

    state: list[list[float]]
    values: dict[str, Any]


def new_pool(capacity: int = CAPACITY) -> Pool:
    start = tuple(np.array(row, np.float32) for row in START)
    return Pool(capacity, Shape(None, 1, WIDTHS, start), COLUMNS)


def state_of(number: float) -> tuple[NDArray[np.float32], ...]:
    return tuple(np.full(width, number + index / 8, np.float32) for index, width in enumerate(WIDTHS))


def values_of(number: int) -> dict[str, Any]:
    return {"count": number, "ids": [number, number + 1]}


def listed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in values.items()}


def assert_holds(pool: Pool, rows: dict[Row, Kept]) -> None:
    pool.check_integrity()
    assert len(pool) == len(rows)
    assert set(pool.rows) == set(rows)
    for index, row in enumerate(pool.rows):
        assert row in pool
        assert pool.index_of(row) == index
        assert [tensor[index].tolist() for tensor in pool.front] == rows[row].state
        assert [tensor.tolist() for tensor in pool.state_of(row)] == rows[row].state
        assert listed(pool.values_of(row)) == rows[row].values
        assert {name: column[index].tolist() for name, column in pool.columns.items()} == rows[row].values


@given(OPERATIONS)
def test_random_use_keeps_every_row_as_it_is(operations: list[tuple[str, int]]) -> None:
    """Compare the pool with a dictionary of what each row should hold. A tick adds 1 to every state tensor by
    writing `back`; rows leave and return as they were.
    """
    pool = new_pool()
    rows: dict[Row, Kept] = {}
    away: dict[Row, tuple[Any, Kept]] = {}
    for operation, number in operations:
        if operation in ("join", "join_fresh") and len(rows) < CAPACITY:
            row = last_of([1])
            state = None if operation == "join_fresh" else state_of(number)
            pool.join(row, state, values_of(number))
            assert pool.index_of(row) == len(rows)
            shown = list(START) if state is None else [tensor.tolist() for tensor in state]
            rows[row] = Kept(shown, values_of(number))
        elif operation == "leave" and rows:
            row = list(rows)[number % len(rows)]
            away[row] = (pool.state_of(row), pool.values_of(row)), rows.pop(row)
            pool.leave(row)
            assert row not in pool
        elif operation == "return" and away and len(rows) < CAPACITY:
            row = list(away)[number % len(away)]
            (state, values), kept = away.pop(row)
            pool.join(row, state, values)
            rows[row] = kept
        elif operation == "tick":
            for before, after in zip(pool.front, pool.back, strict=True):
                after[: len(pool)] = before[: len(pool)] + 1
            pool.flip()
            rows = {
                one: Kept([[value + 1 for value in tensor] for tensor in kept.state], kept.values)
                for one, kept in rows.items()
            }
        assert_holds(pool, rows)


def test_rows_are_contiguous_at_the_front_on_either_side() -> None:
    pool = new_pool()
    rows = [last_of([1]) for _ in range(3)]
    for number, row in enumerate(rows):
        pool.join(row, state_of(number), values_of(number))
    pool.leave(rows[0])
    for tensor in (*pool.front, *pool.back):
        assert tensor[: len(pool)].flags.c_contiguous
        assert tensor.dtype == np.float32


def test_front_and_back_change_places_in_memory() -> None:
    pool = new_pool()
    front, back = pool.front, pool.back
    pool.flip()
    assert pool.front is back
    assert pool.back is front
    assert not any(np.shares_memory(one, other) for one, other in zip(front, back, strict=True))


def test_new_row_has_the_start_state_where_another_stood() -> None:
    pool = new_pool(1)
    first, second = last_of([1]), last_of([1])
    pool.join(first, state_of(9.0), values_of(9))
    pool.leave(first)
    pool.join(second, None, values_of(1))
    assert [tensor.tolist() for tensor in pool.state_of(second)] == list(START)
    assert listed(pool.values_of(second)) == values_of(1)


def test_what_is_read_of_a_row_is_a_copy() -> None:
    pool, row = new_pool(1), last_of([1])
    pool.join(row, state_of(2.0), values_of(2))
    state, values = pool.state_of(row), pool.values_of(row)
    pool.front[0][0] = 7.0
    pool.columns["ids"][:] = 7
    assert state[0][0] == 2.0
    assert listed(values) == values_of(2)


def test_joining_a_full_pool_is_an_error() -> None:
    pool = new_pool(1)
    pool.join(last_of([1]), None, values_of(0))
    with pytest.raises(AssertionError, match="no free row"):
        pool.join(last_of([1]), None, values_of(0))


@pytest.mark.parametrize(
    ("state", "values"),
    [
        pytest.param((np.zeros(1, np.float32), np.zeros(2, np.float32)), {"count": 1, "ids": 1}, id="state"),
        pytest.param(None, {"count": "one", "ids": 1}, id="a value of another type"),
        pytest.param(None, {"count": 1, "ids": [1, 2, 3]}, id="too many values"),
        pytest.param(None, {"count": 1}, id="a value that is missing"),
    ],
)
def test_row_whose_data_does_not_fit_does_not_join(state: Any, values: dict[str, Any]) -> None:
    pool, row, other = new_pool(2), last_of([1]), last_of([1])
    pool.join(other, state_of(2.0), values_of(2))
    with pytest.raises((ValueError, KeyError)):
        pool.join(row, state, values)
    assert row not in pool
    assert_holds(pool, {other: Kept([tensor.tolist() for tensor in state_of(2.0)], values_of(2))})
    pool.join(row, None, values_of(3))
    assert listed(pool.values_of(row)) == values_of(3)
