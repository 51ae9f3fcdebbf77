"""Series of one ForecastStream by id."""

from contextlib import ExitStack
from dataclasses import dataclass

from google.rpc import status_pb2

from seqserve.v1 import forecasting_pb2 as pb
from service.api.answer_limits import check_forecast
from service.api.forecast_messages import read_one, write_forecast
from service.api.held_bytes import Holding
from service.api.sessions import StreamSessions, binding_for, check_no_state, check_repeated
from service.api.versions import TaskVersions
from service.engine.request import Caller
from service.models.loading import Served
from service.security.state_tokens import Keys, open_series, seal_series
from service.tasks.forecasting import ForecastingTask, Selection
from service.tasks.states import SeriesState


@dataclass(slots=True, eq=False)
class _Series:
    """Open series.

    Attributes:
        served: version that answers.
        task: task of that version.
        selection: steps and quantiles of each forecast.
        state: state after the last observation; None: a new series.
    """

    served: Served
    task: ForecastingTask
    selection: Selection
    state: SeriesState | None


class ForecastSessions(StreamSessions[pb.ForecastStreamRequest, pb.ForecastStreamResponse, _Series]):
    """Series of one call.

    Args:
        versions: finds and leases versions.
        caller: caller of the stream.
        max_series: maximum of open series.
        keys: seal and open states.
        holding: bytes of the call, of which each open series takes some.
    """

    def __init__(
        self,
        versions: TaskVersions[ForecastingTask],
        caller: Caller,
        max_series: int,
        keys: Keys,
        holding: Holding,
    ) -> None:
        super().__init__(max_series, "series", holding)
        self._versions = versions
        self._caller = caller
        self._keys = keys

    def _open(self, request: pb.ForecastStreamRequest, lease: ExitStack) -> tuple[_Series, Served]:
        served, task = lease.enter_context(self._versions.lease(request.model, request.version, self._call))
        selection = task.select(request.horizon, request.quantiles)
        state = open_series(self._keys, binding_for(served), request.state) if request.state else None
        return _Series(served, task, selection, state), served

    def _check_same(self, session: _Series, request: pb.ForecastStreamRequest) -> None:
        model, selection = session.served.spec, session.selection
        check_no_state(request.state, "series")
        check_repeated("model", model.name, request.model, "series")
        check_repeated("version", model.version, request.version, "series")
        check_repeated("horizon", selection.steps, request.horizon, "series")
        # As many levels as the model has are read at most, and a text names no more of them.
        levels = request.quantiles[: len(selection.levels) + 1]
        check_repeated("quantiles", selection.levels, levels, "series")

    async def _push(self, session: _Series, request: pb.ForecastStreamRequest) -> pb.ForecastStreamResponse:
        binding, selection = binding_for(session.served), session.selection
        state_bytes = binding.size if request.return_state else 0
        limits = session.task.limits
        check_forecast(selection.steps, len(selection.levels), request.id, state_bytes, limits)
        observations = await read_one(request.observations, session.task)
        forecast, session.state = await session.task.advance(
            session.state, observations, selection, self._caller
        )
        response = pb.ForecastStreamResponse()
        response.id = request.id
        response.version = session.served.spec.version
        write_forecast(response.forecast, forecast)
        if request.return_state:
            response.state = seal_series(self._keys, binding, session.state)
        return response

    def _failure(
        self,
        request: pb.ForecastStreamRequest,
        session: _Series | None,
        status: status_pb2.Status,
    ) -> pb.ForecastStreamResponse:
        return pb.ForecastStreamResponse(id=request.id, error=status)
