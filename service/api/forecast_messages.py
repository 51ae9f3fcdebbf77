"""Conversion of observations and forecasts from and to messages."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from seqserve.v1 import forecasting_pb2 as pb
from service.tasks.forecasting import MAX_LISTED_OBSERVATIONS, Forecast, ForecastingTask, Observations
from service.tasks.limits import check_count
from service.tasks.pacing import Pace

_SLICE_OBSERVATIONS = 200


async def read_all(series: Sequence[pb.Series], task: ForecastingTask) -> list[Observations]:
    """Return the observations of each series of a request.

    All is counted before an observation is touched. Many observations are read in slices, between which
    other calls run, and are returned as arrays.

    Raises:
        InvalidArgument: there are too few or too many series or observations, or, of many, one of a wrong
            width.
    """
    check_count("series", "series", len(series), task.limits.items)
    total = 0
    for index, one in enumerate(series):
        count = len(one.observations)
        if not task.min_observations <= count <= task.limits.observations:
            _check_observations(f"series[{index}].observations", count, task, task.min_observations)
        total += count
    if total <= MAX_LISTED_OBSERVATIONS:
        return [values_of(one.observations) for one in series]
    pace = Pace()
    return [
        await _array_of(one.observations, task, f"series[{index}].observations", pace)
        for index, one in enumerate(series)
    ]


async def read_one(observations: Sequence[pb.Observation], task: ForecastingTask) -> Observations:
    """Return the observations of one series as `read_all` does, of which there may be few.

    Raises:
        InvalidArgument: there are too many, or, of many, one of a wrong width.
    """
    if len(observations) <= MAX_LISTED_OBSERVATIONS:
        return values_of(observations)
    _check_observations("observations", len(observations), task, 0)
    return await _array_of(observations, task, "observations", Pace())


def values_of(observations: Iterable[pb.Observation]) -> list[list[float]]:
    """Return the values of each observation."""
    return [observation.values[:] for observation in observations]


async def write_all(response: pb.ForecastResponse, forecasts: Iterable[Forecast]) -> None:
    """Write forecasts into an empty response; other calls run in between if there are many."""
    pace = Pace()
    for forecast in forecasts:
        write_forecast(response.forecasts.add(), forecast)
        await pace.rest()


def write_forecast(message: pb.Forecast, forecast: Forecast) -> None:
    """Write a forecast into an empty message."""
    numbers = iter(forecast.numbers)
    for _ in range(forecast.selection.steps):
        step = message.steps.add(value=next(numbers))
        for level in forecast.selection.levels:
            step.quantiles.add(level=level, value=next(numbers))
    message.last_value = forecast.last_value


def _check_observations(field: str, count: int, task: ForecastingTask, minimum: int) -> None:
    check_count(field, "observations", count, task.limits.observations, minimum)


async def _array_of(
    observations: Sequence[pb.Observation], task: ForecastingTask, field: str, pace: Pace
) -> NDArray[np.float64]:
    """Return the values of each observation, float64 (T, C)."""
    values = np.empty((len(observations), task.columns))
    for start in range(0, len(observations), _SLICE_OBSERVATIONS):
        rows = values_of(observations[start : start + _SLICE_OBSERVATIONS])
        task.check_widths(rows, field, start)
        values[start : start + len(rows)] = rows
        await pace.rest()
    return values
