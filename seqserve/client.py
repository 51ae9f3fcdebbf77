"""The client for ordinary code. `seqserve.aio` is its twin for asyncio; requests and results are made in `seqserve.messages`."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol, Self, SupportsFloat, TypeVar

import grpc

from seqserve import messages
from seqserve.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, USE_CLIENT_TIMEOUT, ChannelOption, Timeout, channel_options, timeout_or
from seqserve.errors import ServerFailure, from_rpc_error, translated_errors
from seqserve.results import Classification, ClassifyAnswer, Forecast, Generation, ModelInfo, TextPiece, TextScore
from seqserve.streams import ClassifyFeed, ClassifyItem, Item, Response, SeriesFeed, StreamMeaning, TextSoFar
from seqserve.v1.forecasting_pb2 import ForecastStreamRequest
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from seqserve.v1.models_pb2 import ListModelsRequest
from seqserve.v1.models_pb2_grpc import ModelsStub
from seqserve.v1.text_classification_pb2 import ClassifyResponse
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from seqserve.v1.text_generation_pb2 import GenerateResponse
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub

Message_co = TypeVar("Message_co", covariant=True)


class Call(Protocol[Message_co]):
    """A streaming call of grpc, as far as it is used here."""

    def __iter__(self) -> Iterator[Message_co]:
        """Messages as they arrive; raises grpc.RpcError."""

    def cancel(self) -> object:
        """End the call now."""


class Stream(StreamMeaning[Response, Item]):
    """Items as they arrive, once.

    The call is cancelled by `close()`, by leaving a `with` block, and by leaving a `for` loop before the end. Iterating raises a SeqserveError when
    the call fails.
    """

    _call: Call[Response]
    _is_closed = False

    def __iter__(self) -> Iterator[Item]:
        try:
            for response in self._call:
                yield self._take(response)
        except grpc.RpcError as error:
            if not self._is_closed:
                raise from_rpc_error(error) from error
        else:
            self._check_end()
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call, wherever it is; what has arrived stays. Does nothing after the end."""
        self._is_closed = True
        self._call.cancel()


class TextStream(TextSoFar, Stream[GenerateResponse, TextPiece]):
    """A text being generated: iterate over its pieces, or `read()` it whole."""

    def __init__(self, call: Call[GenerateResponse]) -> None:
        super().__init__()
        self._call = call

    def read(self) -> Generation:
        """Wait for the rest of the text.

        Returns:
            The whole generation, pieces that were iterated over before included.
        Raises:
            SeqserveError: the call failed.
            RuntimeError: the stream was closed before its end.
        """
        for _ in self:
            pass
        return self._whole()


class ClassifyStream(ClassifyFeed, Stream[ClassifyResponse, ClassifyAnswer]):
    """Answers in order of completion, matched to their requests by id."""

    def __init__(self, stub: TextClassificationStub, items: Iterable[ClassifyItem], *, model: str, version: int, timeout_s: float | None) -> None:
        super().__init__(model, version)
        self._call = stub.ClassifyStream(self._requests(items), timeout=timeout_s)


class ForecastStream(SeriesFeed):
    """Series kept open at the server, where each new observation costs one step of the network.

        with client.forecast_stream(model="stock") as stream:
            forecast = stream.push(history)
            forecast = stream.push([[open, high, low, close, volume]])

    May be shared by threads, which then wait for each other. Close it, or leave its `with` block: an open one keeps a thread.
    """

    def __init__(
        self,
        stub: ForecastingStub,
        *,
        model: str,
        version: int,
        horizon: int,
        quantiles: Iterable[SupportsFloat],
        timeout_s: float | None,
    ) -> None:
        super().__init__(model, version, horizon, quantiles)
        self._turn = threading.Lock()
        self._requests: SimpleQueue[ForecastStreamRequest | None] = SimpleQueue()
        self._is_closed = False
        self._call = stub.ForecastStream(iter(self._requests.get, None), timeout=timeout_s)

    def push(self, observations: messages.Observations, *, series_id: str = "") -> Forecast:
        """Observe more of a series.

        Args:
            observations: new ones, oldest first, of values in the order and units that the model names; of the first push of a series at least as
                many as the model needs.
            series_id: tells the series of one stream apart.
        Returns:
            The forecast after them.
        Raises:
            SeqserveError: this push failed; the series is as it was before, and the stream goes on. Or the whole call failed: it is then closed.
            RuntimeError: the stream is closed.
        """
        with self._turn:
            request = self._request(observations, series_id)
            if self._is_closed:
                raise RuntimeError("the stream is closed")
            try:
                self._requests.put(request)
                response = next(self._call)
            except StopIteration:
                self.close()
                raise ServerFailure("the server ended the stream before its answer") from None
            except grpc.RpcError as error:
                self.close()
                raise from_rpc_error(error) from error
            except BaseException:
                self.close()  # the answer that nobody waited for must not be taken for the next one's
                raise
            return self._forecast(response)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is None and not self._is_closed:
            self._requests.put(None)
            with suppress(grpc.RpcError):
                list(self._call)  # a last word, so that the server counts no cancellation
        self.close()

    def close(self) -> None:
        """Cancel the call, wherever it is. Does nothing after the end."""
        self._is_closed = True
        self._call.cancel()
        self._requests.put(None)  # lets go of the thread that sends


class Client:
    """A connection to a seqserve server; may be shared by threads.

        with Client("127.0.0.1:50051") as client:
            for piece in client.generate("ROMEO:", max_tokens=200):
                print(piece.text, end="", flush=True)

    Every method raises a SeqserveError when its call fails (the tree is in `seqserve.errors`), and ValueError or TypeError for a value that its field
    cannot hold. `version=0` means the newest version that serves.

    Args:
        address: of the server: host:port, `dns:///name:port` for every address of a name, or `unix:path`.
        credentials: None for plaintext, else grpc.ssl_channel_credentials(...).
        timeout_s: of each call that does not say; None for no limit.
        options: further gRPC channel arguments.
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
        self._channel = grpc.insecure_channel(address, arguments) if credentials is None else grpc.secure_channel(address, credentials, arguments)
        self._text_generation = TextGenerationStub(self._channel)
        self._text_classification = TextClassificationStub(self._channel)
        self._forecasting = ForecastingStub(self._channel)
        self._models = ModelsStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
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
        )
        return TextStream(self._text_generation.Generate(request, timeout=timeout_or(timeout_s, self._timeout_s)))

    def score(self, texts: messages.Texts, *, model: str = "charlm", version: int = 0, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> list[TextScore]:
        """Score texts of at least two tokens each with a language model.

        Returns:
            One score a text, in their order.
        """
        request = messages.score_request(texts, model=model, version=version)
        with translated_errors():
            response = self._text_generation.Score(request, timeout=timeout_or(timeout_s, self._timeout_s))
        return messages.text_scores(response)

    def classify(
        self, texts: messages.Texts, *, model: str = "sentiment", version: int = 0, timeout_s: Timeout = USE_CLIENT_TIMEOUT
    ) -> list[Classification]:
        """Classify a few texts; `classify_stream` is for many.

        Returns:
            One classification a text, in their order.
        """
        request = messages.classify_request(texts, model=model, version=version)
        with translated_errors():
            response = self._text_classification.Classify(request, timeout=timeout_or(timeout_s, self._timeout_s))
        return messages.classifications(response)

    def classify_stream(
        self, requests: Iterable[ClassifyItem], *, model: str = "sentiment", version: int = 0, timeout_s: float | None = None
    ) -> ClassifyStream:
        """Classify any number of texts over one call.

        Args:
            requests: pairs of an id and the text or texts to classify. Iterated over in another thread, as fast as the server takes them; what it
                raises is raised to the reader of the answers.
            model, version: which model.
            timeout_s: for the whole stream; None, the default: no limit.
        Returns:
            Answers in order of completion. A request that is wrong gets an answer with `error`, and the stream goes on.
        """
        return ClassifyStream(self._text_classification, requests, model=model, version=version, timeout_s=timeout_s)

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
            series: series of observations, oldest first, of values in the order and units that the model names (`model(...).spec`). Lengths may
                differ. Anything that nests like that: lists, a numpy array (series, observations, values).
            model, version: which model.
            horizon: steps ahead; 0: the model's.
            quantiles: levels in (0, 1) among those that the model was trained for; empty: all of them.
            timeout_s: for the call.
        Returns:
            One forecast a series, in their order.
        """
        request = messages.forecast_request(series, model=model, version=version, horizon=horizon, quantiles=quantiles)
        with translated_errors():
            response = self._forecasting.Forecast(request, timeout=timeout_or(timeout_s, self._timeout_s))
        return messages.forecasts(response)

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
        return ForecastStream(self._forecasting, model=model, version=version, horizon=horizon, quantiles=quantiles, timeout_s=timeout_s)

    def models(self, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> list[ModelInfo]:
        """Every model version that the server knows of, failed ones too, by name and then newest first."""
        with translated_errors():
            response = self._models.List(ListModelsRequest(), timeout=timeout_or(timeout_s, self._timeout_s))
        return messages.model_infos(response)

    def model(self, name: str, version: int = 0, *, timeout_s: Timeout = USE_CLIENT_TIMEOUT) -> ModelInfo:
        """One model version; version 0: the newest that serves, or the newest that failed where none does."""
        request = messages.model_request(name, version)
        with translated_errors():
            return messages.model_info(self._models.Get(request, timeout=timeout_or(timeout_s, self._timeout_s)))
