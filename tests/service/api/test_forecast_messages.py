"""service.api.forecast_messages."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.v1 import forecasting_pb2 as pb
from service.api import forecast_messages
from service.api.forecast_messages import read_all, read_one, values_of, write_forecast
from service.errors import InvalidArgument
from service.tasks.forecasting import Forecast, ForecastingTask, Selection
from tests.service.builders import LIMITS
from tests.service.tasks.forecasters import PLAIN, AtOnce, ConstantCell

numbers = st.floats(allow_nan=False)
TASK = ForecastingTask(PLAIN, AtOnce(ConstantCell([0.0] * 9), 1), LIMITS)


class Untouchable:
    """A field with so many elements, none of which may be looked at."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, _: object) -> object:
        raise AssertionError("an element was touched")

    def __iter__(self) -> Iterator[object]:
        raise AssertionError("an element was touched")


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than two observations are many, and are read two at a time."""
    monkeypatch.setattr(forecast_messages, "MAX_LISTED_OBSERVATIONS", 2)
    monkeypatch.setattr(forecast_messages, "_SLICE_OBSERVATIONS", 2)


def series_of(*lengths: int) -> list[pb.Series]:
    return [
        pb.Series(observations=[pb.Observation(values=[step + 0.5]) for step in range(length)])
        for length in lengths
    ]


# Reading.


@given(st.lists(st.lists(numbers, max_size=4), max_size=4))
def test_values_are_those_of_the_message(values: list[list[float]]) -> None:
    assert values_of(pb.Observation(values=one) for one in values) == values


async def test_too_many_series_are_refused_untouched() -> None:
    with pytest.raises(
        InvalidArgument, match=f"series: expected at most {LIMITS.items} series, found 2000000"
    ):
        await read_all(Untouchable(2_000_000), TASK)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2_000_000])
async def test_wrong_number_of_observations_is_refused_untouched(count: int) -> None:
    series: Any = [*series_of(3), SimpleNamespace(observations=Untouchable(count))]
    with pytest.raises(InvalidArgument, match=rf"series\[1\].observations: .*, found {count}"):
        await read_all(series, TASK)


async def test_too_many_observations_of_a_message_are_refused_untouched() -> None:
    with pytest.raises(InvalidArgument, match=r"observations: .*, found 2000000"):
        await read_one(Untouchable(2_000_000), TASK)  # type: ignore[arg-type]


async def test_few_observations_are_lists() -> None:
    assert await read_all(series_of(2, 3), TASK) == [[[0.5], [1.5]], [[0.5], [1.5], [2.5]]]


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("lengths", [(3,), (2, 5, 4)], ids=str)
async def test_many_observations_are_arrays_of_the_same_values(lengths: tuple[int, ...]) -> None:
    series = series_of(*lengths)
    for found, one in zip(await read_all(series, TASK), series, strict=True):
        assert isinstance(found, np.ndarray)
        assert found.tolist() == values_of(one.observations)
        if len(one.observations) > 2:
            np.testing.assert_array_equal(await read_one(one.observations, TASK), found)


@pytest.mark.usefixtures("slices")
async def test_observation_of_a_wrong_width_is_named_where_there_are_many() -> None:
    [one] = series_of(5)
    one.observations[3].values.append(1.0)
    with pytest.raises(InvalidArgument, match=r"series\[0\].observations\[3\].values: expected 1 values"):
        await read_all([one], TASK)


# Writing.


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("levels", [[0.5], [0.9, 0.1], [0.5, 0.5]], ids=str)
@given(data=st.data())
def test_message_says_what_the_forecast_says(steps: int, levels: list[float], data: st.DataObject) -> None:
    count = steps * (1 + len(levels))
    found = tuple(data.draw(st.lists(numbers, min_size=count, max_size=count)))
    forecast = Forecast(Selection(steps, levels, tuple), found, 12.5)
    write_forecast(message := pb.Forecast(), forecast)
    assert message == pb.Forecast(
        steps=[
            pb.ForecastStep(
                value=median,
                quantiles=[
                    pb.Quantile(level=level, value=value) for level, value in zip(levels, row, strict=True)
                ],
            )
            for median, row in zip(forecast.medians.tolist(), forecast.quantiles.tolist(), strict=True)
        ],
        last_value=12.5,
    )
