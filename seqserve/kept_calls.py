"""Streams whose sequences are kept on the server, in the blocking client."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc

from seqserve.errors import ClientClosed, SeqserveError, ServerFailure
from seqserve.kept import Failure, Item, KeptStreamCore, Request, Response, Round

Message_co = TypeVar("Message_co", covariant=True)


class StreamCall(Protocol[Message_co]):
    """The interface of a grpc streaming call that the blocking client uses."""

    def __iter__(self) -> Iterator[Message_co]:
        """Iterate over the messages as they arrive; raises grpc.RpcError."""

    def __next__(self) -> Message_co:
        """Return the next message; raises grpc.RpcError."""

    def cancel(self) -> object:
        """Cancel the call."""


class KeptStream(KeptStreamCore[Request, Response, Item]):
    """A stream to which messages are pushed; threads may share it, and their pushes run one at a time.

    Args:
        method: The method of a stub that opens the call.
    """

    def __init__(self, method: Callable[..., StreamCall[Response]]) -> None:
        self._method: Callable[..., StreamCall[Response]] = method
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._open_call()

    def _send_one(self, request: Request, returns_state: bool) -> Item:
        """Send a message and return its result.

        Raises:
            SeqserveError: The message or the call failed.
        """
        (outcome,) = self._send([request], returns_state)
        if isinstance(outcome, SeqserveError):
            raise outcome
        return outcome

    def _send(self, requests: Sequence[Request], returns_state: bool) -> list[Item | SeqserveError]:
        """Send messages of different sequences together.

        Returns:
            The result of each message, or why it failed, in their order.

        Raises:
            SeqserveError: The call failed. The stream is then closed.
        """
        sent = Round[Request, Item](requests, returns_state)
        while sent.waiting and (failure := self._exchange(sent)) is not None:
            delay_s = None if self._closed.is_set() else self._delay_s(failure)
            if delay_s is None or self._closed.wait(delay_s):
                self._give_up(sent, failure)
            elif failure.needs_call:
                self._reopen_call()
        return [sent.outcomes[request.id] for request in requests]

    def _exchange(self, sent: Round[Request, Item]) -> Failure | None:
        """Send the messages that wait, and receive an answer to each.

        Returns:
            The failure of the call, or of a message that may be sent again, or None.
        """
        prepared = self._prepare(sent)
        try:
            for request in prepared:
                self._requests.put(request)
            for _ in prepared:
                self._receive(sent, next(self._call))
        except StopIteration:
            self.close()
            raise ServerFailure("the server ended the stream before its answer") from None
        except grpc.RpcError as error:
            return self._call_failure(error)
        except BaseException:
            self.close()  # otherwise the next push would read the answer to this one
            raise
        return sent.failure

    def _open_call(self) -> None:
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._call: StreamCall[Response] = self._link.call(
            self._method, iter(self._requests.get, None), timeout=self._attempts.remaining_s()
        )

    def _check_open(self) -> None:
        self._link.check()
        if self._closed.is_set():
            raise ClientClosed("the stream is closed")

    def _reopen_call(self) -> None:
        self._requests.put(None)  # ends the sending thread
        self._call.cancel()
        self._open_ids.clear()
        self._open_call()
        if self._closed.is_set():  # close() ran while the call started
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None and not self._closed.is_set():
            self._requests.put(None)
            with suppress(grpc.RpcError):
                list(self._call)  # read the status, so that the server does not count a cancellation
        self.close()

    def close(self) -> None:
        """Cancel the call. Has no effect after the end."""
        self._closed.set()
        self._call.cancel()
        self._requests.put(None)  # ends the sending thread
