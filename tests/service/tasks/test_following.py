"""service.tasks.following, on an engine with a small network whose every step counts."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cell import Shape
from service.engine.delivery import deliver
from service.engine.engine import Engine
from service.engine.limits import Limits
from service.engine.sequence import ANYONE, Caller
from service.errors import DeadlineExceeded, InvalidArgument, ModelFailure, Overloaded, ServiceError
from service.runtime import Chunk
from service.tasks.following import Following
from service.tasks.forecasting import Forecast, ForecastingTask, Observations
from tests.service.builders import LIMITS, engine_metrics
from tests.service.tasks.test_forecasting import MIXED

OUTPUTS = 9
FIRST: Observations = [[11.0, 10.0, -1.0], [13.0, 12.0, 0.0], [14.0, 13.0, 5.0]]
NEXT: Observations = [[15.0, 14.0, 4.0]]


class SummingCell:
    """A network whose state is a leaky sum of its inputs, so that each step, and their order, changes every
    output.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.output = math.nan
        self.steps = 0

    def bind(self, chunk: Chunk) -> "SummingBound":
        return SummingBound(self, chunk)


class SummingBound:
    """A chunk of the summing cell."""

    def __init__(self, cell: SummingCell, chunk: Chunk) -> None:
        self.cell = cell
        self.chunk = chunk

    def run(self) -> None:
        chunk, cell = self.chunk, self.cell
        if cell.failures:
            cell.failures -= 1
            raise ModelFailure("told to fail")
        rows, steps = chunk.inputs.shape[:2]
        seen = np.zeros((rows, steps, chunk.state[0].shape[1]), np.float32)
        for row in range(rows):
            state = chunk.state[0][row].copy()
            for step in range(int(chunk.lengths[row])):
                state = state * np.float32(0.5) + chunk.inputs[row, step]
                seen[row, step] = state
                cell.steps += 1
            chunk.after[0][row] = state
        for place, position in enumerate(chunk.wanted.tolist()):
            row, step = divmod(position, steps)
            chunk.output[place] = (
                np.tanh(np.resize(seen[row, step], OUTPUTS)) if math.isnan(cell.output) else cell.output
            )


class Bench:
    """A following and what it has called back; the engine ticks until it is idle at each push."""

    def __init__(self, max_waiting: int = 8) -> None:
        self.cell = SummingCell()
        self.engine = Engine(
            "prices", self.cell, Shape(3, OUTPUTS, (3,)), Limits(4, 4, max_waiting), deliver, engine_metrics()
        )
        self.task = ForecastingTask(MIXED, self.engine, LIMITS)
        self.following = Following(self.task, self.task.wanted(0, []))
        self.outcomes: list[Forecast | BaseException] = []

    def run(self) -> None:
        while self.engine.tick():
            pass

    def push(self, observations: Observations, deadline: float | None = None) -> Forecast | BaseException:
        count = len(self.outcomes)
        self.following.push(observations, Caller(deadline), self.outcomes.append)
        self.run()
        assert len(self.outcomes) == count + 1
        return self.outcomes[-1]

    async def whole(self, observations: Observations) -> Forecast:
        """The forecast of the whole series in one."""
        submit = self.engine.submit

        def submit_and_run(sequences: list[Any]) -> None:
            submit(sequences)
            self.run()

        self.engine.submit = submit_and_run  # type: ignore[method-assign]
        try:
            [forecast] = await self.task.forecast([observations], 0, [], ANYONE)
        finally:
            self.engine.submit = submit  # type: ignore[method-assign]
        return forecast


def assert_same(found: Forecast | BaseException, right: Forecast | BaseException) -> None:
    """Bit for bit."""
    assert isinstance(found, Forecast), found
    assert isinstance(right, Forecast), right
    np.testing.assert_array_equal(found.quantiles, right.quantiles)
    np.testing.assert_array_equal(found.medians, right.medians)
    assert (found.wanted.levels, found.last_value) == (right.wanted.levels, right.last_value)


prices = st.floats(0.01, 1e5)
series = st.lists(st.tuples(prices, prices, st.floats(-1e3, 1e3)), min_size=2, max_size=20)


@given(observations=series, cuts=st.lists(st.integers(0, 99), max_size=6))
async def test_forecast_after_any_pushes_is_that_of_the_whole_series(
    observations: Observations, cuts: list[int]
) -> None:
    bench = Bench()
    ends = sorted({2, len(observations), *(2 + cut % (len(observations) - 1) for cut in cuts)})
    for start, end in zip([0, *ends], ends, strict=False):
        assert_same(bench.push(observations[start:end]), await bench.whole(observations[:end]))


def test_new_observation_costs_one_step() -> None:
    bench = Bench()
    bench.push(FIRST)
    assert bench.cell.steps == len(FIRST)
    bench.push(NEXT)
    assert bench.cell.steps == len(FIRST) + 1


def test_first_push_needs_as_many_observations_as_the_model() -> None:
    bench = Bench()
    with pytest.raises(InvalidArgument, match="observations: expected at least 2 observations, found 1"):
        bench.push(FIRST[:1])
    assert not bench.following.is_open
    bench.push(FIRST)
    assert bench.following.is_open


@given(observations=series, cut=st.integers(0, 99))
async def test_series_goes_on_from_the_state_of_another_following(
    observations: Observations, cut: int
) -> None:
    bench, place = Bench(), 2 + cut % (len(observations) - 1)
    bench.push(observations[:place])
    assert bench.following.state is not None
    assert bench.following.state.position == place
    bench.following = Following(bench.task, bench.task.wanted(0, []), bench.following.state)
    assert not bench.following.is_open
    assert_same(bench.push([*observations[place:], *NEXT]), await bench.whole([*observations, *NEXT]))
    assert bench.following.is_open


def test_following_that_goes_on_and_fails_at_its_first_push_is_not_open() -> None:
    bench = Bench()
    bench.push(FIRST)
    bench.following = Following(bench.task, bench.task.wanted(0, []), bench.following.state)
    failed_run(bench)
    assert not bench.following.is_open


def wrong_value(bench: Bench) -> None:
    with pytest.raises(
        InvalidArgument,
        match=r"observations\[1\].values\[1\]: expected a finite number above 0 for close, found nan",
    ):
        bench.push([[15.0, 14.0, 4.0], [15.0, math.nan, 4.0]])


def wrong_width(bench: Bench) -> None:
    with pytest.raises(
        InvalidArgument, match=r"observations\[0\].values: expected 3 values \(high, close, mood\), found 1"
    ):
        bench.push([[1.0]])


def no_observation(bench: Bench) -> None:
    with pytest.raises(InvalidArgument, match="observations: expected at least 1 observations, found 0"):
        bench.push([])


def too_many_observations(bench: Bench) -> None:
    with pytest.raises(InvalidArgument, match="observations: expected at most 50 observations, found 51"):
        bench.push(list(NEXT) * 51)


def failed_run(bench: Bench) -> None:
    bench.cell.failures = 1
    assert isinstance(bench.push([[9.0, 9.0, 9.0]]), ModelFailure)


def passed_deadline(bench: Bench) -> None:
    assert isinstance(bench.push([[9.0, 9.0, 9.0]], deadline=0.0), DeadlineExceeded)


def full_queue(bench: Bench) -> None:
    submit, bench.engine.submit = bench.engine.submit, _refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(Overloaded):
        bench.push([[9.0, 9.0, 9.0]])
    bench.engine.submit = submit  # type: ignore[method-assign]


def _refuse(_: object) -> None:
    raise Overloaded("full", 1.0)


def too_large_a_forecast(bench: Bench) -> None:
    bench.cell.output = 1e30
    outcome = bench.push([[9.0, 9.0, 9.0]])
    bench.cell.output = math.nan
    assert isinstance(outcome, InvalidArgument)
    assert outcome.violations[0].field == "observations"


def forgotten_push(bench: Bench) -> None:
    bench.following.push([[9.0, 9.0, 9.0]], ANYONE, bench.outcomes.append)
    bench.following.cancel()
    bench.run()
    assert len(bench.outcomes) == 1
    assert bench.engine.active == 0


TROUBLES = [
    wrong_value,
    wrong_width,
    no_observation,
    too_many_observations,
    failed_run,
    passed_deadline,
    full_queue,
    too_large_a_forecast,
    forgotten_push,
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__.replace("_", " "))
async def test_series_is_after_a_failure_as_it_was_before(trouble: Callable[[Bench], None]) -> None:
    bench = Bench()
    bench.push(FIRST)
    trouble(bench)
    assert_same(bench.push(NEXT), await bench.whole([*FIRST, *NEXT]))


async def test_series_that_failed_at_its_first_push_can_start_again() -> None:
    bench = Bench()
    bench.cell.failures = 1
    assert isinstance(bench.push(FIRST), ServiceError)
    assert not bench.following.is_open
    assert_same(bench.push(FIRST), await bench.whole(FIRST))


async def test_bug_in_a_forecast_is_the_outcome_and_not_raised_where_results_are_handed_out() -> None:
    bench = Bench()
    bench.task.forecasts = None  # type: ignore[method-assign, assignment]
    assert isinstance(bench.push(FIRST), TypeError)
