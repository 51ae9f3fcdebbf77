"""Conversion of observations and forecasts from and to messages."""

from collections.abc import Iterable

from seqserve.v1 import forecasting_pb2 as pb
from service.tasks.forecasting import Forecast


def values_of(observations: Iterable[pb.Observation]) -> list[list[float]]:
    """Return the values of each observation."""
    return [observation.values[:] for observation in observations]


def write_forecast(message: pb.Forecast, forecast: Forecast) -> None:
    """Write a forecast into an empty message."""
    numbers = iter(forecast.numbers)
    for _ in range(forecast.selection.steps):
        step = message.steps.add(value=next(numbers))
        for level in forecast.selection.levels:
            step.quantiles.add(level=level, value=next(numbers))
    message.last_value = forecast.last_value
