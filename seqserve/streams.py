"""What a stream of answers means, whichever client reads it: the part of a stream that knows neither threads
nor asyncio.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, SupportsFloat, TypeAlias, TypeVar

import grpc

from seqserve import messages
from seqserve.errors import SeqserveError, ServerFailure, Unavailable, from_rpc_error, from_status
from seqserve.results import ClassifyAnswer, FinishReason, Forecast, Generation, TextPiece, Usage
from seqserve.retry import Attempts, is_passing
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation

Response = TypeVar("Response")
Item = TypeVar("Item")

ClassifyItem: TypeAlias = tuple[str, messages.Texts]
"""A request of a stream: an id, any, and the text or texts to classify."""


class StreamMeaning(ABC, Generic[Response, Item]):
    """How the messages of a stream become items, what must hold at its end, and whether it goes on after a
    failure.
    """

    @abstractmethod
    def _take(self, response: Response) -> Item:
        """The item that a message carries."""

    def _check_end(self) -> None:
        """Called when the server has ended the stream well; raises where that was too early."""

    def _is_whole_despite(self, _failure: SeqserveError) -> bool:
        """Whether all items were here when the call failed."""
        return False

    def _pause_s(self, _failure: SeqserveError) -> float | None:
        """How long to wait before a new call goes on; None where the stream ends with this failure."""
        return None


class TextSoFar(StreamMeaning[generation.GenerateResponse, TextPiece]):
    """A generation as far as it has arrived, over one call or several."""

    def __init__(self, request: generation.GenerateRequest, attempts: Attempts) -> None:
        self._request = request
        self._attempts = attempts
        self._pieces: list[TextPiece] = []
        self._version = 0

    @property
    def text(self) -> str:
        """The text so far, without the prompt."""
        return "".join(piece.text for piece in self._pieces)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The log-probability of each token so far, when asked for."""
        return tuple(logprob for piece in self._pieces for logprob in piece.logprobs)

    @property
    def seed(self) -> int | None:
        """The seed in use; None until the first piece is here."""
        return self._pieces[0].seed if self._pieces else None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why generation ended; None until it has."""
        return self._pieces[-1].finish_reason if self._pieces else None

    @property
    def usage(self) -> Usage | None:
        """Token counts of the whole call; None until it has ended."""
        return self._pieces[-1].usage if self._pieces else None

    def _take(self, response: generation.GenerateResponse) -> TextPiece:
        piece = messages.text_piece(response)
        self._pieces.append(piece)
        self._version = self._version or response.version
        if piece.text:
            self._attempts.progressed()
        return piece

    def _rest(self) -> generation.GenerateRequest:
        """What asks for the rest of the text: the request as it was, with what its server has settled and
        sent.
        """
        rest = generation.GenerateRequest()
        rest.CopyFrom(self._request)
        if self.seed is not None:
            rest.seed = self.seed
            rest.generated = self.text
            rest.version = self._version or self._request.version
        return rest

    def _is_whole_despite(self, failure: SeqserveError) -> bool:
        return self.finish_reason is not None and is_passing(failure)

    def _pause_s(self, failure: SeqserveError) -> float | None:
        return self._attempts.pause_s(failure)

    def _check_end(self) -> None:
        if self.finish_reason is None:
            raise ServerFailure("the server ended the text without a finish reason")

    def _whole(self) -> Generation:
        if self.seed is None or self.finish_reason is None:
            raise RuntimeError("the stream was closed before its text was whole")
        return Generation(
            self.text,
            self.logprobs,
            self.seed,
            self.finish_reason,
            self.usage or Usage(0, 0),
            self._pieces[-1].state,
        )


class ClassifyFeed(StreamMeaning[classification.ClassifyResponse, ClassifyAnswer]):
    """Requests on their way out and answers on their way in, over one call or several: a new call begins with
    the requests that have no answer yet.

    An exception in the caller's iterable ends the requests, and is raised again when what was asked before it
    is answered; gRPC itself would log it and cancel the call.
    """

    def __init__(self, model: str, version: int, attempts: Attempts) -> None:
        self._model = model
        self._version = version
        self._attempts = attempts
        self._call_number = 0
        self._pulled: deque[classification.ClassifyRequest] = deque()
        self._unanswered: list[classification.ClassifyRequest] = []
        self._has_ended = False
        self._error: Exception | None = None

    def _pull(self, item: ClassifyItem) -> None:
        """Keep a request until a call asks for it."""
        request_id, texts = item
        self._pulled.append(
            messages.classify_request(texts, model=self._model, version=self._version, request_id=request_id)
        )

    def _end_requests(self, error: Exception | None = None) -> None:
        self._has_ended = True
        self._error = error

    def _unanswered_again(self) -> tuple[int, list[classification.ClassifyRequest]]:
        """The number of a call that begins, and what it sends first."""
        self._call_number += 1
        return self._call_number, list(self._unanswered)

    def _hand_out(self, call_number: int) -> classification.ClassifyRequest | None:
        """The next request of a call; None where there is none, or another call has taken over."""
        if call_number != self._call_number or not self._pulled:
            return None
        request = self._pulled.popleft()
        self._unanswered.append(request)
        return request

    def _take(self, response: classification.ClassifyResponse) -> ClassifyAnswer:
        answered = next(
            (index for index, request in enumerate(self._unanswered) if request.id == response.id), None
        )
        if answered is not None:
            del self._unanswered[answered]
        self._attempts.progressed()
        return messages.classify_answer(response)

    def _check_end(self) -> None:
        if self._error is not None:
            raise self._error

    def _is_whole_despite(self, failure: SeqserveError) -> bool:
        return self._has_ended and not self._pulled and not self._unanswered and is_passing(failure)

    def _pause_s(self, failure: SeqserveError) -> float | None:
        return self._attempts.pause_s(failure)


class _Kept(NamedTuple):
    """What a new call needs to go on with a series."""

    state: bytes
    version: int


class _Failed(NamedTuple):
    """A message that failed, and whether it takes a new call to send it again."""

    failure: SeqserveError
    needs_call: bool


class SeriesFeed:
    """Observations on their way out and forecasts on their way in, one at a time, over one call or several.

    Where calls are tried again, the state of each series after its last answer is kept, so that a new call
    goes on from there.
    """

    def __init__(
        self, model: str, version: int, horizon: int, quantiles: Iterable[SupportsFloat], attempts: Attempts
    ) -> None:
        self._model = model
        self._version = version
        self._horizon = horizon
        self._quantiles = list(map(float, quantiles))
        self._attempts = attempts
        self._open: set[str] = set()
        self._kept: dict[str, _Kept] = {}

    def _request(
        self, observations: messages.Observations, series_id: str, return_state: bool
    ) -> forecasting.ForecastStreamRequest:
        return messages.new_observations(
            observations, series_id=series_id, return_state=return_state or self._attempts.may_retry
        )

    def _address(self, request: forecasting.ForecastStreamRequest, state: bytes | None) -> None:
        """Complete a message for the call that is open now, where it may be the first of its series."""
        if request.id in self._open:
            request.state = state or b""  # the server says what is wrong with one
            return
        kept = self._kept.get(request.id, _Kept(state or b"", self._version))
        request.model, request.version, request.horizon, request.state = (
            self._model,
            kept.version,
            self._horizon,
            kept.state,
        )
        request.quantiles[:] = self._quantiles

    def _outcome(
        self, answer: forecasting.ForecastStreamResponse | grpc.RpcError, return_state: bool
    ) -> Forecast | _Failed:
        """The forecast that a message got, or what went wrong with it."""
        if isinstance(answer, grpc.RpcError):
            failure = from_rpc_error(answer)
            failure.__cause__ = answer
            return _Failed(failure, needs_call=True)
        if answer.HasField("error"):
            failure = from_status(answer.error)
            return _Failed(failure, needs_call=isinstance(failure, Unavailable))
        self._open.add(answer.id)
        if answer.state and self._attempts.may_retry:
            self._kept[answer.id] = _Kept(answer.state, answer.version or self._version)
        self._attempts.progressed()
        return messages.forecast(answer.forecast, answer.state if return_state else b"")

    def _pause_s(self, failed: _Failed) -> float | None:
        """How long to wait before the message is sent again; None where the failure is its last word."""
        if failed.needs_call and not self._open <= self._kept.keys():
            return None  # a series whose state did not come cannot go on
        return self._attempts.pause_s(failed.failure)
