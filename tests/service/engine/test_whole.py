"""Tests of service.engine.whole on a fake cell, one rule a test; the choice of rows is in
test_whole_batches.py, real networks are in test_whole_networks.py.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from structlog.testing import capture_logs

from service.engine.estimator import Estimator
from service.engine.request import Goal, Request, Row
from service.errors import DeadlineExceeded, DeadlineTooNear, ModelFailure, Overloaded
from tests.service.engine.fakes import (
    LONG,
    VOCABULARY,
    assert_answered,
    by,
    every_of,
    generation_of,
    kinds_of,
    last_of,
    received,
    row_of,
    score_of,
)
from tests.service.engine.whole_fakes import FakeWholeCell, WholeBench, rows_of

tokens = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40)


# Answers.


@pytest.mark.parametrize("is_pooled", [False, True])
@given(drawn=st.lists(st.tuples(st.sampled_from("abc"), tokens), min_size=1, max_size=30))
def test_every_row_gets_its_own_answer_whoever_is_beside_it(
    is_pooled: bool, drawn: list[tuple[str, list[int]]]
) -> None:
    bench = WholeBench(cell=FakeWholeCell(is_pooled))
    rows = [last_of(one, client=client) for client, one in drawn]
    if not is_pooled:
        rows += [every_of(one) for _, one in drawn]
    for row in rows:
        bench.submit(row)
    bench.tick_until_idle()
    assert_answered(*rows)
    bench.assert_empty()


def test_rows_of_equal_length_alone_share_a_batch_without_padding() -> None:
    bench = WholeBench(cell=FakeWholeCell(takes_lengths=False), max_padding=0.0)
    rows = rows_of([5, 6, 5, 6, 5, 7])
    bench.run(*rows)
    assert_answered(*rows)
    assert bench.cell.runs == [[5, 5, 5], [6, 6], [7]]


def test_row_that_arrives_alone_does_not_wait_for_others() -> None:
    bench = WholeBench()
    bench.submit(row := last_of(LONG))
    bench.tick()
    assert_answered(row)


def test_answer_keeps_nothing_of_the_batch_in_memory() -> None:
    bench = WholeBench()
    rows = [last_of(LONG), every_of(LONG)]
    bench.run(*rows)
    assert all(received(row)[0].base is None for row in rows)


def test_batch_is_counted_with_useful_and_padded_steps() -> None:
    bench = WholeBench()
    bench.run(*rows_of([20, 19, 18]))
    metrics = bench.metrics
    assert (metrics.steps["useful"].value, metrics.steps["padded"].value) == (57, 3)
    assert sum(metrics.tick_seconds["whole"].counts) == 1
    assert sum(metrics.tick_seconds["chunk"].counts) == sum(metrics.tick_seconds["step"].counts) == 0
    assert metrics.batch_rows.sum == 3


# Requests that no whole network can serve.


@pytest.mark.parametrize(
    "row",
    [
        score_of([1, 2]),
        generation_of([1, 2], 3),
        row_of(Request(np.array([1, 2]), Goal.LAST, keeps_state=True)),
        row_of(Request(np.array([1, 2]), Goal.LAST, state=(np.zeros(1, np.float32),))),
        row_of(Request(np.zeros((2, 3), np.float32), Goal.LAST)),
    ],
    ids=["scores", "generates", "keeps a state", "has a state", "has features"],
)
def test_row_that_a_whole_network_cannot_run_ends_alone(row: Row) -> None:
    bench = WholeBench()
    others = rows_of([2, 2])
    with capture_logs() as logs:
        bench.run(others[0], row, others[1])
    assert kinds_of(row) == [ModelFailure]
    assert [line["event"] for line in logs] == ["request failed in the engine"]
    assert_answered(*others)
    bench.assert_empty()


def test_every_step_of_a_pooled_network_is_a_fault_of_that_row_alone() -> None:
    bench = WholeBench(cell=FakeWholeCell(is_pooled=True))
    rows = [last_of([1, 2]), every_of([1, 2])]
    with capture_logs():
        bench.run(*rows)
    assert_answered(rows[0])
    assert kinds_of(rows[1]) == [ModelFailure]
    bench.assert_empty()


@pytest.mark.parametrize("is_pooled", [True, False])
def test_output_of_too_few_rows_or_steps_is_the_failure_of_its_batch_alone(is_pooled: bool) -> None:
    """What a graph gives may depend on the values that it gets."""

    class Short(FakeWholeCell):
        def run(self, inputs: NDArray[Any], lengths: NDArray[np.int32] | None) -> NDArray[np.float32]:
            output = super().run(inputs, lengths)
            return output[:-1] if self.is_pooled else output[:, :-1] if len(self.runs) == 1 else output

    bench = WholeBench(cell=Short(is_pooled))
    rows = rows_of([5, 5, 40])
    bench.run(*rows)
    assert kinds_of(rows[0]) == kinds_of(rows[1]) == [ModelFailure]
    if not is_pooled:
        assert_answered(rows[2])
    bench.assert_empty()


def test_client_that_comes_while_a_run_is_under_way_waits_for_no_other_run_of_its_client() -> None:
    bench = WholeBench(slots=1)
    long, short = rows_of([30, 30, 30], "long"), rows_of([2], "short")
    bench.submit(*long)
    bench.tick()
    bench.submit(*short)
    bench.tick_until_idle()
    assert bench.cell.runs == [[30], [2], [30], [30]]
    bench.assert_empty()


# Ends before the answer.


def test_cancelled_row_costs_no_run() -> None:
    bench = WholeBench(slots=1)
    rows = rows_of([5, 6])
    bench.submit(*rows)
    bench.cancel(rows[1])
    bench.tick_until_idle()
    assert (kinds_of(rows[1]), bench.cell.runs) == ([], [[5]])
    assert bench.metrics.cancelled.value == 1
    bench.assert_empty()


def test_row_whose_deadline_passes_costs_no_run() -> None:
    bench = WholeBench(slots=1)
    rows = [last_of([1] * 5), last_of([1] * 6, deadline=3.0)]
    bench.submit(rows[0])
    bench.submit(rows[1])
    bench.tick()
    assert bench.engine.idle_s() == 3.0
    bench.now = 3.0
    bench.tick_until_idle()
    assert (kinds_of(rows[1]), bench.cell.runs) == ([DeadlineExceeded], [[5]])
    bench.assert_empty()


def test_client_with_most_waiting_makes_room() -> None:
    bench = WholeBench(max_waiting=6)
    many, few = by("many", *rows_of([5] * 6)), by("few", last_of([1] * 9))
    bench.submit(*many)
    bench.submit(*few)
    bench.tick_until_idle()
    assert_answered(*many[:5], *few)
    assert kinds_of(many[5]) == [Overloaded]
    with pytest.raises(Overloaded):
        bench.submit(*rows_of([5] * 7))
    bench.assert_empty()


def test_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    bench = WholeBench(steps_per_second=10.0)
    with pytest.raises(DeadlineTooNear):
        bench.submit(last_of([1] * 50, deadline=4.0))
    bench.submit(last_of([1] * 50, deadline=6.0))


# Failures.


def test_run_that_fails_ends_its_rows_and_no_others() -> None:
    bench = WholeBench(cell=FakeWholeCell(failures=[0]))
    rows = rows_of([5, 5, 40])
    bench.run(*rows)
    assert kinds_of(rows[0]) == kinds_of(rows[1]) == [ModelFailure]
    assert_answered(rows[2])
    bench.assert_empty()


def test_fault_of_the_engine_ends_running_waiting_and_arriving_rows() -> None:
    bench = WholeBench(slots=2)
    rows = rows_of([5, 5, 5])
    bench.submit(*rows)
    bench.run_until_fault()
    assert [kinds_of(row) for row in rows] == [[ModelFailure]] * 3
    with pytest.raises(ModelFailure, match="has stopped on an error"):
        bench.submit(last_of([1]))
    assert bench.active == bench.num_waiting == bench.group.num_waiting == 0


# Numbers that callers read.


class Watching(FakeWholeCell):
    """A fake cell that notes what callers read while it runs, and lets time pass."""

    bench: WholeBench
    seconds = 0.0

    def run(self, *arguments: Any) -> Any:
        facts = self.bench.engine.facts
        self.seen = (facts.num_active, facts.num_waiting, facts.waiting_steps)
        self.bench.now += self.seconds
        return super().run(*arguments)


def test_running_rows_are_seen_by_callers() -> None:
    cell = Watching()
    cell.bench = bench = WholeBench(slots=2, cell=cell)
    bench.submit(*by("a", *rows_of([5, 5, 5])))
    bench.tick()
    assert cell.seen == (2, 1, 5)
    assert bench.active == 0


@pytest.mark.parametrize("num_rows", [1, 4])
def test_batches_of_any_number_of_rows_measure_the_same_throughput(num_rows: int) -> None:
    """A step costs as much as its rows and two more: 50 steps of 4 rows take 3 s, those of one row 1.5 s."""
    cell = Watching()
    cell.seconds = 50 * (num_rows + 2) / 100
    cell.bench = bench = WholeBench(slots=4, cell=cell, overhead=2.0)
    for _ in range(3):
        bench.run(*rows_of([50] * num_rows))
    assert bench.engine.estimator.steps_per_second == pytest.approx(200 / 3)


def test_estimator_knows_no_fixed_cost_beside_that_of_steps() -> None:
    bench = WholeBench(steps_per_second=100.0)
    assert vars(bench.engine.estimator) == vars(Estimator(100.0, 0.0))
