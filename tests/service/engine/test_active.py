"""Tests of service.engine.active: slots taken and given back, and whose tick is next."""

import numpy as np
import pytest

from service.engine.active import ActiveRows
from service.engine.limits import Limits
from service.engine.request import Goal, Request, Row
from service.engine.sampling import Sampling
from service.engine.scheduler import Tick
from tests.service.engine.fakes import LONG, SHAPE, FakeCell, generation_of, last_of, row_of, score_of


def active_with(*rows: Row, slots: int = 4, chunk_rows: int = 0) -> ActiveRows:
    active = ActiveRows(FakeCell(), SHAPE, Limits(slots, 4, chunk_rows))
    for row in rows:
        active.admit(row)
    return active


def test_rows_are_in_the_pool_of_what_they_need_next() -> None:
    prompt, text, ready = generation_of(LONG, 3), last_of([1]), generation_of([1], 3)
    active = active_with(prompt, text, ready)
    assert active.prefill.pool.rows == [prompt, text]
    assert active.decode.pool.rows == [ready]
    assert active.rows == [prompt, text, ready]
    assert len(active) == 3
    assert ready in active
    assert last_of([1]) not in active
    active.check_integrity()


def test_occupancy_counts_slots_by_client() -> None:
    active = active_with(
        last_of([1], client="a"), generation_of([1], 3, client="a"), last_of([1], client="b"), chunk_rows=3
    )
    now = active.occupancy()
    assert (now.slots, now.prefill_slots) == (4, 3)
    assert (len(now.prefilling), len(now.decoding)) == (2, 1)
    assert now.held == {"a": 2, "b": 1}
    for row in active.rows:
        active.leave(row)
    assert active.occupancy().held == {}


def test_prefill_slots_are_all_slots_unless_they_are_limited() -> None:
    assert active_with(slots=7).occupancy().prefill_slots == 7


def test_taking_the_slot_of_a_row_that_holds_none_is_an_error() -> None:
    row = last_of([1])
    active = active_with(row)
    with pytest.raises(KeyError):
        active.leave(last_of([1]))
    active.check_integrity()
    assert row in active


def test_check_integrity_refuses_counts_that_differ_from_rows() -> None:
    active = active_with(last_of([1], client="a"))
    active._held["b"] = 1
    with pytest.raises(AssertionError, match="rows held"):
        active.check_integrity()


def test_check_integrity_refuses_more_rows_than_slots() -> None:
    active = active_with(last_of([1]), generation_of([1], 3))
    active._slots = 1
    with pytest.raises(AssertionError, match="2 of 1 slots taken"):
        active.check_integrity()


@pytest.mark.parametrize("is_over", [True, False], ids=["over", "suspended"])
def test_check_integrity_refuses_rows_that_should_hold_no_slot(is_over: bool) -> None:
    row = generation_of([1], 3)
    active = active_with(row)
    active.suspend(row)
    active.admit(row)
    active.check_integrity()
    if is_over:
        row.is_over = True
    else:
        row.suspended = active.decode.suspend(row)
        active.decode.join(row, row.suspended)
    with pytest.raises(AssertionError, match="a row that"):
        active.check_integrity()


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(score_of(LONG), id="while it is prefilled"),
        pytest.param(generation_of([1], 30), id="while it generates"),
    ],
)
def test_suspended_row_is_admitted_where_it_left_off(row: Row) -> None:
    active = active_with(row)
    run = active.prefill.run if row.prefill_steps else active.decode.run
    run()
    steps_left = row.prefill_steps - 4 if row.prefill_steps else 0
    active.suspend(row)
    assert row.prefill_steps_left == steps_left
    assert row not in active
    assert row.suspended is not None
    state = row.suspended.state
    active.admit(row)
    assert row.suspended is None
    pool = active.prefill.pool if row.prefill_steps else active.decode.pool
    assert state is not None
    for found, right in zip(pool.state_of(row), state, strict=True):
        np.testing.assert_array_equal(found, right)
    active.check_integrity()


def test_row_that_cannot_begin_to_generate_stays_where_it_was() -> None:
    """Its slot was not counted as given back, and so it was lost."""
    request = Request(np.array(LONG[:4]), Goal.GENERATE, Sampling(seed=-1), 5)
    row = row_of(request)
    active = active_with(row)
    active.prefill.run()
    with pytest.raises(OverflowError):
        active.start_decoding(row)
    assert active.prefill.pool.rows == [row]
    active.check_integrity()
    active.leave(row)
    active.check_integrity()
    assert len(active) == 0


def test_row_that_cannot_be_admitted_holds_no_slot() -> None:
    active, row = active_with(), row_of(Request(np.ones((3, 2), np.int64), Goal.LAST))
    with pytest.raises(ValueError, match="could not broadcast"):
        active.admit(row)
    active.check_integrity()
    assert len(active) == 0


def test_turns_without_rows_do_not_change_which_tick_is_next() -> None:
    text, stream = last_of(LONG), generation_of([1], 50)
    active = active_with(text, stream)
    first = active.next_tick()
    assert first is not None
    active.suspend(text)
    active.suspend(stream)
    assert [active.next_tick() for _ in range(3)] == [None] * 3
    active.admit(text)
    active.admit(stream)
    assert {first, active.next_tick()} == set(Tick)


def test_turns_are_counted_by_ticks() -> None:
    row = last_of(LONG)
    active = active_with(row)
    active.next_tick()
    active.next_tick()
    active.suspend(row)
    active.next_tick()
    active.admit(row)
    assert row.admitted_in == active.turn == 2
