"""The blocking client.

`seqserve.aio` is the asyncio equivalent. `seqserve.messages` builds the requests and results of both.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, SupportsFloat

import grpc

from seqserve import arguments, messages
from seqserve.calls import ClassifyStream, ForecastStream, TextStream
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
from seqserve.link import Link
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
from seqserve.watching import WatchCalls


class Client(WatchCalls):
    """A connection to a seqserve server, safe to share between threads.

        with Client("127.0.0.1:50051") as client:
            for piece in client.generate("ROMEO:", max_tokens=200):
                print(piece.text, end="", flush=True)

    Every method raises a SeqserveError when its call fails (`seqserve.errors` has the tree). An argument that
    cannot be sent raises WrongType or WrongValue, which name it; both are an InvalidArgument.

    A call that fails in transit is retried according to `retry`. A generation, or a stream of series or
    sequences, continues where it stopped, on another server if there are several.

    Args:
        address: Address of the server: host:port, `dns:///name:port` for every address of a name,
            `ipv4:10.0.0.1:50051,10.0.0.2:50051` for several addresses, or `unix:path`. None takes that of
            the environment variable SEQSERVE_SERVER, or else 127.0.0.1:50051. A proxy of the environment is
            used as gRPC does (grpc_proxy, https_proxy, http_proxy), but not for loopback.
        credentials: `seqserve.tls(...)`, or None for plaintext.
        token: Bearer token sent with every call, or None. Over plaintext it is readable on the network.
        timeout_s: Default timeout of a call in seconds, over all its attempts; None means no limit.
        retry: Retry policy, or None to never retry.
        options: Further gRPC channel arguments.
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
        self._closed = threading.Event()
        self._link = Link(self._address, authorization(token), self._closed.is_set)
        self._columns: dict[tuple[str, int], ModelColumns] = {}
        settings = channel_options(self._address, options)
        self._channel = (
            grpc.insecure_channel(self._address, settings)
            if credentials is None
            else grpc.secure_channel(self._address, credentials, settings)
        )
        self._text_generation = TextGenerationStub(self._channel)
        self._text_classification = TextClassificationStub(self._channel)
        self._forecasting = ForecastingStub(self._channel)
        self._models = ModelsStub(self._channel)
        self._sequences = SequencesStub(self._channel)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r}{', closed' if self._closed.is_set() else ''})"

    def __enter__(self) -> Self:
        self._link.check()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and cancel the calls in flight; later calls raise ClientClosed.

        Has no effect on a closed client. In a process that was forked after the client was made, the
        connection is the parent's and stays open.
        """
        self._closed.set()
        if self._link.is_of_this_process:
            self._channel.close()

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
    ) -> TextStream:
        """Generate text after a prompt.

        Args:
            prompt: Text to continue; if empty, generation starts from the model's start token.
            model: Name of the model.
            version: Version of the model; 0 means the newest that serves.
            max_tokens: Maximum number of tokens to generate; 0 uses the model's default.
            temperature: Divisor of the logits; 0 is greedy, None is 1.
            top_k: Number of most likely tokens to sample from; 0 means no limit.
            top_p: Nucleus sampling: sample from the smallest set of most likely tokens whose probabilities
                sum to at least this, in (0, 1]; None means no limit.
            seed: Seed of the sampling, 0..2**64 - 1; if None, the server draws one and returns it.
            stop: Stop strings, or a single one; generation ends before the first occurrence of any.
            logprobs: Return the log-probability of each token.
            state: Sealed state of an earlier generation to continue; `prompt` is then the text after it.
            return_state: Return the sealed state after the last token.
            initial: What the model's init graph takes, such as features of an image: rows of numbers by name.
            source: What the model's encoder reads first: a text, token ids, or rows of numbers.
            timeout_s: Timeout of the whole generation in seconds; None or infinity means no limit.

        Returns:
            A stream of the text as it arrives. Errors are raised when the stream is read.
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
            initial=initial,
            source=source,
        )
        return TextStream(self._link, self._text_generation.Generate, request, self._attempts(timeout_s))

    def score(
        self,
        texts: messages.Texts,
        *,
        model: str = "charlm",
        version: int = 0,
        alternatives: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> Answers[TextScore]:
        """Score texts with a language model.

        Args:
            texts: Texts of at least two tokens each.
            model: Name of the model.
            version: Version of the model; 0 means the newest that serves.
            alternatives: Number of most likely tokens to return at each position, 0..20.
            timeout_s: Timeout of the call in seconds.

        Returns:
            One score per text, in their order.
        """
        request = messages.score_request(texts, model=model, version=version, alternatives=alternatives)
        return messages.text_scores(
            self._call(self._text_generation.Score, request, self._attempts(timeout_s))
        )

    def classify(
        self,
        texts: messages.Texts,
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> Answers[Classification]:
        """Classify a few texts in one request; `classify_stream` is for many.

        Args:
            texts: Texts of at least one token each.
            model: Name of the model.
            version: Version of the model; 0 means the newest that serves.
            timeout_s: Timeout of the call in seconds.

        Returns:
            One classification per text, in their order.
        """
        request = messages.classify_request(texts, model=model, version=version)
        return messages.classifications(
            self._call(self._text_classification.Classify, request, self._attempts(timeout_s))
        )

    def classify_stream(
        self,
        requests: Iterable[ClassifyItem],
        *,
        model: str = "sentiment",
        version: int = 0,
        timeout_s: float | None = None,
    ) -> ClassifyStream:
        """Classify any number of texts over one stream.

        Args:
            requests: Pairs of an id and the text or texts to classify. Another thread iterates over them as
                fast as the server reads. An exception raised there is raised again to the reader of the
                answers.
            model: Name of the model.
            version: Version of the model; 0 means the newest that serves.
            timeout_s: Timeout of the whole stream in seconds; None, the default, means no limit.

        Returns:
            Answers in order of completion. An invalid request gets an answer with `error`, and the stream
            continues.
        """
        method = self._text_classification.ClassifyStream
        attempts = self._attempts(timeout_s)
        return ClassifyStream(self._link, method, requests, attempts, model=model, version=version)

    def forecast(
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

        Args:
            series: Series of observations, oldest first; each observation holds the values in the order and
                units that the model names (`model(...).spec`). Nested sequences, or an array of shape
                (series, observations, values). Lengths may differ. A series may also be a table: a DataFrame
                of pandas or polars, a Table of pyarrow, or rows that are dicts or named tuples. Its columns
                are matched to the model's by name, for which `model(...)` is called. A column or an index of
                rising dates is left out; other columns, falling dates and missing columns are refused.
            model: Name of the model.
            version: Version of the model; 0 means the newest that serves.
            horizon: Number of steps ahead; 0 uses the model's horizon.
            quantiles: Quantile levels in (0, 1), each one that the model was trained for; empty means all.
            timeout_s: Timeout of the call in seconds.

        Returns:
            One forecast per series, in their order.
        """
        request, frames = messages.forecast_request(
            series, model=model, version=version, horizon=horizon, quantiles=quantiles
        )
        attempts = self._attempts(timeout_s)
        if frames:
            messages.set_frames(request, frames, self._find_columns(model, version, attempts))
        return messages.forecasts(self._call(self._forecasting.Forecast, request, attempts))

    def forecast_stream(
        self,
        *,
        model: str = "stock",
        version: int = 0,
        horizon: int = 0,
        quantiles: Iterable[SupportsFloat] = (),
        timeout_s: float | None = None,
    ) -> ForecastStream:
        """Open a stream that keeps series on the server and forecasts after each new observation.

        Args:
            model: Name of the model, for all series of the stream.
            version: Version of the model; 0 means the newest that serves.
            horizon: Number of steps ahead; 0 uses the model's horizon.
            quantiles: Quantile levels in (0, 1), each one that the model was trained for; empty means all.
            timeout_s: Timeout of the whole stream in seconds; None, the default, means no limit.

        Returns:
            A stream to push observations to.
        """
        return ForecastStream(
            self._link,
            self._forecasting.ForecastStream,
            self._attempts(timeout_s),
            self._find_columns,
            model=model,
            version=version,
            horizon=horizon,
            quantiles=quantiles,
        )

    def models(
        self, *, include_spec: bool = False, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> Answers[ModelInfo]:
        """List all model versions, failed ones included, by name and then newest first.

        Their `spec` is empty unless `include_spec` asks for it; the server refuses a list that is too large.
        """
        request = ListModelsRequest(include_spec=arguments.flag("include_spec", include_spec))
        return messages.model_infos(self._call(self._models.List, request, self._attempts(timeout_s)))

    def model(self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> ModelInfo:
        """Look up one model version.

        Version 0 means the newest that serves, or the newest known if none serves.
        """
        return messages.model_info(
            self._call(self._models.Get, messages.model_request(name, version), self._attempts(timeout_s))
        )

    def card(self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> ModelCard:
        """Return the card of one model version, with the pictures that it shows.

        Version 0 means the newest that serves, or the newest known if none serves.
        """
        request = messages.card_request(name, version)
        return messages.model_card(self._call(self._models.GetCard, request, self._attempts(timeout_s)))

    def load_model(
        self,
        name: str,
        version: int = 0,
        *,
        allow_interface_change: bool = False,
        timeout_s: Timeout = USE_CLIENT_TIMEOUT,
    ) -> ModelInfo:
        """Load a version: check it, warm it up and serve it.

        The token needs the admin right. The call is not retried.

        Args:
            name: Name of the model.
            version: Version to load; 0 means the newest on disk.
            allow_interface_change: Load it even if what it takes and gives (columns, labels, vocabulary)
                differs from the version that serves.
            timeout_s: Timeout of the call in seconds; the server continues to load after it.

        Returns:
            The version, now serving.

        Raises:
            NotServed: The version failed a check, which the message names. The versions that served before
                still serve.
        """
        request = messages.load_request(name, version, allow_interface_change)
        attempts = self._attempts(timeout_s, is_retried=False)
        return messages.model_info(self._call(self._models.Load, request, attempts))

    def unload_model(self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> None:
        """Stop serving a version, and return when its requests in flight have finished.

        The token needs the admin right. The call is not retried.

        Args:
            name: Name of the model.
            version: Version to unload; 0 means the newest that serves.
            timeout_s: Timeout of the call in seconds.
        """
        request = messages.unload_request(name, version)
        self._call(self._models.Unload, request, self._attempts(timeout_s, is_retried=False))
