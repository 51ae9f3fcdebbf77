"""Servicer of seqserve.v1.Forecasting."""

from contextlib import closing
from typing import Any

from seqserve.v1 import forecasting_pb2 as pb
from seqserve.v1.forecasting_pb2_grpc import ForecastingServicer
from service.api.answer_limits import check_forecasts
from service.api.bidi import serve_stream
from service.api.caller import caller_of
from service.api.forecast_messages import read_all, write_all
from service.api.forecast_stream import ForecastSessions
from service.api.versions import TaskVersions
from service.models.table import VersionTable
from service.security.state_tokens import Keys
from service.tasks.forecasting import ForecastingTask


class ForecastingApi(ForecastingServicer):
    """Serves Forecast and ForecastStream.

    Args:
        table: versions by name and number.
        max_in_flight: maximum of messages of one stream that are read and not yet answered.
        max_series: maximum of series that one stream keeps open.
        keys: seal and open states.
    """

    def __init__(self, table: VersionTable, max_in_flight: int, max_series: int, keys: Keys) -> None:
        self._versions = TaskVersions(table, "forecasting", ForecastingTask)
        self._max_in_flight = max_in_flight
        self._max_series = max_series
        self._keys = keys

    async def Forecast(self, request: pb.ForecastRequest, context: Any) -> pb.ForecastResponse:
        """Forecast each series of a request."""
        with self._versions.lease(request.model, request.version) as (served, task):
            check_forecasts(len(request.series), request.horizon, request.quantiles, task)
            series = await read_all(request.series, task)
            forecasts = await task.forecast(series, request.horizon, request.quantiles, caller_of(context))
        response = pb.ForecastResponse(version=served.spec.version)
        await write_all(response, forecasts)
        return response

    # The generated class declares a generator; this writes the responses itself.
    async def ForecastStream(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        """Advance the series of each message by its observations, and forecast it."""
        caller = caller_of(context)
        sessions = ForecastSessions(self._versions, caller, self._max_series, self._keys, requests.holding)
        with closing(sessions):
            await serve_stream(requests, context, self._max_in_flight, sessions.answer)
