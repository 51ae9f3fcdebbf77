"""Tests of service.engine.request."""

import pytest

from service.engine.request import Account, Row, SuspendedRow
from tests.service.engine.fakes import generation_of, last_of, score_of


@pytest.mark.parametrize(
    ("row", "steps"),
    [
        pytest.param(last_of([1, 2, 3]), 3, id="LAST prefills all of its input"),
        pytest.param(score_of([1, 2, 3]), 2, id="SCORE only predicts its last token"),
        pytest.param(generation_of([1, 2, 3], 5), 2, id="GENERATE leaves its last token to a step tick"),
        pytest.param(generation_of([1], 5), 0, id="a prompt of one token needs no prefill"),
    ],
)
def test_prefill_steps_counts_the_steps_of_chunk_ticks(row: Row, steps: int) -> None:
    assert row.prefill_steps == steps


def test_rows_of_equal_content_are_different_rows() -> None:
    assert last_of([1, 2]) != last_of([1, 2])


def test_suspended_row_has_fewer_prefill_steps_left() -> None:
    row = score_of(range(10))
    row.suspended = SuspendedRow(4, None)
    assert (row.prefill_steps, row.prefill_steps_left) == (9, 5)


def test_account_counts_the_rows_that_wait_by_engine_and_in_all() -> None:
    account = Account.of_engines(2)
    account.submitted[0] += 5
    account.submitted[1] += 2
    account.left[0] += 3
    assert [account.waiting_in(0), account.waiting_in(1), account.waiting] == [2, 2, 4]
