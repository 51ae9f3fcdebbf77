"""The streams of the asyncio client.

Its classes match those of `seqserve.calls`, which describes the arguments.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Protocol, Self, SupportsFloat, TypeVar

import grpc
import grpc.aio

from seqserve import arguments, messages
from seqserve.aio_kept import AsyncKeptStream
from seqserve.errors import ClientClosed
from seqserve.frames import Frame, ModelColumns, read_observations
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
from seqserve.waiting import is_task_cancelled, wait_until_set

Message_co = TypeVar("Message_co", covariant=True)


class AsyncStreamCall(Protocol[Message_co]):
    """The interface of a grpc.aio streaming call that this module uses."""

    def __aiter__(self) -> AsyncIterator[Message_co]:
        """Iterate over the messages as they arrive; raises grpc.aio.AioRpcError."""

    def cancel(self) -> object:
        """Cancel the call."""


class AsyncStream(StreamCore[Response, Item]):
    """Base class of streams that yield items as they arrive, once.

    The call is cancelled by `close()`, by leaving an `async with` block, by cancelling the reading task, and,
    once the event loop finalizes the iterator, by leaving an `async for` loop early. Iterating raises a
    SeqserveError when the call fails.
    """

    def __init__(self, start: Callable[[], AsyncStreamCall[Response]]) -> None:
        self._open_call = start
        self._closed = asyncio.Event()
        self._call = start()

    async def __aiter__(self) -> AsyncIterator[Item]:
        self._link.check_context()
        try:
            while True:
                try:
                    async for response in self._call:
                        yield self._receive(response)
                    break
                except grpc.RpcError as error:
                    if self._closed.is_set():
                        return
                    delay_s = self._delay_after(error)
                    if delay_s is None:
                        break
                except asyncio.CancelledError as error:
                    if is_task_cancelled():
                        raise
                    if self._closed.is_set():
                        return
                    raise ClientClosed("the client was closed before the end of the stream") from error
                if await wait_until_set(self._closed, delay_s):
                    return
                self._call = self._open_call()
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
        """Cancel the call; the items received remain. Has no effect after the end."""
        self._closed.set()
        self._call.cancel()


class AsyncTextStream(TextStreamCore, AsyncStream[GenerateResponse, TextPiece]):
    """A text being generated: iterate over its pieces, or `await read()` it whole.

    It continues after a failed call, as `TextStream` does.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., AsyncStreamCall[GenerateResponse]],
        request: GenerateRequest,
        attempts: Attempts,
    ) -> None:
        TextStreamCore.__init__(self, link, request, attempts)
        AsyncStream.__init__(
            self, lambda: link.call(method, self._continuation_request(), timeout=attempts.remaining_s())
        )

    async def read(self) -> Generation:
        """Wait for the rest of the text.

        Returns:
            The whole generation, including pieces that were iterated over before.

        Raises:
            SeqserveError: The call failed.
            ClientClosed: The stream was closed before its end.
        """
        async for _ in self:
            pass
        return self._generation()


class AsyncClassifyStream(ClassifyStreamCore, AsyncStream[ClassifyResponse, ClassifyAnswer]):
    """Answers in order of completion, matched to their requests by id.

    It continues after a failed call, as `ClassifyStream` does.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., AsyncStreamCall[ClassifyResponse]],
        items: AsyncIterable[ClassifyItem] | Iterable[ClassifyItem],
        attempts: Attempts,
        *,
        model: str,
        version: int,
    ) -> None:
        ClassifyStreamCore.__init__(self, link, model, version, attempts)
        self._items = (
            aiter(items) if isinstance(items, AsyncIterable) else arguments.iterator("requests", items)
        )
        self._pull_task: asyncio.Task[None] | None = None
        AsyncStream.__init__(
            self,
            lambda: link.call(method, self._requests(*self._start_call()), timeout=attempts.remaining_s()),
        )

    async def _requests(
        self, call_number: int, unanswered: list[ClassifyRequest]
    ) -> AsyncIterator[ClassifyRequest]:
        for request in unanswered:
            yield request
        while (following := await self._next_request(call_number)) is not None:
            yield following

    async def _next_request(self, call_number: int) -> ClassifyRequest | None:
        if not self._queued and not self._requests_ended:
            if isinstance(self._items, AsyncIterator):
                # gRPC cancels this coroutine when the call fails. The shielded task keeps waiting for the
                # iterable, and its request is queued for the next call.
                self._pull_task = self._pull_task or asyncio.create_task(self._enqueue_from(self._items))
                await asyncio.shield(self._pull_task)
            else:
                try:
                    self._enqueue(next(self._items))
                except StopIteration:
                    self._end_requests()
                except Exception as error:
                    self._end_requests(error)
        return self._dequeue(call_number)

    async def _enqueue_from(self, items: AsyncIterator[ClassifyItem]) -> None:
        try:
            self._enqueue(await anext(items))
        except StopAsyncIteration:
            self._end_requests()
        except Exception as error:
            self._end_requests(error)
        finally:
            self._pull_task = None

    def close(self) -> None:
        """Cancel the call; the items received remain. Has no effect after the end."""
        super().close()
        if self._pull_task is not None:
            self._pull_task.cancel()


class AsyncForecastStream(
    ForecastStreamCore, AsyncKeptStream[ForecastStreamRequest, ForecastStreamResponse, Forecast]
):
    """Series kept open on the server, where each new observation costs one step of the network.

    Tasks may share a stream; their pushes run one at a time. A push that is cancelled once it was sent
    closes the stream, so that the next one does not read its answer: `asyncio.wait_for` around a push ends it
    for all tasks.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., grpc.aio.StreamStreamCall[ForecastStreamRequest, ForecastStreamResponse]],
        attempts: Attempts,
        find_columns: Callable[[str, int], Awaitable[ModelColumns]],
        *,
        model: str,
        version: int,
        horizon: int,
        quantiles: Iterable[SupportsFloat],
    ) -> None:
        ForecastStreamCore.__init__(
            self, link, attempts, model=model, version=version, horizon=horizon, quantiles=quantiles
        )
        AsyncKeptStream.__init__(self, method)
        self._find_columns = find_columns

    async def push(
        self,
        observations: messages.Observations,
        *,
        series_id: str = "",
        state: bytes | None = None,
        return_state: bool = False,
    ) -> Forecast:
        """Send new observations of a series and wait for the forecast.

        Raises:
            SeqserveError: The push failed. If the client or the server rejected the message, the series is
                unchanged and the stream continues; if the call failed, the stream is closed.
            ClientClosed: The stream is closed.
        """
        async with self._turn:
            self._check_open()
            request = self._request(series_id, state, return_state)
            found = read_observations("observations", observations)
            if isinstance(found, Frame):
                columns = await self._find_columns(self._model, self._version_of(series_id))
                self._set_frame(request, found, columns)
            else:
                self._set_rows(request, found)
            return await self._send_one(request, return_state)
