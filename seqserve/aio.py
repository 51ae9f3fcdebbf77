"""The asyncio client.

Its methods match those of `seqserve.client`, which describes the arguments.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, SupportsFloat

import grpc
import grpc.aio
from google.protobuf.message import Message

from seqserve import messages
from seqserve.aio_calls import (
    AsyncClassifyStream,
    AsyncForecastStream,
    AsyncTextStream,
    is_task_cancelled,
    wait_until_set,
)
from seqserve.connection import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    USE_CLIENT_TIMEOUT,
    ChannelOption,
    Timeout,
    authorization,
    channel_options,
    timeout_or,
)
from seqserve.errors import Cancelled, from_rpc_error
from seqserve.results import Classification, Forecast, ModelInfo, TextScore
from seqserve.retry import DEFAULT_RETRY, Attempts, Retry
from seqserve.streams import ClassifyItem, Response
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.models_pb2 import ListModelsRequest
from seqserve.v1.models_pb2_grpc import ModelsStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub


class AsyncClient:
    """A connection to a seqserve server, for use in one event loop.

        async with AsyncClient("127.0.0.1:50051") as client:
            async for piece in client.generate("ROMEO:", max_tokens=200):
                print(piece.text, end="", flush=True)

    Arguments and errors are those of `seqserve.Client`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        retry: Retry | None = DEFAULT_RETRY,
        options: Sequence[ChannelOption] = (),
    ) -> None:
        arguments = channel_options(options)
        self._timeout_s = timeout_s
        self._retry = retry
        self._metadata = authorization(token)
        self._closed = asyncio.Event()
        self._channel = (
            grpc.aio.insecure_channel(address, arguments)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, arguments)
        )
        self._text_generation = TextGenerationStub(self._channel)
        self._text_classification = TextClassificationStub(self._channel)
        self._forecasting = ForecastingStub(self._channel)
        self._models = ModelsStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel the calls in flight."""
        self._closed.set()
        await self._channel.close()

    def generate(  # noqa: PLR0913 - one keyword per option of the request
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
        state: bytes | None = None,
        return_state: bool = False,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> AsyncTextStream:
        """Generate text after a prompt; returns the stream at once, without await."""
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
            state=state,
            return_state=return_state,
        )
        start = partial(self._text_generation.Generate, metadata=self._metadata)
        return AsyncTextStream(start, request, Attempts(self._retry, timeout_or(timeout_s, self._timeout_s)))

    async def score(
        self,
        texts: messages.Texts,
        *,
        model: str = "charlm",
        version: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> list[TextScore]:
        """Score texts of at least two tokens each with a language model.

        Returns:
            One score per text, in their order.
        """
        request = messages.score_request(texts, model=model, version=version)
        return messages.text_scores(await self._call(self._text_generation.Score, request, timeout_s))

    async def classify(
        self,
        texts: messages.Texts,
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> list[Classification]:
        """Classify a few texts in one request; `classify_stream` is for many.

        Returns:
            One classification per text, in their order.
        """
        request = messages.classify_request(texts, model=model, version=version)
        return messages.classifications(
            await self._call(self._text_classification.Classify, request, timeout_s)
        )

    def classify_stream(
        self,
        requests: AsyncIterable[ClassifyItem] | Iterable[ClassifyItem],
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncClassifyStream:
        """Classify any number of texts over one stream; returns the stream at once, without await.

        Returns:
            Answers in order of completion.
        """
        start = partial(self._text_classification.ClassifyStream, metadata=self._metadata)
        return AsyncClassifyStream(
            start, requests, Attempts(self._retry, timeout_s), model=model, version=version
        )

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
        """Forecast the values after the last observation of each series.

        Returns:
            One forecast per series, in their order.
        """
        request = messages.forecast_request(
            series, model=model, version=version, horizon=horizon, quantiles=quantiles
        )
        return messages.forecasts(await self._call(self._forecasting.Forecast, request, timeout_s))

    def forecast_stream(
        self,
        *,
        model: str = "stock",
        version: int = 0,
        horizon: int = 0,
        quantiles: Iterable[SupportsFloat] = (),
        timeout_s: float | None = None,
    ) -> AsyncForecastStream:
        """Open a stream that keeps series on the server and forecasts after each new observation.

        Returns:
            The stream at once, without await.
        """
        start = partial(self._forecasting.ForecastStream, metadata=self._metadata)
        attempts = Attempts(self._retry, timeout_s)
        return AsyncForecastStream(
            start, attempts, model=model, version=version, horizon=horizon, quantiles=quantiles
        )

    async def models(
        self, *, include_spec: bool = False, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> list[ModelInfo]:
        """List all model versions, failed ones included, by name and then newest first.

        Their `spec` is empty unless `include_spec` asks for it; the server refuses a list that is too large.
        """
        request = ListModelsRequest(include_spec=include_spec)
        return messages.model_infos(await self._call(self._models.List, request, timeout_s))

    async def model(
        self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> ModelInfo:
        """Look up one model version.

        Version 0 means the newest that serves, or the newest known if none serves.
        """
        return messages.model_info(
            await self._call(self._models.Get, messages.model_request(name, version), timeout_s)
        )

    async def load_model(
        self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> ModelInfo:
        """Load a version: check it, warm it up and serve it.

        The token needs the admin right. The call is not retried.
        """
        return messages.model_info(
            await self._call(
                self._models.Load, messages.load_request(name, version), timeout_s, is_retried=False
            )
        )

    async def unload_model(
        self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> None:
        """Stop serving a version, and return when its requests in flight have finished.

        The token needs the admin right. The call is not retried.
        """
        await self._call(
            self._models.Unload, messages.unload_request(name, version), timeout_s, is_retried=False
        )

    async def _call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Message,
        timeout_s: Timeout,
        *,
        is_retried: bool = True,
    ) -> Response:
        """Call a unary method with retries; raise the SeqserveError of the last failure."""
        attempts = Attempts(self._retry if is_retried else None, timeout_or(timeout_s, self._timeout_s))
        while True:
            try:
                return await method(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                delay_s = None if self._closed.is_set() else attempts.next_delay_s(failure)
                if delay_s is None:
                    raise failure from error
            except asyncio.CancelledError as error:
                if is_task_cancelled():
                    raise
                raise Cancelled("the client was closed before the answer") from error
            if await wait_until_set(self._closed, delay_s):
                raise Cancelled("the client was closed before the answer")
