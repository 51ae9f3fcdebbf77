"""seqserve.v1.Forecasting."""

from collections.abc import AsyncIterator
from typing import Any

from seqserve.v1 import forecasting_pb2 as pb
from seqserve.v1.forecasting_pb2_grpc import ForecastingServicer
from service.api.deadline import deadline_of
from service.errors import Unsupported
from service.repository import Repository
from service.tasks.forecasting import Forecast, ForecastingTask


class ForecastingApi(ForecastingServicer):
    """Forecast.

    Args:
        repository: where models are found.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def Forecast(self, request: pb.ForecastRequest, context: Any) -> pb.ForecastResponse:
        """Forecast after each series."""
        task = self._repository.find(request.model, request.version, "forecasting").task
        assert isinstance(task, ForecastingTask)
        series = [[list(observation.values) for observation in one.observations] for one in request.series]
        forecasts = await task.forecast(series, request.horizon, list(request.quantiles), deadline_of(context))
        return pb.ForecastResponse(forecasts=map(_forecast, forecasts))

    async def ForecastStream(
        self, request_iterator: AsyncIterator[pb.ForecastStreamRequest], context: Any
    ) -> AsyncIterator[pb.ForecastStreamResponse]:
        """Refused: not served yet."""
        raise Unsupported("ForecastStream is not served yet; Forecast is")
        yield pb.ForecastStreamResponse()  # makes this a stream


def _forecast(forecast: Forecast) -> pb.Forecast:
    steps = [
        pb.ForecastStep(value=median, quantiles=[pb.Quantile(level=level, value=value) for level, value in zip(forecast.levels, values, strict=True)])
        for median, values in zip(forecast.medians.tolist(), forecast.quantiles.tolist(), strict=True)
    ]
    return pb.Forecast(steps=steps, last_value=forecast.last_value)
