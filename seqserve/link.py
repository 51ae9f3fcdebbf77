"""A client's way to its server: whether it may call, and why a call failed."""

import asyncio
import os
from collections.abc import Callable
from typing import Final, TypeVar

import grpc
import grpc.aio

from seqserve.address import proxy_variable
from seqserve.errors import ClientClosed, SeqserveError, Unavailable, WrongContext, from_rpc_error

Result = TypeVar("Result")

_CODES_OF_CLOSING: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


class Link:
    """One client's way to its server.

    Args:
        address: Address of the server, as checked.
        metadata: Metadata of every call.
        is_closed: Returns whether the client is closed.
    """

    def __init__(
        self, address: str, metadata: tuple[tuple[str, str], ...], is_closed: Callable[[], bool]
    ) -> None:
        self._address = address
        self._metadata = metadata
        self._is_closed = is_closed
        self._process = os.getpid()

    @property
    def is_of_this_process(self) -> bool:
        """True unless the process was forked after the client was made."""
        return self._process == os.getpid()

    def check(self) -> None:
        """Raise if the client cannot call.

        Raises:
            ClientClosed: The client is closed.
            WrongContext: The process was forked after the client was made.
        """
        if self._is_closed():
            raise ClientClosed("the client is closed; make a new one")
        self.check_context()

    def check_context(self) -> None:
        """Raise if the client belongs elsewhere.

        Raises:
            WrongContext: The process was forked; gRPC's threads and sockets stayed in the parent.
        """
        if not self.is_of_this_process:
            raise WrongContext(
                f"the client was made in process {self._process} and used in {os.getpid()}, forked from it; "
                "make a client in each process"
            )

    def call(self, method: Callable[..., Result], *arguments: object, timeout: float | None) -> Result:
        """Call a method of a stub with the client's metadata.

        Args:
            method: The method.
            *arguments: The request or requests.
            timeout: Seconds for the call; None means no limit.

        Raises:
            ClientClosed: The client is closed; gRPC reports that as a ValueError or UsageError.
            WrongContext: The client belongs to another process.
        """
        self.check()
        try:
            return method(*arguments, timeout=timeout, metadata=self._metadata)
        except (ValueError, grpc.aio.UsageError) as error:
            if not self._is_closed():
                raise
            raise ClientClosed("the client was closed before the answer") from error

    def failure(self, error: grpc.RpcError) -> SeqserveError:
        """Convert a failed call of grpc or grpc.aio; if no server sent the failure, name its address."""
        failure = from_rpc_error(error)
        if self._is_closed() and failure.code in _CODES_OF_CLOSING:
            return ClientClosed("the client was closed before the answer")
        if isinstance(failure, Unavailable) and not error.trailing_metadata():  # no server sent it
            return self._unanswered(failure)
        return failure

    def _unanswered(self, failure: Unavailable) -> Unavailable:
        variable = proxy_variable(self._address, os.environ)
        through = f" (through the proxy of the environment variable {variable})" if variable else ""
        named = Unavailable(f"no answer from {self._address}{through}: {failure}")
        named.address = self._address
        return named


class AsyncLink(Link):
    """The way of an asyncio client, which belongs to the event loop of its first call."""

    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_bound(self) -> bool:
        """True if an event loop was bound."""
        return self._loop is not None

    def bind(self) -> None:
        """Bind the running event loop.

        Raises:
            WrongContext: None runs.
        """
        self._loop = _running_loop()

    def check_context(self) -> None:
        """Raise if the client belongs elsewhere.

        Raises:
            WrongContext: The process was forked, another event loop is bound, or none runs.
        """
        super().check_context()
        if self._loop is not None and self._loop is not _running_loop():
            raise WrongContext(
                "the client belongs to the event loop of its first call, and was used in another; "
                "make an AsyncClient in each event loop"
            )


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise WrongContext(
            "an AsyncClient is used in a running event loop, and none runs here; call it in a coroutine"
        ) from error
