"""service.tasks.forecasting: a series that goes on from its state, with a small network whose every step
counts.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.request import ANYONE, Caller, Row
from service.errors import DeadlineExceeded, InvalidArgument, ModelFailure, Overloaded
from service.tasks.forecasting import Forecast, ForecastingTask, Observations
from service.tasks.states import SeriesState
from tests.service.builders import LIMITS
from tests.service.tasks.forecasters import MIXED, AtOnce, SummingCell

FIRST: Observations = [[11.0, 10.0, -1.0], [13.0, 12.0, 0.0], [14.0, 13.0, 5.0]]
NEXT: Observations = [[15.0, 14.0, 4.0]]
NINES: Observations = [[9.0, 9.0, 9.0]]


class Series:
    """A series and the state that it is in."""

    def __init__(self) -> None:
        self.cell = SummingCell()
        self.engine = AtOnce(self.cell, 3)
        self.task = ForecastingTask(MIXED, self.engine, LIMITS)
        self.selection = self.task.select(0, [])
        self.state: SeriesState | None = None

    async def advance(self, observations: Observations, deadline: float | None = None) -> Forecast:
        forecast, self.state = await self.task.advance(
            self.state, observations, self.selection, Caller(deadline)
        )
        return forecast

    async def whole(self, observations: Observations) -> Forecast:
        """Return the forecast of the whole series in one."""
        [forecast] = await self.task.forecast([observations], 0, [], ANYONE)
        return forecast


def assert_same(found: Forecast, right: Forecast) -> None:
    """Raise AssertionError unless two forecasts are equal bit for bit."""
    np.testing.assert_array_equal(found.quantiles, right.quantiles)
    np.testing.assert_array_equal(found.medians, right.medians)
    assert (found.selection.levels, found.last_value) == (right.selection.levels, right.last_value)


prices = st.floats(0.01, 1e5)
any_series = st.lists(st.tuples(prices, prices, st.floats(-1e3, 1e3)), min_size=2, max_size=20)


@given(observations=any_series, cuts=st.lists(st.integers(0, 99), max_size=6))
async def test_forecast_after_any_advances_is_that_of_the_whole_series(
    observations: Observations, cuts: list[int]
) -> None:
    series = Series()
    ends = sorted({2, len(observations), *(2 + cut % (len(observations) - 1) for cut in cuts)})
    for start, end in zip([0, *ends], ends, strict=False):
        assert_same(await series.advance(observations[start:end]), await series.whole(observations[:end]))


@given(observations=any_series, cut=st.integers(0, 99))
async def test_state_is_that_of_the_whole_series(observations: Observations, cut: int) -> None:
    parts, whole = Series(), Series()
    place = 2 + cut % (len(observations) - 1)
    await parts.advance(observations[:place])
    if place < len(observations):
        await parts.advance(observations[place:])
    await whole.advance(observations)
    assert parts.state is not None
    assert whole.state is not None
    assert parts.state.position == whole.state.position == len(observations)
    assert list(parts.state.levels) == list(whole.state.levels)
    np.testing.assert_array_equal(parts.state.rows, whole.state.rows)


async def test_new_observation_costs_one_step() -> None:
    series = Series()
    await series.advance(FIRST)
    assert series.cell.steps == len(FIRST)
    await series.advance(NEXT)
    assert series.cell.steps == len(FIRST) + 1


async def test_new_series_needs_as_many_observations_as_the_model() -> None:
    series = Series()
    assert series.task.min_observations == 2
    with pytest.raises(InvalidArgument, match="observations: expected at least 2 observations, found 1"):
        await series.advance(FIRST[:1])
    await series.advance(FIRST[:2])
    await series.advance(FIRST[2:])


async def test_state_may_be_gone_on_from_more_than_once() -> None:
    series = Series()
    await series.advance(FIRST)
    state = series.state
    for further in (NEXT, NINES, NEXT):
        series.state = state
        assert_same(await series.advance(further), await series.whole([*FIRST, *further]))


async def wrong_value(series: Series) -> None:
    with pytest.raises(
        InvalidArgument,
        match=r"observations\[1\].values\[1\]: expected a finite number above 0 for close, found nan",
    ):
        await series.advance([[15.0, 14.0, 4.0], [15.0, math.nan, 4.0]])


async def wrong_width(series: Series) -> None:
    with pytest.raises(
        InvalidArgument, match=r"observations\[0\].values: expected 3 values \(high, close, mood\), found 1"
    ):
        await series.advance([[1.0]])


async def no_observation(series: Series) -> None:
    with pytest.raises(InvalidArgument, match="observations: expected at least 1 observations, found 0"):
        await series.advance([])


async def too_many_observations(series: Series) -> None:
    with pytest.raises(InvalidArgument, match="observations: expected at most 50 observations, found 51"):
        await series.advance(list(NEXT) * 51)


async def failed_run(series: Series) -> None:
    series.cell.failures = 1
    with pytest.raises(ModelFailure):
        await series.advance([*NINES, *NINES])


async def passed_deadline(series: Series) -> None:
    with pytest.raises(DeadlineExceeded):
        await series.advance(NINES, deadline=0.0)


async def full_queue(series: Series) -> None:
    def refuse(rows: list[Row]) -> None:
        raise Overloaded("full", 1.0)

    submit, series.engine.submit = series.engine.submit, refuse  # type: ignore[method-assign]
    with pytest.raises(Overloaded):
        await series.advance(NINES)
    series.engine.submit = submit  # type: ignore[method-assign]


async def too_large_a_forecast(series: Series) -> None:
    series.cell.output = 1e30
    with pytest.raises(InvalidArgument) as refusal:
        await series.advance(NINES)
    series.cell.output = math.nan
    assert refusal.value.violations[0].field == "observations"


async def caller_who_leaves(series: Series) -> None:
    series.engine.is_held = True
    advancing = asyncio.ensure_future(series.advance(NINES))
    await asyncio.sleep(0)
    assert series.engine.bench.group.num_waiting == 1
    advancing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await advancing
    series.engine.bench.tick_until_idle()
    series.engine.bench.assert_empty()
    series.engine.is_held = False


TROUBLES = [
    wrong_value,
    wrong_width,
    no_observation,
    too_many_observations,
    failed_run,
    passed_deadline,
    full_queue,
    too_large_a_forecast,
    caller_who_leaves,
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__.replace("_", " "))
async def test_series_is_after_a_failure_as_it_was_before(
    trouble: Callable[[Series], Awaitable[None]],
) -> None:
    series = Series()
    await series.advance(FIRST)
    await trouble(series)
    assert_same(await series.advance(NEXT), await series.whole([*FIRST, *NEXT]))


async def test_series_that_failed_at_its_start_can_start_again() -> None:
    series = Series()
    await failed_run(series)
    assert series.state is None
    assert_same(await series.advance(FIRST), await series.whole(FIRST))
