"""Streams whose sequences are kept on the server, in the asyncio client."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import grpc
import grpc.aio

from seqserve.errors import ClientClosed, SeqserveError, ServerFailure
from seqserve.kept import Failure, Item, KeptStreamCore, Request, Response, Round
from seqserve.waiting import is_task_cancelled, wait_until_set


class AsyncKeptStream(KeptStreamCore[Request, Response, Item]):
    """A stream to which messages are pushed; tasks may share it, and their pushes run one at a time.

    Args:
        method: The method of a stub that opens the call.
    """

    def __init__(self, method: Callable[..., grpc.aio.StreamStreamCall[Request, Response]]) -> None:
        self._method: Callable[..., grpc.aio.StreamStreamCall[Request, Response]] = method
        self._turn = asyncio.Lock()
        self._closed = asyncio.Event()
        self._call: grpc.aio.StreamStreamCall[Request, Response] = self._open_call()

    async def _send_one(self, request: Request, returns_state: bool) -> Item:
        """Send a message and return its result.

        Raises:
            SeqserveError: The message or the call failed.
        """
        (outcome,) = await self._send([request], returns_state)
        if isinstance(outcome, SeqserveError):
            raise outcome
        return outcome

    async def _send(self, requests: Sequence[Request], returns_state: bool) -> list[Item | SeqserveError]:
        """Send messages of different sequences together.

        Returns:
            The result of each message, or why it failed, in their order.

        Raises:
            SeqserveError: The call failed. The stream is then closed.
        """
        sent = Round[Request, Item](requests, returns_state)
        try:
            while sent.waiting and (failure := await self._exchange(sent)) is not None:
                delay_s = None if self._closed.is_set() else self._delay_s(failure)
                if delay_s is None or await wait_until_set(self._closed, delay_s):
                    self._give_up(sent, failure)
                elif failure.needs_call:
                    self._reopen_call()
        except BaseException as error:
            if not isinstance(error, SeqserveError):
                self.close()  # otherwise the next push would read the answer to this one
            raise
        return [sent.outcomes[request.id] for request in requests]

    async def _exchange(self, sent: Round[Request, Item]) -> Failure | None:
        """Send the messages that wait, and receive an answer to each.

        Returns:
            The failure of the call, or of a message that may be sent again, or None.
        """
        prepared = self._prepare(sent)
        # Written beside the reading: the server takes no further message while too many answers wait.
        # The task is never cancelled, since that would cancel the call; it ends with the call at the latest.
        writing = asyncio.ensure_future(self._write(self._call, prepared))
        try:
            for _ in prepared:
                answer = await self._call.read()
                if answer is grpc.aio.EOF:
                    self.close()
                    raise ServerFailure("the server ended the stream before its answer")
                self._receive(sent, cast("Response", answer))
            await writing
        except grpc.RpcError as error:
            return self._call_failure(error)
        except asyncio.CancelledError as error:
            self.close()
            if is_task_cancelled():
                raise
            raise ClientClosed("the client was closed before the answer") from error
        except SeqserveError:
            self.close()
            raise
        return sent.failure

    async def _write(
        self, call: grpc.aio.StreamStreamCall[Request, Response], requests: Sequence[Request]
    ) -> None:
        # A call that has failed takes no message; read() raises its status.
        with suppress(asyncio.InvalidStateError, grpc.RpcError):
            for request in requests:
                await call.write(request)

    def _open_call(self) -> grpc.aio.StreamStreamCall[Request, Response]:
        return self._link.call(self._method, timeout=self._attempts.remaining_s())

    def _check_open(self) -> None:
        self._link.check()
        if self._closed.is_set():
            raise ClientClosed("the stream is closed")

    def _reopen_call(self) -> None:
        self._call.cancel()
        self._open_ids.clear()
        self._call = self._open_call()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None and not self._closed.is_set():
            with suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
                await self._call.read()  # so that the server does not count a cancellation
        self.close()

    def close(self) -> None:
        """Cancel the call. Has no effect after the end."""
        self._closed.set()
        self._call.cancel()
