"""Streams of the client for ordinary code. `seqserve.aio_calls` is their twin for asyncio."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol, Self, SupportsFloat, TypeVar

import grpc

from seqserve import messages
from seqserve.errors import Cancelled, ServerFailure, from_rpc_error
from seqserve.results import ClassifyAnswer, Forecast, Generation, TextPiece
from seqserve.retry import Attempts
from seqserve.streams import ClassifyFeed, ClassifyItem, Item, Response, SeriesFeed, StreamMeaning, TextSoFar
from seqserve.v1.forecasting_pb2 import ForecastStreamRequest, ForecastStreamResponse
from seqserve.v1.text_classification_pb2 import ClassifyRequest, ClassifyResponse
from seqserve.v1.text_generation_pb2 import GenerateRequest, GenerateResponse

Message_co = TypeVar("Message_co", covariant=True)
Begun = TypeVar("Begun")


class Call(Protocol[Message_co]):
    """A streaming call of grpc, as far as it is used here."""

    def __iter__(self) -> Iterator[Message_co]:
        """Messages as they arrive; raises grpc.RpcError."""

    def __next__(self) -> Message_co:
        """The next message; raises grpc.RpcError."""

    def cancel(self) -> object:
        """End the call now."""


class Stream(StreamMeaning[Response, Item]):
    """Items as they arrive, once.

    The call is cancelled by `close()`, by leaving a `with` block, and by leaving a `for` loop before the end.
    Iterating raises a SeqserveError when the call fails.
    """

    def __init__(self, begin: Callable[[], Call[Response]]) -> None:
        self._begin = begin
        self._closed = threading.Event()
        self._call = begin()

    def __iter__(self) -> Iterator[Item]:
        try:
            while True:
                try:
                    for response in self._call:
                        yield self._take(response)
                    break
                except grpc.RpcError as error:
                    failure = from_rpc_error(error)
                    if self._closed.is_set():
                        return
                    if self._is_whole_despite(failure):
                        break
                    pause_s = self._pause_s(failure)
                    if pause_s is None:
                        raise failure from error
                if self._closed.wait(pause_s):
                    return
                self._call = begun(self._begin)
                if self._closed.is_set():  # while the call began
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
        """Cancel the call, wherever it is; what has arrived stays. Does nothing after the end."""
        self._closed.set()
        self._call.cancel()


class TextStream(TextSoFar, Stream[GenerateResponse, TextPiece]):
    """A text being generated: iterate over its pieces, or `read()` it whole.

    Where the client tries again (`seqserve.Retry`), a call that breaks is followed by one that goes on behind
    the text so far; the text is that of a call that never broke.
    """

    def __init__(
        self, start: Callable[..., Call[GenerateResponse]], request: GenerateRequest, attempts: Attempts
    ) -> None:
        TextSoFar.__init__(self, request, attempts)
        Stream.__init__(self, lambda: start(self._rest(), timeout=attempts.left_s()))

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
    """Answers in order of completion, matched to their requests by id.

    Where the client tries again (`seqserve.Retry`), a call that breaks is followed by one that sends again
    what has no answer. Of requests with the same id it cannot tell which has been answered.
    """

    def __init__(
        self,
        start: Callable[..., Call[ClassifyResponse]],
        items: Iterable[ClassifyItem],
        attempts: Attempts,
        *,
        model: str,
        version: int,
    ) -> None:
        ClassifyFeed.__init__(self, model, version, attempts)
        self._items = iter(items)
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        Stream.__init__(self, lambda: start(self._requests(), timeout=attempts.left_s()))

    def _requests(self) -> Iterator[ClassifyRequest]:
        with self._lock:
            call_number, again = self._unanswered_again()
        return chain(again, iter(partial(self._next, call_number), None))

    def _next(self, call_number: int) -> ClassifyRequest | None:
        # The iterable may block the thread of a call that broke; what it gives at last is kept for the call
        # that waits behind it.
        with self._turn:
            if call_number == self._call_number and not self._pulled and not self._has_ended:
                try:
                    self._pull(next(self._items))
                except StopIteration:
                    self._end_requests()
                except Exception as error:
                    self._end_requests(error)
            with self._lock:
                return self._hand_out(call_number)

    def _take(self, response: ClassifyResponse) -> ClassifyAnswer:
        with self._lock:
            return super()._take(response)


class ForecastStream(SeriesFeed):
    """Series kept open at the server, where each new observation costs one step of the network.

        with client.forecast_stream(model="stock") as stream:
            forecast = stream.push(history)
            forecast = stream.push([[open, high, low, close, volume]])

    May be shared by threads, which then wait for each other. Close it, or leave its `with` block: an open one
    keeps a thread.

    Where the client tries again (`seqserve.Retry`), each answer brings the series' sealed state, and after a
    call that breaks a new one goes on from there. Servers that share no keys (SEQSERVE_STATE_KEYS) refuse
    each other's states: InvalidArgument.
    """

    def __init__(
        self,
        start: Callable[..., Call[ForecastStreamResponse]],
        attempts: Attempts,
        *,
        model: str,
        version: int,
        horizon: int,
        quantiles: Iterable[SupportsFloat],
    ) -> None:
        super().__init__(model, version, horizon, quantiles, attempts)
        self._start = start
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._begin()

    def push(
        self,
        observations: messages.Observations,
        *,
        series_id: str = "",
        state: bytes | None = None,
        return_state: bool = False,
    ) -> Forecast:
        """Observe more of a series.

        Args:
            observations: new ones, oldest first, of values in the order and units that the model names; of
                the first push of a series at least as many as the model needs.
            series_id: tells the series of one stream apart.
            state: in the first push of a series, the state of an earlier forecast to go on from;
                `observations` are then what follows it.
            return_state: give the sealed state after these observations with the forecast.

        Returns:
            The forecast after them.

        Raises:
            SeqserveError: this push failed; the series is as it was before, and the stream goes on. Or the
                whole call failed: it is then closed.
            RuntimeError: the stream is closed.
        """
        with self._turn:
            request = self._request(observations, series_id, return_state)
            if self._closed.is_set():
                raise RuntimeError("the stream is closed")
            while True:
                self._address(request, state)
                answer = self._exchange(request)
                outcome = self._outcome(answer, return_state)
                if isinstance(outcome, Forecast):
                    return outcome
                pause_s = None if self._closed.is_set() else self._pause_s(outcome)
                if pause_s is None or self._closed.wait(pause_s):
                    if isinstance(answer, grpc.RpcError):
                        self.close()
                    raise outcome.failure
                if outcome.needs_call:
                    self._begin_again()

    def _exchange(self, request: ForecastStreamRequest) -> ForecastStreamResponse | grpc.RpcError:
        try:
            self._requests.put(request)
            return next(self._call)
        except StopIteration:
            self.close()
            raise ServerFailure("the server ended the stream before its answer") from None
        except grpc.RpcError as error:
            return error
        except BaseException:
            self.close()  # the answer that nobody waited for must not be taken for the next one's
            raise

    def _begin(self) -> None:
        self._requests: SimpleQueue[ForecastStreamRequest | None] = SimpleQueue()
        self._call = self._start(iter(self._requests.get, None), timeout=self._attempts.left_s())

    def _begin_again(self) -> None:
        self._requests.put(None)  # lets go of the thread that sends
        self._call.cancel()
        self._open.clear()
        begun(self._begin)
        if self._closed.is_set():  # while the call began
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None and not self._closed.is_set():
            self._requests.put(None)
            with suppress(grpc.RpcError):
                list(self._call)  # a last word, so that the server counts no cancellation
        self.close()

    def close(self) -> None:
        """Cancel the call, wherever it is. Does nothing after the end."""
        self._closed.set()
        self._call.cancel()
        self._requests.put(None)  # lets go of the thread that sends


def begun(begin: Callable[[], Begun]) -> Begun:
    """What `begin` gives.

    Raises:
        Cancelled: the client is closed, of which gRPC says no more than a ValueError.
    """
    try:
        return begin()
    except ValueError as error:
        raise Cancelled("the client was closed before the answer") from error
