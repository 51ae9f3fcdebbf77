"""seqserve.v1.Forecasting."""

from typing import Any

from seqserve.v1 import forecasting_pb2 as pb
from seqserve.v1.forecasting_pb2_grpc import ForecastingServicer
from service.api.caller import caller_of
from service.api.exchange import Exchange
from service.api.forecast_stream import ForecastStream
from service.api.forecasts import fill, values_of
from service.models.repository import Repository
from service.security.state_tokens import Keys
from service.tasks.forecasting import ForecastingTask


class ForecastingApi(ForecastingServicer):
    """Forecast and ForecastStream.

    Args:
        repository: where models are found.
        in_flight: messages of one stream read and not yet answered; more wait in the caller's flow control.
        most_series: series that one stream keeps open.
        keys: seal states and open them.
    """

    def __init__(self, repository: Repository, in_flight: int, most_series: int, keys: Keys) -> None:
        self._repository = repository
        self._in_flight = in_flight
        self._most_series = most_series
        self._keys = keys

    async def Forecast(self, request: pb.ForecastRequest, context: Any) -> pb.ForecastResponse:
        """Forecast after each series."""
        served = self._repository.find(request.model, request.version, "forecasting")
        assert isinstance(served.task, ForecastingTask)
        series = [values_of(one.observations) for one in request.series]
        with served.uses:
            forecasts = await served.task.forecast(
                series, request.horizon, request.quantiles[:], caller_of(context)
            )
        response = pb.ForecastResponse()
        for forecast in forecasts:
            fill(response.forecasts.add(), forecast)
        return response

    async def ForecastStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # it writes by itself
        """Forecast after each message's observations, from the state kept of its series."""
        exchange: Exchange[pb.ForecastStreamRequest, pb.ForecastStreamResponse] = Exchange(
            context, self._in_flight
        )
        stream = ForecastStream(self._repository, exchange, caller_of(context), self._most_series, self._keys)
        try:
            await exchange.run(stream.take)
        finally:
            stream.cancel()
