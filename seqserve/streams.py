"""What a stream of answers means, whichever client reads it: the part of a stream that knows neither threads nor asyncio."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Generic, SupportsFloat, TypeAlias, TypeVar

from seqserve import messages
from seqserve.errors import ServerFailure, from_status
from seqserve.results import ClassifyAnswer, FinishReason, Forecast, Generation, TextPiece, Usage
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation

Response = TypeVar("Response")
Item = TypeVar("Item")

ClassifyItem: TypeAlias = tuple[str, messages.Texts]
"""A request of a stream: an id, any, and the text or texts to classify."""


class StreamMeaning(ABC, Generic[Response, Item]):
    """How the messages of a stream become items, and what must hold at its end."""

    @abstractmethod
    def _take(self, response: Response) -> Item:
        """The item that a message carries."""

    def _check_end(self) -> None:
        """Called when the server has ended the stream well; raises where that was too early."""


class TextSoFar(StreamMeaning[generation.GenerateResponse, TextPiece]):
    """A generation as far as it has arrived."""

    def __init__(self) -> None:
        self._pieces: list[TextPiece] = []

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
        return piece

    def _check_end(self) -> None:
        if self.finish_reason is None:
            raise ServerFailure("the server ended the text without a finish reason")

    def _whole(self) -> Generation:
        if self.seed is None or self.finish_reason is None:
            raise RuntimeError("the stream was closed before its text was whole")
        return Generation(self.text, self.logprobs, self.seed, self.finish_reason, self.usage or Usage(0, 0))


class ClassifyFeed(StreamMeaning[classification.ClassifyResponse, ClassifyAnswer]):
    """Requests on their way out and answers on their way in.

    An exception in the caller's iterable ends the requests, and is raised again when what was asked before it is answered; gRPC itself would log it
    and cancel the call.
    """

    def __init__(self, model: str, version: int) -> None:
        self._model = model
        self._version = version
        self._error: Exception | None = None

    def _requests(self, items: Iterable[ClassifyItem]) -> Iterator[classification.ClassifyRequest]:
        try:
            for item in items:
                yield self._request(item)
        except Exception as error:
            self._error = error

    async def _arequests(self, items: AsyncIterable[ClassifyItem] | Iterable[ClassifyItem]) -> AsyncIterator[classification.ClassifyRequest]:
        try:
            if isinstance(items, AsyncIterable):
                async for item in items:
                    yield self._request(item)
            else:
                for item in items:
                    yield self._request(item)
        except Exception as error:
            self._error = error

    def _request(self, item: ClassifyItem) -> classification.ClassifyRequest:
        request_id, texts = item
        return messages.classify_request(texts, model=self._model, version=self._version, request_id=request_id)

    def _take(self, response: classification.ClassifyResponse) -> ClassifyAnswer:
        return messages.classify_answer(response)

    def _check_end(self) -> None:
        if self._error is not None:
            raise self._error


class SeriesFeed:
    """Observations on their way out and forecasts on their way in, one at a time."""

    def __init__(self, model: str, version: int, horizon: int, quantiles: Iterable[SupportsFloat]) -> None:
        self._model = model
        self._version = version
        self._horizon = horizon
        self._quantiles = list(map(float, quantiles))
        self._open: set[str] = set()

    def _request(self, observations: messages.Observations, series_id: str) -> forecasting.ForecastStreamRequest:
        if series_id in self._open:
            return messages.next_observations(observations, series_id=series_id)
        return messages.first_observations(
            observations, model=self._model, version=self._version, horizon=self._horizon, quantiles=self._quantiles, series_id=series_id
        )

    def _forecast(self, response: forecasting.ForecastStreamResponse) -> Forecast:
        if response.HasField("error"):
            raise from_status(response.error)
        self._open.add(response.id)
        return messages.forecast(response.forecast)
