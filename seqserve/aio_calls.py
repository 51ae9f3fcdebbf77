"""Streams of the client for asyncio, class for class the twin of `seqserve.calls`, where the arguments are
described.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self, SupportsFloat, TypeVar

import grpc
import grpc.aio

from seqserve import messages
from seqserve.errors import Cancelled, SeqserveError, ServerFailure, from_rpc_error
from seqserve.results import ClassifyAnswer, Forecast, Generation, TextPiece
from seqserve.retry import Attempts
from seqserve.streams import ClassifyFeed, ClassifyItem, Item, Response, SeriesFeed, StreamMeaning, TextSoFar
from seqserve.v1.forecasting_pb2 import ForecastStreamRequest, ForecastStreamResponse
from seqserve.v1.text_classification_pb2 import ClassifyRequest, ClassifyResponse
from seqserve.v1.text_generation_pb2 import GenerateRequest, GenerateResponse

Message_co = TypeVar("Message_co", covariant=True)
Begun = TypeVar("Begun")


class AsyncCall(Protocol[Message_co]):
    """A streaming call of grpc.aio, as far as it is used here."""

    def __aiter__(self) -> AsyncIterator[Message_co]:
        """Messages as they arrive; raises grpc.aio.AioRpcError."""

    def cancel(self) -> object:
        """End the call now."""


class AsyncStream(StreamMeaning[Response, Item]):
    """Items as they arrive, once.

    The call is cancelled by `close()`, by leaving an `async with` block, by cancelling the task that reads,
    and, once the event loop comes to it, by leaving an `async for` loop before the end. Iterating raises a
    SeqserveError when the call fails.
    """

    def __init__(self, begin: Callable[[], AsyncCall[Response]]) -> None:
        self._begin = begin
        self._closed = asyncio.Event()
        self._call = begin()

    async def __aiter__(self) -> AsyncIterator[Item]:
        try:
            while True:
                try:
                    async for response in self._call:
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
                except asyncio.CancelledError as error:
                    if is_task_cancelled():
                        raise
                    if self._closed.is_set():
                        return
                    raise Cancelled("the client was closed before the end of the stream") from error
                if await is_set_within(self._closed, pause_s):
                    return
                self._call = begun(self._begin)
            self._check_end()
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call, wherever it is; what has arrived stays. Does nothing after the end."""
        self._closed.set()
        self._call.cancel()


class AsyncTextStream(TextSoFar, AsyncStream[GenerateResponse, TextPiece]):
    """A text being generated: iterate over its pieces, or `await read()` it whole. It goes on after a call
    that breaks, as `TextStream` does.
    """

    def __init__(
        self, start: Callable[..., AsyncCall[GenerateResponse]], request: GenerateRequest, attempts: Attempts
    ) -> None:
        TextSoFar.__init__(self, request, attempts)
        AsyncStream.__init__(self, lambda: start(self._rest(), timeout=attempts.left_s()))

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
    """Answers in order of completion, matched to their requests by id. It goes on after a call that breaks,
    as `ClassifyStream` does.
    """

    def __init__(
        self,
        start: Callable[..., AsyncCall[ClassifyResponse]],
        items: AsyncIterable[ClassifyItem] | Iterable[ClassifyItem],
        attempts: Attempts,
        *,
        model: str,
        version: int,
    ) -> None:
        ClassifyFeed.__init__(self, model, version, attempts)
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._pulling: asyncio.Task[None] | None = None
        AsyncStream.__init__(
            self, lambda: start(self._requests(*self._unanswered_again()), timeout=attempts.left_s())
        )

    async def _requests(
        self, call_number: int, again: list[ClassifyRequest]
    ) -> AsyncIterator[ClassifyRequest]:
        for request in again:
            yield request
        while (following := await self._next(call_number)) is not None:
            yield following

    async def _next(self, call_number: int) -> ClassifyRequest | None:
        if not self._pulled and not self._has_ended:
            if isinstance(self._items, AsyncIterator):
                # gRPC cancels who asks when the call breaks. The iterable must not notice: it is asked once,
                # and the answer kept for the next call.
                self._pulling = self._pulling or asyncio.create_task(self._pull_from(self._items))
                await asyncio.shield(self._pulling)
            else:
                try:
                    self._pull(next(self._items))
                except StopIteration:
                    self._end_requests()
                except Exception as error:
                    self._end_requests(error)
        return self._hand_out(call_number)

    async def _pull_from(self, items: AsyncIterator[ClassifyItem]) -> None:
        try:
            self._pull(await anext(items))
        except StopAsyncIteration:
            self._end_requests()
        except Exception as error:
            self._end_requests(error)
        finally:
            self._pulling = None

    def close(self) -> None:
        """Cancel the call, wherever it is; what has arrived stays. Does nothing after the end."""
        super().close()
        if self._pulling is not None:
            self._pulling.cancel()


class AsyncForecastStream(SeriesFeed):
    """Series kept open at the server, where each new observation costs one step of the network.

    May be shared by tasks, which then wait for each other.
    """

    def __init__(
        self,
        start: Callable[..., grpc.aio.StreamStreamCall[ForecastStreamRequest, ForecastStreamResponse]],
        attempts: Attempts,
        *,
        model: str,
        version: int,
        horizon: int,
        quantiles: Iterable[SupportsFloat],
    ) -> None:
        super().__init__(model, version, horizon, quantiles, attempts)
        self._start = start
        self._turn = asyncio.Lock()
        self._closed = asyncio.Event()
        self._call = self._begin()

    async def push(
        self,
        observations: messages.Observations,
        *,
        series_id: str = "",
        state: bytes | None = None,
        return_state: bool = False,
    ) -> Forecast:
        """Observe more of a series; the forecast after it.

        Raises:
            SeqserveError: this push failed; the series is as it was before, and the stream goes on. Or the
                whole call failed: it is then closed.
            RuntimeError: the stream is closed.
        """
        async with self._turn:
            request = self._request(observations, series_id, return_state)
            if self._closed.is_set():
                raise RuntimeError("the stream is closed")
            try:
                return await self._forecast(request, state, return_state)
            except BaseException as error:
                if not isinstance(error, SeqserveError):
                    self.close()  # the answer that nobody waited for must not be taken for the next one's
                raise

    async def _forecast(
        self, request: ForecastStreamRequest, state: bytes | None, return_state: bool
    ) -> Forecast:
        while True:
            self._address(request, state)
            answer = await self._exchange(request)
            outcome = self._outcome(answer, return_state)
            if isinstance(outcome, Forecast):
                return outcome
            pause_s = None if self._closed.is_set() else self._pause_s(outcome)
            if pause_s is None or await is_set_within(self._closed, pause_s):
                if isinstance(answer, grpc.RpcError):
                    self.close()
                raise outcome.failure
            if outcome.needs_call:
                self._call.cancel()
                self._open.clear()
                self._call = begun(self._begin)

    async def _exchange(self, request: ForecastStreamRequest) -> ForecastStreamResponse | grpc.RpcError:
        try:
            with suppress(asyncio.InvalidStateError):  # the call has failed meanwhile; reading says how
                await self._call.write(request)
            response = await self._call.read()
        except grpc.RpcError as error:
            return error
        except asyncio.CancelledError as error:
            self.close()
            if is_task_cancelled():
                raise
            raise Cancelled("the client was closed before the answer") from error
        if not isinstance(response, ForecastStreamResponse):
            self.close()
            raise ServerFailure("the server ended the stream before its answer")
        return response

    def _begin(self) -> grpc.aio.StreamStreamCall[ForecastStreamRequest, ForecastStreamResponse]:
        return self._start(timeout=self._attempts.left_s())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None and not self._closed.is_set():
            with suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
                await self._call.read()  # a last word, so that the server counts no cancellation
        self.close()

    def close(self) -> None:
        """Cancel the call, wherever it is. Does nothing after the end."""
        self._closed.set()
        self._call.cancel()


def begun(begin: Callable[[], Begun]) -> Begun:
    """What `begin` gives.

    Raises:
        Cancelled: the client is closed.
    """
    try:
        return begin()
    except grpc.aio.UsageError as error:
        raise Cancelled("the client was closed before the answer") from error


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` is set, at the latest after so many seconds."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def is_task_cancelled() -> bool:
    """Whether somebody cancelled the running task. grpc.aio raises CancelledError, too, where only the call
    was cancelled.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
