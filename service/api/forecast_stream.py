"""One call of ForecastStream: its series by id, and whose turn it is."""

from collections import deque
from dataclasses import dataclass, field
from functools import partial

from seqserve.v1 import forecasting_pb2 as pb
from service.api.errors import status_of
from service.api.exchange import Exchange
from service.api.forecasts import fill, values_of
from service.engine.sequence import Caller
from service.errors import InvalidArgument, ServiceError
from service.models.loading import Served
from service.models.repository import Repository
from service.security.state_tokens import Bound, Keys, bound_to, open_series, seal_series
from service.tasks.following import Following
from service.tasks.forecasting import Forecast, ForecastingTask

# Errors count for one message of one series; what nobody foresaw ends the call.
Outcome = Forecast | BaseException


@dataclass(slots=True, eq=False)
class _Series:
    """One series of the call.

    Attributes:
        name: its id.
        waiting: messages that wait for the one before them, oldest first.
        following: its state; None until a first message has been taken.
        served: that the first message has found.
    """

    name: str
    waiting: deque[pb.ForecastStreamRequest] = field(default_factory=deque)
    following: Following | None = None
    served: Served | None = None

    def open(self, following: Following, served: Served) -> None:
        """Its first message is under way."""
        self.following, self.served = following, served
        served.uses.begin()

    def close(self) -> None:
        """Its first message has failed, or the call is over."""
        assert self.served is not None, "only an open series is closed"
        self.served.uses.end()
        self.following = self.served = None


class ForecastStream:
    """Takes the call's messages: those of one series one after the other, different series side by side.

    Args:
        repository: where models are found.
        exchange: takes the answers.
        caller: whose call it is.
        most_series: kept open.
        keys: seal states and open them.
    """

    def __init__(
        self,
        repository: Repository,
        exchange: Exchange[pb.ForecastStreamRequest, pb.ForecastStreamResponse],
        caller: Caller,
        most_series: int,
        keys: Keys,
    ) -> None:
        self._repository = repository
        self._exchange = exchange
        self._caller = caller
        self._most_series = most_series
        self._keys = keys
        self._series: dict[str, _Series] = {}

    def take(self, request: pb.ForecastStreamRequest) -> None:
        """Start a message, or let it wait for its series' turn."""
        series = self._series.get(request.id)
        if series is None:
            series = self._series[request.id] = _Series(request.id)
        series.waiting.append(request)
        self._go_on(series)

    def cancel(self) -> None:
        """The call is over: nobody waits for what still runs."""
        for series in self._series.values():
            if series.following is not None:
                series.following.cancel()
                series.close()

    def _go_on(self, series: _Series) -> None:
        """Start the series' next message, and answer those that cannot be started."""
        while series.waiting and not (series.following and series.following.is_running):
            try:
                self._push(series, series.waiting.popleft())
            except Exception as error:  # called where a tick's results are handed out, which must go on
                self._answer(series, error)
        if series.following is None and not series.waiting:
            del self._series[series.name]

    def _push(self, series: _Series, request: pb.ForecastStreamRequest) -> None:
        observations, done = values_of(request.observations), partial(self._end, series, request.return_state)
        if series.following is None:
            served, following = self._start(request)
            following.push(observations, self._caller, done)
            series.open(following, served)
        else:
            _check_same(series, request)
            series.following.push(observations, self._caller, done)

    def _start(self, request: pb.ForecastStreamRequest) -> tuple[Served, Following]:
        if len(self._series) > self._most_series:
            raise InvalidArgument(
                "id", f"expected at most {self._most_series} series kept open by a stream, found one more"
            )
        served = self._repository.find(request.model, request.version, "forecasting")
        assert isinstance(served.task, ForecastingTask)
        wanted = served.task.wanted(request.horizon, request.quantiles[:])
        state = open_series(self._keys, _bound(served), request.state) if request.state else None
        return served, Following(served.task, wanted, state)

    def _end(self, series: _Series, wants_state: bool, outcome: Outcome) -> None:
        if series.following is not None and not series.following.is_open:
            series.close()  # the next message is its first
        self._answer(series, outcome, wants_state)
        self._go_on(series)

    def _answer(self, series: _Series, outcome: Outcome, wants_state: bool = False) -> None:
        try:
            self._exchange.answer(self._response(series, outcome, wants_state))
        except Exception as error:
            self._exchange.fail(error)

    def _response(self, series: _Series, outcome: Outcome, wants_state: bool) -> pb.ForecastStreamResponse:
        if isinstance(outcome, ServiceError):
            return pb.ForecastStreamResponse(id=series.name, error=status_of(outcome))
        if isinstance(outcome, BaseException):
            raise outcome
        assert series.served is not None, "a forecast comes from an open series"
        response = pb.ForecastStreamResponse()
        response.id = series.name
        response.version = series.served.spec.version
        fill(response.forecast, outcome)
        if wants_state:
            assert series.following is not None, "a forecast comes from an open series"
            assert series.following.state is not None, "a forecast leaves a state"
            response.state = seal_series(self._keys, _bound(series.served), series.following.state)
        return response


def _bound(served: Served) -> Bound:
    return bound_to(served.spec, served.spec_text, served.variant)


def _check_same(series: _Series, request: pb.ForecastStreamRequest) -> None:
    """A later message leaves out what the first has said, or says it again."""
    assert series.served is not None, "a later message comes to an open series"
    assert series.following is not None, "a later message comes to an open series"
    model, wanted = series.served.spec, series.following.wanted
    if request.state:
        raise InvalidArgument(
            "state", "expected a state in the series' first message alone, found one in a later message"
        )
    if request.model and request.model != model.name:
        raise _other("model", model.name, request.model)
    if request.version and request.version != model.version:
        raise _other("version", model.version, request.version)
    if request.horizon and request.horizon != wanted.steps:
        raise _other("horizon", wanted.steps, request.horizon)
    if request.quantiles and request.quantiles[:] != wanted.levels:
        raise _other("quantiles", wanted.levels, request.quantiles[:])


def _other(field: str, first: object, found: object) -> InvalidArgument:
    return InvalidArgument(
        field, f"expected {first} as in the series' first message, or nothing, found {found}"
    )
