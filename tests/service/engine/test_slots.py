"""service.engine.slots."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.sampling import Sampling, key_of
from service.engine.sequence import ParkedRow, Sequence
from service.engine.slots import RECORD, Pool, generation_record
from tests.service.engine.fakes import generation_of, last_of

WIDTHS = (1, 3)
CAPACITY = 4
OPERATIONS = st.lists(st.tuples(st.sampled_from(["join", "join_fresh", "leave", "park", "return", "tick"]), st.integers(0, 99)), max_size=60)


class Kept(NamedTuple):
    """What the model of the pool knows of a row."""

    state: list[list[float]]
    record: Any


def state_of(number: float) -> tuple[NDArray[np.float32], ...]:
    return tuple(np.full(width, number + index / 8, np.float32) for index, width in enumerate(WIDTHS))


def record_of(number: int) -> NDArray[np.void]:
    record = np.zeros((), RECORD)
    for index, name in enumerate(RECORD.names or ()):
        record[name] = number + index
    return record


def assert_holds(pool: Pool, rows: dict[Sequence, Kept]) -> None:
    pool.check_integrity()
    assert len(pool) == len(rows)
    assert set(pool.sequences) == set(rows)
    for row, sequence in enumerate(pool.sequences):
        assert sequence in pool
        assert [tensor[row].tolist() for tensor in pool.front] == rows[sequence].state
        assert [tensor.tolist() for tensor in pool.state_of(sequence)] == rows[sequence].state
        assert pool.records[row] == rows[sequence].record


@given(OPERATIONS)
def test_random_use_keeps_every_row_with_its_sequence(operations: list[tuple[str, int]]) -> None:
    """A dictionary says what each row should hold; a tick adds 1 to every state tensor by writing `back`."""
    pool = Pool(CAPACITY, WIDTHS)
    rows: dict[Sequence, Kept] = {}
    parked: dict[Sequence, tuple[ParkedRow, Kept]] = {}
    for operation, number in operations:
        if operation in ("join", "join_fresh") and len(rows) < CAPACITY:
            sequence = last_of([1])
            is_fresh = operation == "join_fresh"
            state, record = state_of(0.0 if is_fresh else number), record_of(number)
            if is_fresh:
                state, record = tuple(np.zeros(width, np.float32) for width in WIDTHS), np.zeros((), RECORD)
                row = pool.join(sequence)
            else:
                row = pool.join(sequence, state, record)
            assert row == len(rows)
            rows[sequence] = Kept([tensor.tolist() for tensor in state], record)
        elif operation == "leave" and rows:
            sequence = list(rows)[number % len(rows)]
            pool.leave(sequence)
            del rows[sequence]
            assert sequence not in pool
        elif operation == "park" and rows:
            sequence = list(rows)[number % len(rows)]
            parked[sequence] = pool.park(sequence), rows.pop(sequence)
        elif operation == "return" and parked and len(rows) < CAPACITY:
            sequence = list(parked)[number % len(parked)]
            held, kept = parked.pop(sequence)
            pool.join(sequence, held.state, held.record)
            rows[sequence] = kept
        elif operation == "tick":
            for before, after in zip(pool.front, pool.back, strict=True):
                after[: len(pool)] = before[: len(pool)] + 1
            pool.flip()
            rows = {one: Kept([[value + 1 for value in tensor] for tensor in kept.state], kept.record) for one, kept in rows.items()}
        assert_holds(pool, rows)


def test_rows_are_contiguous_at_the_front_on_either_side() -> None:
    pool = Pool(CAPACITY, WIDTHS)
    sequences = [last_of([1]) for _ in range(3)]
    for number, sequence in enumerate(sequences):
        pool.join(sequence, state_of(number))
    pool.leave(sequences[0])
    for tensor in (*pool.front, *pool.back):
        assert tensor[: len(pool)].flags.c_contiguous
        assert tensor.dtype == np.float32


def test_front_and_back_change_places_in_memory() -> None:
    pool = Pool(CAPACITY, WIDTHS)
    front, back = pool.front, pool.back
    pool.flip()
    assert pool.front is back
    assert pool.back is front
    assert not any(np.shares_memory(one, other) for one, other in zip(front, back, strict=True))


def test_new_row_starts_at_zero_where_another_stood() -> None:
    pool = Pool(1, WIDTHS)
    first, second = last_of([1]), last_of([1])
    pool.join(first, state_of(9.0), record_of(9))
    pool.leave(first)
    pool.join(second)
    assert all((tensor == 0).all() for tensor in pool.state_of(second))
    assert pool.records[0] == np.zeros((), RECORD)


def test_state_of_is_a_copy() -> None:
    pool, sequence = Pool(1, WIDTHS), last_of([1])
    pool.join(sequence, state_of(2.0))
    copied = pool.state_of(sequence)
    pool.front[0][0] = 7.0
    assert copied[0][0] == 2.0


def test_parked_row_is_untouched_by_those_that_stay() -> None:
    pool = Pool(2, WIDTHS)
    sleeper, other = last_of([1]), last_of([1])
    pool.join(sleeper, state_of(3.0), record_of(3))
    pool.join(other, state_of(5.0), record_of(5))
    parked = pool.park(sleeper)
    pool.front[0][:] = -1.0
    pool.records[:] = record_of(50)
    assert parked.state[0][0] == 3.0
    assert parked.record == record_of(3)


def test_joining_a_full_pool_is_an_error() -> None:
    pool = Pool(1, WIDTHS)
    pool.join(last_of([1]))
    with pytest.raises(AssertionError, match="no free row"):
        pool.join(last_of([1]))


def test_generation_record_holds_what_the_sampler_needs() -> None:
    sampling = Sampling(temperature=0.5, top_k=3, top_p=0.25, seed=2**64 - 1)
    record = generation_record(generation_of([4, 5, 6], 9, sampling))
    assert record.item() == (6, 0.5, 3, 0.25, int(key_of(2**64 - 1)), 3, 9, True)
