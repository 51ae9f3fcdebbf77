"""The streams of the blocking client; `seqserve.aio_calls` is the asyncio equivalent."""

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Self, SupportsFloat

import grpc

from seqserve import arguments, messages
from seqserve.frames import Frame, ModelColumns, read_observations
from seqserve.kept_calls import KeptStream, StreamCall
from seqserve.link import Link
from seqserve.results import ClassifyAnswer, Forecast, Generation, TextPiece
from seqserve.retry import Attempts
from seqserve.streams import (
    ClassifyItem,
    ClassifyStreamCore,
    ForecastStreamCore,
    Item,
    Response,
    StreamCore,
    TextStreamCore,
)
from seqserve.v1.forecasting_pb2 import ForecastStreamRequest, ForecastStreamResponse
from seqserve.v1.text_classification_pb2 import ClassifyRequest, ClassifyResponse
from seqserve.v1.text_generation_pb2 import GenerateRequest, GenerateResponse


class Stream(StreamCore[Response, Item]):
    """Base class of streams that yield items as they arrive, once.

    `close()`, leaving a `with` block, and leaving a `for` loop early each cancel the call. Iterating raises a
    SeqserveError when the call fails.
    """

    def __init__(self, start: Callable[[], StreamCall[Response]]) -> None:
        self._open_call = start
        self._closed = threading.Event()
        self._call = start()

    def __iter__(self) -> Iterator[Item]:
        self._link.check_context()
        try:
            while True:
                try:
                    for response in self._call:
                        yield self._receive(response)
                    break
                except grpc.RpcError as error:
                    if self._closed.is_set():
                        return
                    delay_s = self._delay_after(error)
                    if delay_s is None:
                        break
                if self._closed.wait(delay_s):
                    return
                self._call = self._open_call()
                if self._closed.is_set():  # close() ran while the call started
                    self._call.cancel()
            self._check_end()
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call; the items received remain. Has no effect after the end."""
        self._closed.set()
        self._call.cancel()


class TextStream(TextStreamCore, Stream[GenerateResponse, TextPiece]):
    """A text being generated: iterate over its pieces, or `read()` it whole.

    If the client retries (`seqserve.Retry`), a new call continues after a failed one, and the text is the
    same as from a single call.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., StreamCall[GenerateResponse]],
        request: GenerateRequest,
        attempts: Attempts,
    ) -> None:
        TextStreamCore.__init__(self, link, request, attempts)
        Stream.__init__(
            self, lambda: link.call(method, self._continuation_request(), timeout=attempts.remaining_s())
        )

    def read(self) -> Generation:
        """Wait for the rest of the text.

        Returns:
            The whole generation, including pieces that were iterated over before.

        Raises:
            SeqserveError: The call failed.
            ClientClosed: The stream was closed before its end.
        """
        for _ in self:
            pass
        return self._generation()


class ClassifyStream(ClassifyStreamCore, Stream[ClassifyResponse, ClassifyAnswer]):
    """Answers in order of completion, matched to their requests by id.

    If the client retries (`seqserve.Retry`), a new call after a failed one sends the unanswered requests
    again. Of several requests with the same id it cannot tell which one was answered.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., StreamCall[ClassifyResponse]],
        items: Iterable[ClassifyItem],
        attempts: Attempts,
        *,
        model: str,
        version: int,
    ) -> None:
        ClassifyStreamCore.__init__(self, link, model, version, attempts)
        self._items = arguments.iterator("requests", items)
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        Stream.__init__(self, lambda: link.call(method, self._requests(), timeout=attempts.remaining_s()))

    def _requests(self) -> Iterator[ClassifyRequest]:
        with self._lock:
            call_number, unanswered = self._start_call()
        return chain(unanswered, iter(partial(self._next_request, call_number), None))

    def _next_request(self, call_number: int) -> ClassifyRequest | None:
        # The iterable may block the sending thread of a failed call. The request that it finally yields is
        # queued for the new call, which waits for this lock.
        with self._turn:
            if call_number == self._call_number and not self._queued and not self._requests_ended:
                try:
                    self._enqueue(next(self._items))
                except StopIteration:
                    self._end_requests()
                except Exception as error:
                    self._end_requests(error)
            with self._lock:
                return self._dequeue(call_number)

    def _receive(self, response: ClassifyResponse) -> ClassifyAnswer:
        with self._lock:
            return super()._receive(response)


class ForecastStream(ForecastStreamCore, KeptStream[ForecastStreamRequest, ForecastStreamResponse, Forecast]):
    """Series kept open on the server, where each new observation costs one step of the network.

        with client.forecast_stream(model="stock") as stream:
            forecast = stream.push(history)
            forecast = stream.push([[open, high, low, close, volume]])

    Threads may share a stream; their pushes run one at a time. Close the stream, or leave its `with` block:
    an open one occupies a thread.

    If the client retries (`seqserve.Retry`), each answer carries the sealed state of the series, and a new
    call after a failed one continues from it. Servers without common keys (SEQSERVE_STATE_KEYS) reject each
    other's states with InvalidArgument.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., StreamCall[ForecastStreamResponse]],
        attempts: Attempts,
        find_columns: Callable[[str, int], ModelColumns],
        *,
        model: str,
        version: int,
        horizon: int,
        quantiles: Iterable[SupportsFloat],
    ) -> None:
        ForecastStreamCore.__init__(
            self, link, attempts, model=model, version=version, horizon=horizon, quantiles=quantiles
        )
        KeptStream.__init__(self, method)
        self._find_columns = find_columns

    def push(
        self,
        observations: messages.Observations,
        *,
        series_id: str = "",
        state: bytes | None = None,
        return_state: bool = False,
    ) -> Forecast:
        """Send new observations of a series and wait for the forecast.

        Args:
            observations: New observations, oldest first: lists or an array with values in the order and units
                that the model names, or a table with columns of its names (`Client.forecast`). The first push
                of a series needs at least as many as the model requires.
            series_id: Id of the series within the stream.
            state: Sealed state of an earlier forecast, to continue from in the first push of a series;
                `observations` are then those after it.
            return_state: Return the sealed state after these observations with the forecast.

        Returns:
            The forecast after the observations.

        Raises:
            SeqserveError: The push failed. If the client or the server rejected the message, the series is
                unchanged and the stream continues; if the call failed, the stream is closed.
            ClientClosed: The stream is closed.
        """
        with self._turn:
            self._check_open()
            request = self._request(series_id, state, return_state)
            found = read_observations("observations", observations)
            if isinstance(found, Frame):
                columns = self._find_columns(self._model, self._version_of(series_id))
                self._set_frame(request, found, columns)
            else:
                self._set_rows(request, found)
            return self._send_one(request, return_state)
