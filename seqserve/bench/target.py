"""The server under load: its connections, and one call of any rpc.

Uses grpc.aio directly, so that the load generator costs little; nothing is retried.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
from grpc import aio

from seqserve import arguments
from seqserve.bench.loops import Send
from seqserve.bench.multiplex import ClassifyMultiplexer
from seqserve.bench.record import OK, Call
from seqserve.bench.workload import Rpc
from seqserve.connection import authorization, channel_options
from seqserve.errors import SeqserveError, Unavailable, from_rpc_error
from seqserve.v1.text_classification_pb2 import ClassifyResponse
from seqserve.v1.text_generation_pb2 import GenerateResponse

_METHODS = {
    Rpc.GENERATE: "/seqserve.v1.TextGeneration/Generate",
    Rpc.SCORE: "/seqserve.v1.TextGeneration/Score",
    Rpc.CLASSIFY: "/seqserve.v1.TextClassification/Classify",
    Rpc.CLASSIFY_STREAM: "/seqserve.v1.TextClassification/ClassifyStream",
    Rpc.FORECAST: "/seqserve.v1.Forecasting/Forecast",
}
CONNECT_S = 10.0

# By default the channels of a process share connections, and gRPC retries a rejected call transparently
# if the server has not processed it.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


@dataclass(frozen=True, slots=True)
class Target:
    """The server to load.

    Attributes:
        address: Address of the server.
        credentials: Credentials of encrypted connections, or None for plaintext.
        token: Bearer token sent with every call, or None.
        channels: Number of connections, used round-robin.
    """

    address: str
    credentials: grpc.ChannelCredentials | None = None
    token: str | None = field(default=None, repr=False)
    channels: int = 1

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Sequence[aio.Channel]]:
        """Open the connections and wait until they are ready.

        Raises:
            Unavailable: A connection was not ready within CONNECT_S.
        """
        arguments = channel_options(self.address, _OPTIONS)
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(
                    aio.insecure_channel(self.address, arguments)
                    if self.credentials is None
                    else aio.secure_channel(self.address, self.credentials, arguments)
                )
                for _ in range(self.channels)
            ]
            try:
                async with asyncio.timeout(CONNECT_S):
                    await asyncio.gather(*(channel.channel_ready() for channel in channels))
            except TimeoutError as error:
                raise Unavailable(f"no connection to {self.address} within {CONNECT_S:g} s") from error
            yield channels

    @asynccontextmanager
    async def sender(
        self, rpc: Rpc, channels: Sequence[aio.Channel], requests: Iterator[bytes], deadline_s: float
    ) -> AsyncIterator[Send]:
        """Yield a function that sends the next request over the next connection.

        Args:
            rpc: The rpc to call.
            channels: The connections.
            requests: Serialised requests.
            deadline_s: Deadline of each call in seconds after it is sent; infinity means none. The server
                receives it, except for the messages of a stream.
        """
        timeout_s = arguments.timeout("deadline_s", deadline_s)
        metadata = authorization(self.token)
        method = _METHODS[rpc]
        if rpc is Rpc.GENERATE:
            yield _generate_sender(
                [
                    channel.unary_stream(method, response_deserializer=GenerateResponse.FromString)
                    for channel in channels
                ],
                requests,
                timeout_s,
                metadata,
            )
        elif rpc is Rpc.CLASSIFY_STREAM:
            async with AsyncExitStack() as stack:
                streams = [
                    await stack.enter_async_context(
                        ClassifyMultiplexer(
                            channel.stream_stream(method, response_deserializer=ClassifyResponse.FromString),
                            metadata,
                        )
                    )
                    for channel in channels
                ]
                yield _stream_sender(streams, requests, deadline_s)
        else:
            yield _unary_sender(
                [channel.unary_unary(method) for channel in channels], requests, timeout_s, metadata
            )


def _generate_sender(
    callables: Sequence["aio.UnaryStreamMultiCallable[bytes, GenerateResponse]"],
    requests: Iterator[bytes],
    timeout_s: float | None,
    metadata: Sequence[tuple[str, str]],
) -> Send:
    turn = itertools.cycle(callables)

    async def send(call: Call) -> None:
        now = asyncio.get_running_loop().time
        try:
            async for message in next(turn)(next(requests), timeout=timeout_s, metadata=metadata):
                if message.token_count:
                    call.arrivals.append((now(), message.token_count))
        except grpc.RpcError as error:
            _fail(call, from_rpc_error(error))
        else:
            call.code = OK

    return send


def _unary_sender(
    callables: Sequence["aio.UnaryUnaryMultiCallable[bytes, bytes]"],
    requests: Iterator[bytes],
    timeout_s: float | None,
    metadata: Sequence[tuple[str, str]],
) -> Send:
    turn = itertools.cycle(callables)

    async def send(call: Call) -> None:
        try:
            await next(turn)(next(requests), timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            _fail(call, from_rpc_error(error))
        else:
            call.code = OK

    return send


def _stream_sender(
    streams: Sequence[ClassifyMultiplexer], requests: Iterator[bytes], deadline_s: float
) -> Send:
    turn = itertools.cycle(streams)

    async def send(call: Call) -> None:
        try:
            await next(turn).ask(next(requests), deadline_s)
        except SeqserveError as error:
            _fail(call, error)
        else:
            call.code = OK

    return send


def _fail(call: Call, failure: SeqserveError) -> None:
    call.code = f"{failure.code.name} {failure.reason}".rstrip()
    call.message = str(failure)
