"""The client for ordinary code. `seqserve.aio` is its twin for asyncio; requests and results are made in
`seqserve.messages`.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, SupportsFloat, TypeVar

import grpc
from google.protobuf.message import Message

from seqserve import messages
from seqserve.calls import ClassifyStream, ForecastStream, TextStream
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
from seqserve.streams import ClassifyItem
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.models_pb2 import ListModelsRequest
from seqserve.v1.models_pb2_grpc import ModelsStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub

Answer = TypeVar("Answer")


class Client:
    """A connection to a seqserve server; may be shared by threads.

        with Client("127.0.0.1:50051") as client:
            for piece in client.generate("ROMEO:", max_tokens=200):
                print(piece.text, end="", flush=True)

    Every method raises a SeqserveError when its call fails (the tree is in `seqserve.errors`), and ValueError
    or TypeError for a value that its field cannot hold. `version=0` means the newest version that serves.

    A call that breaks is tried again, and a text or a series goes on where it was (`retry`), on another
    server where there are several.

    Args:
        address: of the server: host:port, `dns:///name:port` for every address of a name,
            `ipv4:10.0.0.1:50051,10.0.0.2:50051` for several, or `unix:path`.
        credentials: None for plaintext, else `seqserve.tls(...)`.
        token: sent with every call, for servers that want one; over plaintext it is there for all to read.
        timeout_s: of each call that does not say, all its attempts together; None for no limit.
        retry: when a call that broke is tried again; None: never.
        options: further gRPC channel arguments.
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
        self._closed = threading.Event()
        self._channel = (
            grpc.insecure_channel(address, arguments)
            if credentials is None
            else grpc.secure_channel(address, credentials, arguments)
        )
        self._text_generation = TextGenerationStub(self._channel)
        self._text_classification = TextClassificationStub(self._channel)
        self._forecasting = ForecastingStub(self._channel)
        self._models = ModelsStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._closed.set()
        self._channel.close()

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
        state: bytes | None = None,
        return_state: bool = False,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> TextStream:
        """Generate text after a prompt.

        Args:
            prompt: to go on from; empty: the model's start token.
            model, version: which model.
            max_tokens: most tokens to generate; 0: the model's default.
            temperature: divides the logits; 0 is greedy; None: 1.
            top_k: sample among the so many most likely tokens; 0: off.
            top_p: sample among the fewest tokens whose probabilities sum to this, in (0, 1]; None: off.
            seed: of the sampling, 0..2**64 - 1; None: drawn by the server and returned.
            stop: generation ends before the first of these; a single str is one.
            logprobs: return each token's log-probability.
            state: of an earlier generation, to go on from; `prompt` is then what follows it.
            return_state: give the sealed state after the last token.
            timeout_s: for the whole text.

        Returns:
            The text as it comes. Errors are raised on reading it.
        """
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
        return TextStream(start, request, Attempts(self._retry, timeout_or(timeout_s, self._timeout_s)))

    def score(
        self,
        texts: messages.Texts,
        *,
        model: str = "charlm",
        version: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> list[TextScore]:
        """Score texts of at least two tokens each with a language model.

        Returns:
            One score a text, in their order.
        """
        request = messages.score_request(texts, model=model, version=version)
        return messages.text_scores(self._ask(self._text_generation.Score, request, timeout_s))

    def classify(
        self,
        texts: messages.Texts,
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> list[Classification]:
        """Classify a few texts; `classify_stream` is for many.

        Returns:
            One classification a text, in their order.
        """
        request = messages.classify_request(texts, model=model, version=version)
        return messages.classifications(self._ask(self._text_classification.Classify, request, timeout_s))

    def classify_stream(
        self,
        requests: Iterable[ClassifyItem],
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: float | None = None,
    ) -> ClassifyStream:
        """Classify any number of texts over one call.

        Args:
            requests: pairs of an id and the text or texts to classify. Iterated over in another thread, as
                fast as the server takes them; what it raises is raised to the reader of the answers.
            model, version: which model.
            timeout_s: for the whole stream; None, the default: no limit.

        Returns:
            Answers in order of completion. A request that is wrong gets an answer with `error`, and the
            stream goes on.
        """
        start = partial(self._text_classification.ClassifyStream, metadata=self._metadata)
        return ClassifyStream(start, requests, Attempts(self._retry, timeout_s), model=model, version=version)

    def forecast(
        self,
        series: messages.Series,
        *,
        model: str = "stock",
        version: int = 0,
        horizon: int = 0,
        quantiles: Iterable[SupportsFloat] = (),
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> list[Forecast]:
        """Forecast after the last observation of each series.

        Args:
            series: series of observations, oldest first, of values in the order and units that the model
                names (`model(...).spec`). Lengths may differ. Anything that nests like that: lists, a numpy
                array (series, observations, values).
            model, version: which model.
            horizon: steps ahead; 0: the model's.
            quantiles: levels in (0, 1) among those that the model was trained for; empty: all of them.
            timeout_s: for the call.

        Returns:
            One forecast a series, in their order.
        """
        request = messages.forecast_request(
            series, model=model, version=version, horizon=horizon, quantiles=quantiles
        )
        return messages.forecasts(self._ask(self._forecasting.Forecast, request, timeout_s))

    def forecast_stream(
        self,
        *,
        model: str = "stock",
        version: int = 0,
        horizon: int = 0,
        quantiles: Iterable[SupportsFloat] = (),
        timeout_s: float | None = None,
    ) -> ForecastStream:
        """Keep series open and forecast after each new observation.

        Args:
            model, version: which model; for all series of the stream.
            horizon: steps ahead; 0: the model's.
            quantiles: levels in (0, 1) among those that the model was trained for; empty: all of them.
            timeout_s: for the whole stream; None, the default: no limit.

        Returns:
            A stream to push observations to.
        """
        start = partial(self._forecasting.ForecastStream, metadata=self._metadata)
        attempts = Attempts(self._retry, timeout_s)
        return ForecastStream(
            start, attempts, model=model, version=version, horizon=horizon, quantiles=quantiles
        )

    def models(self, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> list[ModelInfo]:
        """Every model version that the server knows of, failed ones too, by name and then newest first."""
        return messages.model_infos(self._ask(self._models.List, ListModelsRequest(), timeout_s))

    def model(self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> ModelInfo:
        """One model version; version 0: the newest that serves, or the newest that failed where none does."""
        return messages.model_info(
            self._ask(self._models.Get, messages.model_request(name, version), timeout_s)
        )

    def load_model(
        self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> ModelInfo:
        """Have a version checked and served, for which the token needs the right admin. Not tried again.

        Args:
            name, version: which model; version 0: the newest one on disk.
            timeout_s: for the call; the server goes on loading after it.

        Returns:
            The version, which serves.

        Raises:
            NotServed: it was refused; the message names the check. What served before goes on.
        """
        return messages.model_info(
            self._ask(self._models.Load, messages.load_request(name, version), timeout_s, is_retried=False)
        )

    def unload_model(self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> None:
        """Have a version take no more requests, for which the token needs the right admin; returns when those
        it has are done. Not tried again.

        Args:
            name, version: which model; version 0: the newest one that serves.
            timeout_s: for the call.
        """
        self._ask(self._models.Unload, messages.unload_request(name, version), timeout_s, is_retried=False)

    def _ask(
        self, method: Callable[..., Answer], request: Message, timeout_s: Timeout, *, is_retried: bool = True
    ) -> Answer:
        """The answer of a unary call, or the SeqserveError behind its failure."""
        attempts = Attempts(self._retry if is_retried else None, timeout_or(timeout_s, self._timeout_s))
        while True:
            try:
                return method(request, timeout=attempts.left_s(), metadata=self._metadata)
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                pause_s = None if self._closed.is_set() else attempts.pause_s(failure)
                if pause_s is None:
                    raise failure from error
            if self._closed.wait(pause_s):
                raise Cancelled("the client was closed before the answer")
