"""service.api.forecast_messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.v1 import forecasting_pb2 as pb
from service.api.forecast_messages import values_of, write_forecast
from service.tasks.forecasting import Forecast, Selection

numbers = st.floats(allow_nan=False)


@given(st.lists(st.lists(numbers, max_size=4), max_size=4))
def test_values_are_those_of_the_message(values: list[list[float]]) -> None:
    assert values_of(pb.Observation(values=one) for one in values) == values


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
