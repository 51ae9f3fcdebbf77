"""The asyncio client.

Its methods match those of `seqserve.client`, which describes the arguments.
"""

import asyncio
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, SupportsFloat

import grpc
import grpc.aio

from seqserve import arguments, messages
from seqserve.aio_calls import AsyncClassifyStream, AsyncForecastStream, AsyncTextStream
from seqserve.aio_watching import AsyncWatchCalls
from seqserve.connection import (
    DEFAULT_TIMEOUT_S,
    USE_CLIENT_TIMEOUT,
    ChannelOption,
    Timeout,
    authorization,
    channel_options,
    server_address,
)
from seqserve.frames import ModelColumns
from seqserve.link import AsyncLink
from seqserve.results import Classification, Forecast, ModelCard, ModelInfo, TextScore
from seqserve.retry import DEFAULT_RETRY, Retry
from seqserve.streams import ClassifyItem
from seqserve.tabular import Answers
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.models_pb2 import ListModelsRequest
from seqserve.v1.models_pb2_grpc import ModelsStub
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub


class AsyncClient(AsyncWatchCalls):
    """A connection to a seqserve server, for use in one event loop: the one of its first call.

        async with AsyncClient("127.0.0.1:50051") as client:
            async for piece in client.generate("ROMEO:", max_tokens=200):
                print(piece.text, end="", flush=True)

    Arguments and errors are those of `seqserve.Client`.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        retry: Retry | None = DEFAULT_RETRY,
        options: Sequence[ChannelOption] = (),
    ) -> None:
        self._address = server_address(address)
        arguments.instance("credentials", credentials, grpc.ChannelCredentials)
        arguments.instance("retry", retry, Retry)
        self._timeout_s = arguments.timeout("timeout_s", timeout_s)
        self._retry = retry
        self._closed = asyncio.Event()
        self._link = AsyncLink(self._address, authorization(token), self._closed.is_set)
        self._columns: dict[tuple[str, int], ModelColumns] = {}
        self._credentials = credentials
        self._settings = channel_options(self._address, options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r}{', closed' if self._closed.is_set() else ''})"

    async def __aenter__(self) -> Self:
        self._connect()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel the calls in flight; later calls raise ClientClosed.

        Has no effect on a closed client, or in a process that was forked after the client was made.

        Raises:
            WrongContext: The client belongs to another event loop.
        """
        if not (self._link.is_bound and self._link.is_of_this_process):
            self._closed.set()
            return
        self._link.check_context()
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
        initial: Mapping[str, Any] | None = None,
        source: Any = None,
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
            initial=initial,
            source=source,
        )
        self._connect()
        return AsyncTextStream(self._link, self._text_generation.Generate, request, self._attempts(timeout_s))

    async def score(
        self,
        texts: messages.Texts,
        *,
        model: str = "charlm",
        version: int = 0,
        alternatives: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> Answers[TextScore]:
        """Score texts of at least two tokens each with a language model.

        Returns:
            One score per text, in their order.
        """
        request = messages.score_request(texts, model=model, version=version, alternatives=alternatives)
        self._connect()
        return messages.text_scores(
            await self._call(self._text_generation.Score, request, self._attempts(timeout_s))
        )

    async def classify(
        self,
        texts: messages.Texts,
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> Answers[Classification]:
        """Classify a few texts in one request; `classify_stream` is for many.

        Returns:
            One classification per text, in their order.
        """
        request = messages.classify_request(texts, model=model, version=version)
        self._connect()
        return messages.classifications(
            await self._call(self._text_classification.Classify, request, self._attempts(timeout_s))
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
        self._connect()
        method = self._text_classification.ClassifyStream
        attempts = self._attempts(timeout_s)
        return AsyncClassifyStream(self._link, method, requests, attempts, model=model, version=version)

    async def forecast(
        self,
        series: messages.Series,
        *,
        model: str = "stock",
        version: int = 0,
        horizon: int = 0,
        quantiles: Iterable[SupportsFloat] = (),
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> Answers[Forecast]:
        """Forecast the values after the last observation of each series.

        Returns:
            One forecast per series, in their order.
        """
        self._connect()
        request, frames = messages.forecast_request(
            series, model=model, version=version, horizon=horizon, quantiles=quantiles
        )
        attempts = self._attempts(timeout_s)
        if frames:
            messages.set_frames(request, frames, await self._find_columns(model, version, attempts))
        return messages.forecasts(await self._call(self._forecasting.Forecast, request, attempts))

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
        self._connect()
        return AsyncForecastStream(
            self._link,
            self._forecasting.ForecastStream,
            self._attempts(timeout_s),
            self._find_columns,
            model=model,
            version=version,
            horizon=horizon,
            quantiles=quantiles,
        )

    async def models(
        self, *, include_spec: bool = False, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> Answers[ModelInfo]:
        """List all model versions, failed ones included, by name and then newest first.

        Their `spec` is empty unless `include_spec` asks for it; the server refuses a list that is too large.
        """
        self._connect()
        request = ListModelsRequest(include_spec=arguments.flag("include_spec", include_spec))
        return messages.model_infos(await self._call(self._models.List, request, self._attempts(timeout_s)))

    async def model(
        self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> ModelInfo:
        """Look up one model version.

        Version 0 means the newest that serves, or the newest known if none serves.
        """
        request = messages.model_request(name, version)
        self._connect()
        return messages.model_info(await self._call(self._models.Get, request, self._attempts(timeout_s)))

    async def card(
        self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> ModelCard:
        """Return the card of one model version, with the pictures that it shows.

        Version 0 means the newest that serves, or the newest known if none serves.
        """
        request = messages.card_request(name, version)
        self._connect()
        return messages.model_card(await self._call(self._models.GetCard, request, self._attempts(timeout_s)))

    async def load_model(
        self,
        name: str,
        version: int = 0,
        *,
        allow_interface_change: bool = False,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> ModelInfo:
        """Load a version: check it, warm it up and serve it.

        A version that takes or gives something else (columns, labels, vocabulary) than the one that serves
        is refused unless `allow_interface_change` is set.

        The token needs the admin right. The call is not retried.
        """
        request = messages.load_request(name, version, allow_interface_change)
        self._connect()
        attempts = self._attempts(timeout_s, is_retried=False)
        return messages.model_info(await self._call(self._models.Load, request, attempts))

    async def unload_model(
        self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> None:
        """Stop serving a version, and return when its requests in flight have finished.

        The token needs the admin right. The call is not retried.
        """
        request = messages.unload_request(name, version)
        self._connect()
        await self._call(self._models.Unload, request, self._attempts(timeout_s, is_retried=False))

    def _connect(self) -> None:
        """Open the channel in the running event loop at the first call, and refuse any other loop later.

        Raises:
            ClientClosed: The client is closed.
            WrongContext: No event loop runs, another one than at the first call, or in another process.
        """
        self._link.check()
        if self._link.is_bound:
            return
        self._link.bind()
        self._channel = (
            grpc.aio.insecure_channel(self._address, self._settings)
            if self._credentials is None
            else grpc.aio.secure_channel(self._address, self._credentials, self._settings)
        )
        self._text_generation = TextGenerationStub(self._channel)
        self._text_classification = TextClassificationStub(self._channel)
        self._forecasting = ForecastingStub(self._channel)
        self._models = ModelsStub(self._channel)
        self._sequences = SequencesStub(self._channel)
