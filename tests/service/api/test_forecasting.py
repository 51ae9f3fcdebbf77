"""service.api.forecasting, served in this process."""

from typing import Any

import numpy as np
import pytest

from seqserve.v1 import forecasting_pb2 as pb
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from service.engine.request import ANYONE
from service.tasks.forecasting import ForecastingTask
from tests.service.api.conftest import Running
from tests.service.api.rich import fields_of

MODEL = "prices"
DAY = [10.0, 11.0, 9.0, 10.5, 1000.0]
SERIES = [[[value * (1 + 0.01 * day) for value in DAY] for day in range(length)] for length in (7, 12)]


def request(series: list[list[list[float]]], **fields: Any) -> pb.ForecastRequest:
    messages = [pb.Series(observations=[pb.Observation(values=values) for values in one]) for one in series]
    return pb.ForecastRequest(model=MODEL, series=messages, **fields)


async def test_forecasts_are_those_of_the_task(running: Running) -> None:
    task = running.repository.table.find(MODEL, 0, "forecasting").task
    assert isinstance(task, ForecastingTask)
    right = await task.forecast(SERIES, 3, [0.9, 0.1], ANYONE)
    found = await ForecastingStub(running.channel).Forecast(request(SERIES, horizon=3, quantiles=[0.9, 0.1]))
    for one, forecast in zip(found.forecasts, right, strict=True):
        assert [step.value for step in one.steps] == forecast.medians.tolist()
        assert [[item.level for item in step.quantiles] for step in one.steps] == [[0.9, 0.1]] * 3
        np.testing.assert_array_equal(
            [[item.value for item in step.quantiles] for step in one.steps], forecast.quantiles
        )
        assert one.last_value == forecast.last_value


async def test_defaults_are_all_steps_and_all_quantiles(running: Running) -> None:
    found = await ForecastingStub(running.channel).Forecast(request(SERIES[:1]))
    [forecast] = found.forecasts
    assert [[item.level for item in step.quantiles] for step in forecast.steps] == [[0.1, 0.5, 0.9]] * 5


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(request([]), "series", id="no series"),
        pytest.param(request([SERIES[0][:6]]), "series[0].observations", id="too short"),
        pytest.param(
            request([SERIES[0], [*SERIES[0][:6], [1.0]]]), "series[1].observations[6].values", id="too narrow"
        ),
        pytest.param(
            request([[*SERIES[0], [1.0, 1.0, 1.0, 0.0, 1.0]]]),
            "series[0].observations[7].values[3]",
            id="zero price",
        ),
        pytest.param(request(SERIES, horizon=6), "horizon", id="too far"),
        pytest.param(request(SERIES, quantiles=[0.3]), "quantiles", id="unknown quantile"),
    ],
)
async def test_wrong_field_is_named(running: Running, wrong: pb.ForecastRequest, field: str) -> None:
    assert await fields_of(ForecastingStub(running.channel).Forecast(wrong)) == [field]
