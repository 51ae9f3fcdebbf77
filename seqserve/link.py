"""A client's way to its server: whether it may call, and why a call failed."""

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
        self.check_process()

    def check_process(self) -> None:
        """Raise if the process was forked after the client was made.

        Raises:
            WrongContext: It was; gRPC's threads and sockets stayed in the parent.
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
