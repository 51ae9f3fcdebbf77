"""Tests of the estimate against a simulation: the engine with its scheduler, and a cell that takes time.

What is refused would have come too late, and what is hopeless is refused, whatever other clients run.
"""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.request import Row
from service.errors import DeadlineTooNear
from service.runtime import Chunk
from tests.service.engine.fakes import Bench, FakeBound, FakeCell, assert_answered, last_of

STEPS_PER_SECOND = 1000.0
OVERHEAD = 1.0
CHUNK = 4


class SlowBench(Bench):
    """A bench whose clock moves on by the seconds that each chunk tick takes."""

    def __init__(self, slots: int) -> None:
        super().__init__(
            slots,
            CHUNK,
            max_waiting=10_000,
            cell=_SlowCell(self),
            overhead=OVERHEAD,
            steps_per_second=STEPS_PER_SECOND,
        )

    def seconds_of(self, row: Row) -> float:
        """Submit a row and return the seconds until its answer is there."""
        started = self.now
        self.submit(row)
        while not row.is_over:
            self.tick()
        return self.now - started


class _SlowCell(FakeCell):
    def __init__(self, bench: SlowBench) -> None:
        super().__init__()
        self.bench = bench

    def bind(self, chunk: Chunk) -> FakeBound:
        return _SlowBound(self, chunk)


class _SlowBound(FakeBound):
    def run(self) -> None:
        assert isinstance(self.cell, _SlowCell)
        self.cell.bench.now += (OVERHEAD + self.chunk.inputs.size) / STEPS_PER_SECOND
        super().run()


class Crowd(NamedTuple):
    """The rows of one client.

    Attributes:
        rows: how many.
        steps: of each.
    """

    rows: int
    steps: int


crowds = st.builds(Crowd, st.sampled_from([1, 3, 10, 40]), st.sampled_from([1, 5, 20, 100, 400]))
STEPS = st.sampled_from([1, 5, 20, 100])


def bench_with(slots: int, others: list[Crowd], turns: int) -> SlowBench:
    """Return a bench in which other clients' rows have run for some turns."""
    bench = SlowBench(slots)
    for number, crowd in enumerate(others):
        bench.submit(*[last_of([1] * crowd.steps, client=str(number)) for _ in range(crowd.rows)])
    for _ in range(turns):
        bench.tick()
    bench.engine.estimator.usual_rows = 0.0  # nobody else comes later
    return bench


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 4, 8]), st.lists(crowds, max_size=4), st.integers(1, 20), STEPS)
def test_row_of_a_client_that_asks_for_little_is_not_refused_where_it_would_be_in_time(
    slots: int, others: list[Crowd], turns: int, steps: int
) -> None:
    bench, again = bench_with(slots, others, turns), bench_with(slots, others, turns)
    needed_s = bench.seconds_of(last_of([1] * steps, client="few"))
    again.submit(row := last_of([1] * steps, again.now + 3 * needed_s, "few"))
    while not row.is_over:
        again.tick()
    assert_answered(row)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([4, 8]),
    st.lists(crowds, max_size=3),
    st.builds(Crowd, st.sampled_from([20, 40]), st.sampled_from([20, 100])),
    STEPS,
)
def test_row_behind_many_of_its_own_client_is_refused_where_it_is_hopeless(
    slots: int, others: list[Crowd], own: Crowd, steps: int
) -> None:
    bench, again = bench_with(slots, others, 3), bench_with(slots, others, 3)
    for one in (bench, again):
        one.submit(*[last_of([1] * own.steps, client="many") for _ in range(own.rows)])
        one.tick()
    needed_s = bench.seconds_of(last_of([1] * steps, client="many"))
    with pytest.raises(DeadlineTooNear):
        again.submit(last_of([1] * steps, again.now + needed_s / 3, "many"))


def test_short_row_is_in_time_whatever_another_client_has_waiting() -> None:
    """The refusal by deadline leaves the fair turns as they are."""
    bench = bench_with(8, [Crowd(200, 10_000)], turns=20)
    for _ in range(10):
        bench.submit(row := last_of([1] * 40, bench.now + 1.0, "few"))
        while not row.is_over:
            bench.tick()
        assert_answered(row)


def test_row_is_refused_behind_one_row_of_each_of_more_clients_than_places() -> None:
    """Nobody holds two places there, so nobody gives way."""
    bench = bench_with(2, [Crowd(1, 400)] * 9, turns=3)
    with pytest.raises(DeadlineTooNear):
        bench.submit(last_of([1] * 400, bench.now + 1.0, "few"))
