"""Series of one ForecastStream by id; the messages of one series are answered one after the other."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field

from seqserve.v1 import forecasting_pb2 as pb
from service.api.answer_limits import check_forecast
from service.api.bidi import Turns, Write
from service.api.caller import current_request_id
from service.api.errors import status_of
from service.api.forecast_messages import read_one, write_forecast
from service.api.held_bytes import Holding
from service.api.versions import TaskVersions
from service.engine.request import Caller
from service.errors import InvalidArgument, ServiceError, shown
from service.models.loading import Served
from service.security.state_tokens import Keys, StateBinding, binding_of, open_series, seal_series
from service.tasks.forecasting import ForecastingTask, Selection
from service.tasks.limits import check_id
from service.tasks.states import SeriesState

# Bytes that an open series holds beside its recurrent state.
SERIES_BYTES = 4 << 10


@dataclass(slots=True, eq=False)
class _Session:
    """Open series.

    Attributes:
        served: version that answers; leased by `lease`.
        task: task of that version.
        selection: steps and quantiles of each forecast.
        state: state after the last observation; None: a new series.
        lease: lease of the version, closed with the session.
    """

    served: Served
    task: ForecastingTask
    selection: Selection
    state: SeriesState | None
    lease: ExitStack


@dataclass(slots=True, eq=False)
class _Series:
    """Id of the stream with its messages.

    Attributes:
        turns: lock that answers messages in the order they arrived.
        num_messages: number of messages that are being answered or wait for their turn.
        session: None until a first message has been answered.
    """

    turns: Turns = field(default_factory=Turns)
    num_messages: int = 0
    session: _Session | None = None


class ForecastSessions:
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
        self._versions = versions
        self._caller = caller
        self._max_series = max_series
        self._keys = keys
        self._holding = holding
        self._series: dict[str, _Series] = {}
        self._call = asyncio.current_task()

    def close(self) -> None:
        """Release the leases of all sessions.

        Raises:
            Withdrawn: one of them was withdrawn, which has cancelled the call.
        """
        with ExitStack() as leases:
            for series in self._series.values():
                if series.session is not None:
                    leases.push(series.session.lease)

    async def answer(
        self, request: pb.ForecastStreamRequest, write: Write[pb.ForecastStreamResponse]
    ) -> None:
        """Answer a message once the earlier messages of its series have been answered."""
        check_id(request.id)  # an answer would carry it: the call ends
        series = self._series.get(request.id)
        if series is None:
            series = self._series[request.id] = _Series()
        series.num_messages += 1
        if series.turns.is_taken:
            await series.turns.wait()
        series.turns.is_taken = True
        try:
            session = series.session
            try:
                if session is None:
                    response = await self._begin(series, request)
                else:
                    _check_same(session, request)
                    response = await self._push(session, request)
            except ServiceError as error:
                status = status_of(error, current_request_id.get())
                response = pb.ForecastStreamResponse(id=request.id, error=status)
            await write(response)
        finally:
            series.turns.pass_on()
            series.num_messages -= 1
            if series.session is None and not series.num_messages:
                del self._series[request.id]

    async def _begin(self, series: _Series, request: pb.ForecastStreamRequest) -> pb.ForecastStreamResponse:
        """Answer a first message and open the series; on an error the series stays unopened."""
        with ExitStack() as lease:
            session = self._open(request, lease)
            response = await self._push(session, request)
            self._holding.take(SERIES_BYTES + _size_of(session.state))
            session.lease = lease.pop_all()
            series.session = session
        return response

    def _open(self, request: pb.ForecastStreamRequest, lease: ExitStack) -> _Session:
        if len(self._series) > self._max_series:
            raise InvalidArgument(
                "id", f"expected at most {self._max_series} series kept open by a stream, found one more"
            )
        served, task = lease.enter_context(self._versions.lease(request.model, request.version, self._call))
        selection = task.select(request.horizon, request.quantiles)
        state = open_series(self._keys, _binding(served), request.state) if request.state else None
        return _Session(served, task, selection, state, lease)

    async def _push(self, session: _Session, request: pb.ForecastStreamRequest) -> pb.ForecastStreamResponse:
        binding, selection = _binding(session.served), session.selection
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


def _size_of(state: SeriesState | None) -> int:
    return 0 if state is None else sum(row.nbytes for row in state.rows)


def _binding(served: Served) -> StateBinding:
    return binding_of(served.spec, served.spec_text, served.variant)


def _check_same(session: _Session, request: pb.ForecastStreamRequest) -> None:
    """Raise InvalidArgument where a later message sets a field otherwise than the series' first message."""
    model, selection = session.served.spec, session.selection
    if request.state:
        raise InvalidArgument(
            "state", "expected a state in the series' first message alone, found one in a later message"
        )
    if request.model and request.model != model.name:
        raise _differs("model", model.name, request.model)
    if request.version and request.version != model.version:
        raise _differs("version", model.version, request.version)
    if request.horizon and request.horizon != selection.steps:
        raise _differs("horizon", selection.steps, request.horizon)
    # As many levels as the model has are read at most, and a text names no more of them.
    levels = request.quantiles[: len(selection.levels) + 1]
    if levels and levels != selection.levels:
        raise _differs("quantiles", selection.levels, levels)


def _differs(field: str, first: object, found: object) -> InvalidArgument:
    return InvalidArgument(
        field, f"expected {first} as in the series' first message, or nothing, found {shown(found)}"
    )
