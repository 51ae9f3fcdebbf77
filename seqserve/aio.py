"""The client for asyncio, method for method the twin of `seqserve.client`, where the arguments are described."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, SupportsFloat, TypeVar

import grpc
import grpc.aio

from seqserve import messages
from seqserve.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, USE_CLIENT_TIMEOUT, ChannelOption, Timeout, channel_options, timeout_or
from seqserve.errors import Cancelled, ServerFailure, from_rpc_error
from seqserve.results import Classification, ClassifyAnswer, Forecast, Generation, ModelInfo, TextPiece, TextScore
from seqserve.streams import ClassifyFeed, ClassifyItem, Item, Response, SeriesFeed, StreamMeaning, TextSoFar
from seqserve.v1.forecasting_pb2 import ForecastStreamResponse
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.models_pb2 import ListModelsRequest
from seqserve.v1.models_pb2_grpc import ModelsStub
from seqserve.v1.text_classification_pb2 import ClassifyResponse
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2 import GenerateResponse
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub

if TYPE_CHECKING:
    # Names that only type checkers know.
    from seqserve.v1.forecasting_pb2_grpc import ForecastingAsyncStub
    from seqserve.v1.text_classification_pb2_grpc import TextClassificationAsyncStub

Message_co = TypeVar("Message_co", covariant=True)


class AsyncCall(Protocol[Message_co]):
    """A streaming call of grpc.aio, as far as it is used here."""

    def __aiter__(self) -> AsyncIterator[Message_co]:
        """Messages as they arrive; raises grpc.aio.AioRpcError."""

    def cancel(self) -> object:
        """End the call now."""


class AsyncStream(StreamMeaning[Response, Item]):
    """Items as they arrive, once.

    The call is cancelled by `close()`, by leaving an `async with` block, by cancelling the task that reads, and, once the event loop comes to it,
    by leaving an `async for` loop before the end. Iterating raises a SeqserveError when the call fails.
    """

    _call: AsyncCall[Response]
    _is_closed = False

    async def __aiter__(self) -> AsyncIterator[Item]:
        try:
            async for response in self._call:
                yield self._take(response)
        except grpc.RpcError as error:
            if not self._is_closed:
                raise from_rpc_error(error) from error
        except asyncio.CancelledError as error:
            if _is_task_cancelled():
                raise
            if not self._is_closed:
                raise Cancelled("the client was closed before the end of the stream") from error
        else:
            self._check_end()
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call, wherever it is; what has arrived stays. Does nothing after the end."""
        self._is_closed = True
        self._call.cancel()


class AsyncTextStream(TextSoFar, AsyncStream[GenerateResponse, TextPiece]):
    """A text being generated: iterate over its pieces, or `await read()` it whole."""

    def __init__(self, call: AsyncCall[GenerateResponse]) -> None:
        super().__init__()
        self._call = call

    async def read(self) -> Generation:
        """Wait for the rest of the text.

        Returns:
            The whole generation, pieces that were iterated over before included.
        Raises:
            SeqserveError: the call failed.
            RuntimeError: the stream was closed before its end.
        """
        async for _ in self:
            pass
        return self._whole()


class AsyncClassifyStream(ClassifyFeed, AsyncStream[ClassifyResponse, ClassifyAnswer]):
    """Answers in order of completion, matched to their requests by id."""

    def __init__(
        self,
        stub: "TextClassificationAsyncStub",
        items: AsyncIterable[ClassifyItem] | Iterable[ClassifyItem],
        *,
        model: str,
        version: int,
        timeout_s: float | None,
    ) -> None:
        super().__init__(model, version)
        self._call = stub.ClassifyStream(self._arequests(items), timeout=timeout_s)


class AsyncForecastStream(SeriesFeed):
    """Series kept open at the server, where each new observation costs one step of the network.

    May be shared by tasks, which then wait for each other.
    """

    def __init__(
        self,
        stub: "ForecastingAsyncStub",
        *,
        model: str,
        version: int,
        horizon: int,
        quantiles: Iterable[SupportsFloat],
        timeout_s: float | None,
    ) -> None:
        super().__init__(model, version, horizon, quantiles)
        self._turn = asyncio.Lock()
        self._is_closed = False
        self._call = stub.ForecastStream(timeout=timeout_s)

    async def push(self, observations: messages.Observations, *, series_id: str = "") -> Forecast:
        """Observe more of a series; the forecast after it.

        Raises:
            SeqserveError: this push failed; the series is as it was before, and the stream goes on. Or the whole call failed: it is then closed.
            RuntimeError: the stream is closed.
        """
        async with self._turn:
            request = self._request(observations, series_id)
            if self._is_closed:
                raise RuntimeError("the stream is closed")
            try:
                with suppress(asyncio.InvalidStateError):  # the call has failed meanwhile; reading says how
                    await self._call.write(request)
                response = await self._call.read()
            except grpc.RpcError as error:
                self.close()
                raise from_rpc_error(error) from error
            except BaseException as error:
                is_caller = _is_task_cancelled() or not isinstance(error, asyncio.CancelledError)
                self.close()  # the answer that nobody waited for must not be taken for the next one's
                if is_caller:
                    raise
                raise Cancelled("the client was closed before the answer") from error
            if not isinstance(response, ForecastStreamResponse):
                self.close()
                raise ServerFailure("the server ended the stream before its answer")
            return self._forecast(response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is None and not self._is_closed:
            with suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
                await self._call.read()  # a last word, so that the server counts no cancellation
        self.close()

    def close(self) -> None:
        """Cancel the call, wherever it is. Does nothing after the end."""
        self._is_closed = True
        self._call.cancel()


class AsyncClient:
    """A connection to a seqserve server, for use in one event loop.

        async with AsyncClient("127.0.0.1:50051") as client:
            async for piece in client.generate("ROMEO:", max_tokens=200):
                print(piece.text, end="", flush=True)

    Errors and arguments are those of `seqserve.Client`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        options: Sequence[ChannelOption] = (),
    ) -> None:
        arguments = channel_options(options)
        self._timeout_s = timeout_s
        self._channel = (
            grpc.aio.insecure_channel(address, arguments) if credentials is None else grpc.aio.secure_channel(address, credentials, arguments)
        )
        self._text_generation = TextGenerationStub(self._channel)
        self._text_classification = TextClassificationStub(self._channel)
        self._forecasting = ForecastingStub(self._channel)
        self._models = ModelsStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    def generate(
        self,
        prompt: str = "",
        *,
        model: str = "charlm",
        version: int = 0,
        max_tokens: int = 0,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float | None = None,
        seed: int | None = None,
        stop: messages.Texts = (),
        logprobs: bool = False,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> AsyncTextStream:
        """Generate text after a prompt. Not awaited: the stream comes at once, its text as it is read."""
        request = messages.generate_request(
            prompt,
            model=model,
            version=version,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=stop,
            logprobs=logprobs,
        )
        return AsyncTextStream(self._text_generation.Generate(request, timeout=timeout_or(timeout_s, self._timeout_s)))

    async def score(
        self, texts: messages.Texts, *, model: str = "charlm", version: int = 0, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> list[TextScore]:
        """Score texts of at least two tokens each with a language model; one score a text, in their order."""
        request = messages.score_request(texts, model=model, version=version)
        return messages.text_scores(await _answer(self._text_generation.Score(request, timeout=timeout_or(timeout_s, self._timeout_s))))

    async def classify(
        self, texts: messages.Texts, *, model: str = "sentiment", version: int = 0, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> list[Classification]:
        """Classify a few texts; one classification a text, in their order. `classify_stream` is for many."""
        request = messages.classify_request(texts, model=model, version=version)
        return messages.classifications(await _answer(self._text_classification.Classify(request, timeout=timeout_or(timeout_s, self._timeout_s))))

    def classify_stream(
        self,
        requests: AsyncIterable[ClassifyItem] | Iterable[ClassifyItem],
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncClassifyStream:
        """Classify any number of texts over one call. Not awaited: the stream comes at once, answers in order of completion."""
        return AsyncClassifyStream(self._text_classification, requests, model=model, version=version, timeout_s=timeout_s)

    async def forecast(
        self,
        series: messages.Series,
        *,
        model: str = "stock",
        version: int = 0,
        horizon: int = 0,
        quantiles: Iterable[SupportsFloat] = (),
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> list[Forecast]:
        """Forecast after the last observation of each series; one forecast a series, in their order."""
        request = messages.forecast_request(series, model=model, version=version, horizon=horizon, quantiles=quantiles)
        return messages.forecasts(await _answer(self._forecasting.Forecast(request, timeout=timeout_or(timeout_s, self._timeout_s))))

    def forecast_stream(
        self,
        *,
        model: str = "stock",
        version: int = 0,
        horizon: int = 0,
        quantiles: Iterable[SupportsFloat] = (),
        timeout_s: float | None = None,
    ) -> AsyncForecastStream:
        """Keep series open and forecast after each new observation. Not awaited: the stream comes at once."""
        return AsyncForecastStream(self._forecasting, model=model, version=version, horizon=horizon, quantiles=quantiles, timeout_s=timeout_s)

    async def models(self, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> list[ModelInfo]:
        """Every model version that the server knows of, failed ones too, by name and then newest first."""
        return messages.model_infos(await _answer(self._models.List(ListModelsRequest(), timeout=timeout_or(timeout_s, self._timeout_s))))

    async def model(self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> ModelInfo:
        """One model version; version 0: the newest that serves, or the newest that failed where none does."""
        request = messages.model_request(name, version)
        return messages.model_info(await _answer(self._models.Get(request, timeout=timeout_or(timeout_s, self._timeout_s))))


async def _answer(call: Awaitable[Response]) -> Response:
    """The answer of a unary call, or the SeqserveError behind its failure."""
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        if _is_task_cancelled():
            raise
        raise Cancelled("the client was closed before the answer") from error


def _is_task_cancelled() -> bool:
    """Whether somebody cancelled the running task. grpc.aio raises CancelledError, too, where only the call was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
