"""The server that the playground calls: one client for all tabs, and its health, told to all tabs."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.aio import AsyncClient
from seqserve.connection import authorization, channel_options
from seqserve.errors import SeqserveError, Unavailable, from_rpc_error
from seqserve.playground.errors import sentence
from seqserve.retry import Retry

_RECONNECT_S: Final = 1.0
_CHECK_TIMEOUT_S: Final = 5.0
# Few retries: somebody waits at the page, and the banner says when the server is back.
_RETRY: Final = Retry(attempts=3)


class Status(StrEnum):
    """Status of the server, as far as it is known."""

    CONNECTING = "connecting"
    SERVING = "serving"
    NOT_SERVING = "not serving"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Health:
    """Status of the server, and what to do about it; no advice while it serves."""

    status: Status
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Address and credentials with which the server is called.

    Attributes:
        address: Address of the server, as checked.
        credentials: Credentials of an encrypted connection, or None.
        token: Token to send with every call, or None.
        timeout_s: Timeout of a unary call in seconds.
    """

    address: str
    credentials: grpc.ChannelCredentials | None = None
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0


_LOADING: Final = Health(
    Status.NOT_SERVING,
    "The server answers, and does not serve yet, or no longer: it loads its models, or it drains.",
)


class Server:
    """The server as all tabs see it. Its methods are called in one event loop.

    Args:
        target: How it is called.

    Attributes:
        client: Client that all tabs share.
        health: What is known of it now.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._listeners: set[Callable[[Health], None]] = set()
        self.client = AsyncClient(
            target.address,
            credentials=target.credentials,
            token=target.token,
            timeout_s=target.timeout_s,
            retry=_RETRY,
        )
        self.health = Health(Status.CONNECTING)
        self._watching: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Address of the server."""
        return self._target.address

    @property
    def has_tls(self) -> bool:
        """True if the connection is encrypted."""
        return self._target.credentials is not None

    def describe(self, error: SeqserveError) -> str:
        """Describe the failure of a call to this server in a sentence."""
        return sentence(error, self.address, has_tls=self.has_tls)

    def open(self) -> None:
        """Start to watch the server's health, in the running event loop."""
        options = channel_options(self.address)
        self._channel = (
            grpc.aio.insecure_channel(self.address, options)
            if self._target.credentials is None
            else grpc.aio.secure_channel(self.address, self._target.credentials, options)
        )
        self._stub = health_pb2_grpc.HealthStub(self._channel)
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop to watch, and close the connections."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            await self._channel.close()
        await self.client.close()

    def listen(self, listener: Callable[[Health], None]) -> Callable[[], None]:
        """Call a function with the health now and at each change; return what ends that."""
        self._listeners.add(listener)
        listener(self.health)
        return lambda: self._listeners.discard(listener)

    async def until_serving(self) -> None:
        """Wait until the server serves; return at once if it does."""
        serves = asyncio.Event()
        forget = self.listen(lambda health: serves.set() if health.status is Status.SERVING else None)
        try:
            await serves.wait()
        finally:
            forget()

    async def check(self, name: str) -> str:
        """Return the status of a health name: "serving", "not serving" or "unknown".

        Args:
            name: Full name of a service, or model/NAME.

        Raises:
            SeqserveError: The call failed.
        """
        request = health_pb2.HealthCheckRequest(service=name)
        metadata = authorization(self._target.token)
        try:
            found = await self._stub.Check(request, timeout=_CHECK_TIMEOUT_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return "unknown"
            raise from_rpc_error(error) from error
        return "serving" if found.status == health_pb2.HealthCheckResponse.SERVING else "not serving"

    async def _watch(self) -> None:
        """Follow the health of the whole server, and connect again after each end of the stream."""
        request = health_pb2.HealthCheckRequest(service="")
        while True:
            try:
                async for response in self._stub.Watch(request, metadata=authorization(self._target.token)):
                    is_serving = response.status == health_pb2.HealthCheckResponse.SERVING
                    self._tell(Health(Status.SERVING) if is_serving else _LOADING)
            except grpc.aio.AioRpcError as error:
                self._tell(self._health_of(from_rpc_error(error)))
            await asyncio.sleep(_RECONNECT_S)

    def _health_of(self, error: SeqserveError) -> Health:
        status = Status.UNREACHABLE if isinstance(error, Unavailable) else Status.NOT_SERVING
        return Health(status, self.describe(error))

    def _tell(self, health: Health) -> None:
        if health != self.health:
            self.health = health
            for listener in tuple(self._listeners):
                listener(health)
