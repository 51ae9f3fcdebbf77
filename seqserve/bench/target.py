"""The server under load: connections, and one call of any rpc. Raw grpc.aio, so that the load generator costs
little; nothing is tried again.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc import aio

from seqserve.bench.loops import Send
from seqserve.bench.multiplex import ClassifyStream
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

# Channels of one process share their connections unless told otherwise, and gRPC sends a refused call again
# where it knows that the server has not seen it.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to load.

    Attributes:
        address: of the server.
        credentials: of encrypted connections; None: in the clear.
        token: sent with every call.
        channels: connections, over which the calls go by turns.
    """

    address: str
    credentials: grpc.ChannelCredentials | None = None
    token: str | None = None
    channels: int = 1

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Sequence[aio.Channel]]:
        """Connections that stand.

        Raises:
            Unavailable: one of them cannot be made.
        """
        arguments = channel_options(_OPTIONS)
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
        """What sends the next request by the next connection.

        Args:
            rpc: which is called.
            channels: that stand.
            requests: serialised.
            deadline_s: of each call from when it is sent. The server knows it, unless the call is one message
                of a stream.
        """
        metadata = authorization(self.token)
        method = _METHODS[rpc]
        if rpc is Rpc.GENERATE:
            yield _reader(
                [
                    channel.unary_stream(method, response_deserializer=GenerateResponse.FromString)
                    for channel in channels
                ],
                requests,
                deadline_s,
                metadata,
            )
        elif rpc is Rpc.CLASSIFY_STREAM:
            async with AsyncExitStack() as stack:
                streams = [
                    await stack.enter_async_context(
                        ClassifyStream(
                            channel.stream_stream(method, response_deserializer=ClassifyResponse.FromString),
                            metadata,
                        )
                    )
                    for channel in channels
                ]
                yield _passer(streams, requests, deadline_s)
        else:
            yield _asker(
                [channel.unary_unary(method) for channel in channels], requests, deadline_s, metadata
            )


def _reader(
    callables: Sequence["aio.UnaryStreamMultiCallable[bytes, GenerateResponse]"],
    requests: Iterator[bytes],
    deadline_s: float,
    metadata: Sequence[tuple[str, str]],
) -> Send:
    turn = itertools.cycle(callables)

    async def send(call: Call) -> None:
        now = asyncio.get_running_loop().time
        try:
            async for message in next(turn)(next(requests), timeout=deadline_s, metadata=metadata):
                if message.token_count:
                    call.arrivals.append((now(), message.token_count))
        except grpc.RpcError as error:
            _fail(call, from_rpc_error(error))
        else:
            call.code = OK

    return send


def _asker(
    callables: Sequence["aio.UnaryUnaryMultiCallable[bytes, bytes]"],
    requests: Iterator[bytes],
    deadline_s: float,
    metadata: Sequence[tuple[str, str]],
) -> Send:
    turn = itertools.cycle(callables)

    async def send(call: Call) -> None:
        try:
            await next(turn)(next(requests), timeout=deadline_s, metadata=metadata)
        except grpc.RpcError as error:
            _fail(call, from_rpc_error(error))
        else:
            call.code = OK

    return send


def _passer(streams: Sequence[ClassifyStream], requests: Iterator[bytes], deadline_s: float) -> Send:
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
