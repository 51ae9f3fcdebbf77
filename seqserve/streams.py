"""The parts of a stream that both clients share, without threads, asyncio or network access.

Each class here tracks one kind of stream over one call or several: it converts messages, and decides whether
and how a new call continues after a failure.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Generic, SupportsFloat, TypeAlias, TypeVar

import grpc

from seqserve import arguments, messages
from seqserve.errors import ClientClosed, SeqserveError, ServerFailure
from seqserve.frames import Frame, ModelColumns, Rows, in_order
from seqserve.kept import KeptStreamCore
from seqserve.link import Link
from seqserve.repeating import STATE_NEEDED, Received
from seqserve.results import ClassifyAnswer, FinishReason, Forecast, Generation, TextPiece, Usage
from seqserve.retry import Attempts, is_retryable
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation

Response = TypeVar("Response")
Item = TypeVar("Item")

ClassifyItem: TypeAlias = tuple[str, messages.Texts]
"""One request of a stream: an id of any form, and the text or texts to classify."""


class StreamCore(ABC, Generic[Response, Item]):
    """Base class of streams that are read as a sequence of items.

    Converts messages to items, checks that the stream is complete at its end, and decides whether a new call
    continues after a failure.
    """

    _link: Link

    @abstractmethod
    def _receive(self, response: Response) -> Item:
        """Convert a message to an item, and record that it arrived."""

    def _check_end(self) -> None:
        """Raise if the server ended the stream with status OK too early."""

    def _is_complete_despite(self, _failure: SeqserveError) -> bool:
        """Return whether all items had arrived when the call failed."""
        return False

    def _retry_delay_s(self, _failure: SeqserveError) -> float | None:
        """Return the seconds to wait before a new call, or None if the failure is final."""
        return None

    def _delay_after(self, error: grpc.RpcError) -> float | None:
        """Decide how the stream continues after its call failed.

        Returns:
            Seconds to wait before a new call, or None if all items have arrived.

        Raises:
            SeqserveError: The failure is final.
        """
        failure = self._link.failure(error)
        if self._is_complete_despite(failure):
            return None
        delay_s = self._retry_delay_s(failure)
        if delay_s is None:
            raise failure from error
        return delay_s


class TextStreamCore(StreamCore[generation.GenerateResponse, TextPiece]):
    """The text generated so far, over one call or several."""

    def __init__(self, link: Link, request: generation.GenerateRequest, attempts: Attempts) -> None:
        self._link = link
        self._request = request
        self._attempts = attempts
        self._pieces: list[TextPiece] = []
        self._version = 0
        self._received = Received()
        self._repeats = False

    @property
    def text(self) -> str:
        """The text so far, without the prompt."""
        return "".join(piece.text for piece in self._pieces)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The log-probability of each token so far, if requested."""
        return tuple(logprob for piece in self._pieces for logprob in piece.logprobs)

    @property
    def seed(self) -> int | None:
        """The seed in use, or None before the first piece."""
        return self._pieces[0].seed if self._pieces else None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the generation ended, or None before its end."""
        return self._pieces[-1].finish_reason if self._pieces else None

    @property
    def usage(self) -> Usage | None:
        """Token counts of the whole generation, or None before its end."""
        return self._pieces[-1].usage if self._pieces else None

    def _receive(self, response: generation.GenerateResponse) -> TextPiece:
        self._received.take(response)
        piece = messages.text_piece(response)
        self._pieces.append(piece)
        self._version = self._version or response.version
        if piece.text:
            self._attempts.record_progress()
        return piece

    def _continuation_request(self) -> generation.GenerateRequest:
        """Build the request for the rest of the text.

        The first call fixed the seed and the version; both are repeated, with the text received so far, or
        with the last state where text does not determine the model's tokens.
        """
        rest = generation.GenerateRequest()
        rest.CopyFrom(self._request)
        if self.seed is not None:
            rest.seed = self.seed
            rest.version = self._version or self._request.version
            if self._repeats or self._received.has_state:
                self._received.begin(rest)
            else:
                rest.generated = self.text
        return rest

    def _is_complete_despite(self, failure: SeqserveError) -> bool:
        return self.finish_reason is not None and is_retryable(failure)

    def _retry_delay_s(self, failure: SeqserveError) -> float | None:
        if failure.reason == STATE_NEEDED and not self._repeats:
            self._repeats = True
            return 0.0
        return self._attempts.next_delay_s(failure)

    def _check_end(self) -> None:
        if self.finish_reason is None:
            raise ServerFailure("the server ended the text without a finish reason")

    def _generation(self) -> Generation:
        if self.seed is None or self.finish_reason is None:
            raise ClientClosed("the stream was closed before its text was whole")
        return Generation(
            self.text,
            self.logprobs,
            self.seed,
            self.finish_reason,
            self.usage or Usage(0, 0),
            self._pieces[-1].state,
            self._version,
        )


class ClassifyStreamCore(StreamCore[classification.ClassifyResponse, ClassifyAnswer]):
    """The requests and answers of a classify stream, over one call or several.

    A new call first sends the requests that have no answer yet.

    An exception raised by the caller's iterable ends the requests, and is raised again after the
    requests before it are answered. gRPC would log it and cancel the call.
    """

    def __init__(self, link: Link, model: str, version: int, attempts: Attempts) -> None:
        self._link = link
        self._model = arguments.text("model", model)
        self._version = arguments.count("version", version)
        self._num_items = 0
        self._attempts = attempts
        self._call_number = 0
        self._queued: deque[classification.ClassifyRequest] = deque()
        self._unanswered: list[classification.ClassifyRequest] = []
        self._requests_ended = False
        self._error: Exception | None = None

    def _enqueue(self, item: ClassifyItem) -> None:
        """Queue a request for the call in progress or the next one."""
        field = f"requests[{self._num_items}]"
        request_id, texts = messages.stream_item(field, item)
        self._num_items += 1
        self._queued.append(
            classification.ClassifyRequest(
                model=self._model, version=self._version, texts=texts, id=request_id
            )
        )

    def _end_requests(self, error: Exception | None = None) -> None:
        self._requests_ended = True
        self._error = error

    def _start_call(self) -> tuple[int, list[classification.ClassifyRequest]]:
        """Return the number of a new call, and the requests it sends first."""
        self._call_number += 1
        return self._call_number, list(self._unanswered)

    def _dequeue(self, call_number: int) -> classification.ClassifyRequest | None:
        """Return the next request of a call.

        Returns:
            None if the queue is empty, or if a newer call has replaced this one.
        """
        if call_number != self._call_number or not self._queued:
            return None
        request = self._queued.popleft()
        self._unanswered.append(request)
        return request

    def _receive(self, response: classification.ClassifyResponse) -> ClassifyAnswer:
        answered = next(
            (index for index, request in enumerate(self._unanswered) if request.id == response.id), None
        )
        if answered is not None:
            del self._unanswered[answered]
        self._attempts.record_progress()
        return messages.classify_answer(response)

    def _check_end(self) -> None:
        if self._error is not None:
            raise self._error

    def _is_complete_despite(self, failure: SeqserveError) -> bool:
        return self._requests_ended and not self._queued and not self._unanswered and is_retryable(failure)

    def _retry_delay_s(self, failure: SeqserveError) -> float | None:
        return self._attempts.next_delay_s(failure)


class ForecastStreamCore(
    KeptStreamCore[forecasting.ForecastStreamRequest, forecasting.ForecastStreamResponse, Forecast]
):
    """The messages and forecasts of a forecast stream."""

    def __init__(
        self,
        link: Link,
        attempts: Attempts,
        *,
        model: str,
        version: int,
        horizon: int,
        quantiles: Iterable[SupportsFloat],
    ) -> None:
        KeptStreamCore.__init__(
            self, link, attempts, arguments.text("model", model), arguments.count("version", version)
        )
        self._horizon = arguments.count("horizon", horizon)
        self._quantiles = arguments.levels("quantiles", quantiles)

    def _request(
        self, series_id: str, state: bytes | None, return_state: bool
    ) -> forecasting.ForecastStreamRequest:
        """Build a message without its observations."""
        return forecasting.ForecastStreamRequest(
            id=arguments.text("series_id", series_id),
            state=arguments.state("state", state),
            return_state=arguments.flag("return_state", return_state) or self._attempts.may_retry,
        )

    def _set_rows(self, request: forecasting.ForecastStreamRequest, rows: Rows) -> None:
        request.observations.extend(messages.rows(rows))

    def _set_frame(
        self, request: forecasting.ForecastStreamRequest, frame: Frame, columns: ModelColumns
    ) -> None:
        """Set the observations of a table, and fix the version of the series to the one of the columns."""
        self._set_rows(request, in_order("observations", frame, columns))
        self._versions[request.id] = columns.version

    def _set_first(self, request: forecasting.ForecastStreamRequest) -> None:
        request.horizon = self._horizon
        request.quantiles[:] = self._quantiles

    def _result(self, answer: forecasting.ForecastStreamResponse, returns_state: bool) -> Forecast:
        return messages.forecast(answer.forecast, answer.state if returns_state else b"", answer.version)
