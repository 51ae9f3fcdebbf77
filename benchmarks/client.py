"""The load generator: raw grpc.aio with messages serialised beforehand, so that its core has as little to do
as possible.

Requests go out as bytes and answers are kept as bytes; whoever wants to know what is in them parses them
after the clock has stopped.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import grpc
import numpy as np
from grpc import aio
from numpy.typing import NDArray

from benchmarks.rounds import CLIENT_SHARE, Sample

CLASSIFY = "/seqserve.v1.TextClassification/Classify"
CLASSIFY_STREAM = "/seqserve.v1.TextClassification/ClassifyStream"
GENERATE = "/seqserve.v1.TextGeneration/Generate"
FORECAST = "/seqserve.v1.Forecasting/Forecast"
FORECAST_STREAM = "/seqserve.v1.Forecasting/ForecastStream"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

# Note: the server's CPU time for each of what was done.
SERVER_CPU_US = "server CPU us each"

# Timers of the event loop are a millisecond coarse: the last bit before an arrival is spent looking.
_COARSE_S = 0.0015


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of a stream.

    Attributes:
        at: when it came, seconds from the start of its call.
        data: the message.
    """

    at: float
    data: bytes


class Target(Protocol):
    """A running server as the load generator needs it: ours, a baseline's or a peer's."""

    @property
    def address(self) -> str:
        """The address as channels take it."""

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""


class Usage:
    """CPU time of the load generator and of a server over a stretch of time, so that one sees which of them
    was the limit.
    """

    def __init__(self, server: Target) -> None:
        self._server = server
        self._server_s = server.cpu_seconds()
        self._client_s = time.process_time()
        self.wall_s = time.perf_counter()

    def stop(self) -> None:
        """The stretch of time ends."""
        self.wall_s = time.perf_counter() - self.wall_s
        self._client_s = time.process_time() - self._client_s
        self._server_s = self._server.cpu_seconds() - self._server_s

    def notes(self, done: int | None = None) -> dict[str, float]:
        """Both CPU shares, and the server's CPU time for each of what was done."""
        shares = {
            CLIENT_SHARE: 100 * self._client_s / self.wall_s,
            "server CPU %": 100 * self._server_s / self.wall_s,
        }
        return shares if done is None else {**shares, SERVER_CPU_US: 1e6 * self._server_s / done}

    def sample(self, done: int) -> Sample:
        """So much was done: as work a second, and by the server's CPU time."""
        return Sample(done / self.wall_s, done / self._server_s, self.notes(done))


@asynccontextmanager
async def connection(server: Target) -> AsyncIterator[aio.Channel]:
    """A connection of its own."""
    async with aio.insecure_channel(
        server.address, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        await channel.channel_ready()
        yield channel


async def closed_loop(
    channel: aio.Channel,
    method: str,
    requests: Sequence[bytes],
    in_flight: int,
    latencies: list[float] | None = None,
) -> list[bytes]:
    """Send unary calls, so many at a time, the next when one is answered; the answers, in the order of the
    requests.

    Args:
        channel, method, requests: to call.
        in_flight: calls at a time.
        latencies: gets the seconds of each call, in the order of the answers.
    """
    call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    answers = [b""] * len(requests)
    took: list[float] = [] if latencies is None else latencies
    numbered = iter(enumerate(requests))

    async def worker() -> None:
        for index, request in numbered:
            started = time.perf_counter()
            answers[index] = await call(request)
            took.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return answers


async def _sleep_until(due: float) -> None:
    while (left := due - time.perf_counter()) > 0:  # noqa: ASYNC110 - it waits for a time, not for an event
        await asyncio.sleep(left - _COARSE_S if left > _COARSE_S else 0)


async def open_loop(
    channel: aio.Channel, method: str, requests: Sequence[bytes], arrivals: NDArray[np.float64]
) -> "OpenLoop":
    """Send unary calls at given times, whatever has become of the ones before."""
    call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    latencies, lateness = np.full(len(arrivals), np.inf), np.zeros(len(arrivals))
    failures: list[str] = []
    started = time.perf_counter()

    async def one(index: int, due: float) -> None:
        try:
            await call(requests[index])
        except grpc.RpcError as error:
            failures.append(f"{time.perf_counter() - started:.2f} s: {error!r}")
        else:
            latencies[index] = time.perf_counter() - started - due

    async with asyncio.TaskGroup() as group:
        for index, due in enumerate(arrivals.tolist()):
            await _sleep_until(started + due)
            lateness[index] = time.perf_counter() - started - due
            group.create_task(one(index, due))
    return OpenLoop(latencies, lateness, failures)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What an open loop saw.

    Attributes:
        latencies: float64 (N,), seconds from the intended arrival to the answer; infinite where the call
            failed.
        lateness: float64 (N,), seconds by which the load generator itself was late.
        failures: what went wrong, and when.
    """

    latencies: NDArray[np.float64]
    lateness: NDArray[np.float64]
    failures: list[str]


async def _read(stream: "aio.StreamStreamCall[bytes, bytes]") -> bytes | None:
    """The next answer; None at the end."""
    answer = await stream.read()
    return answer if isinstance(answer, bytes) else None


async def stream_windowed(
    channel: aio.Channel, method: str, messages: Sequence[bytes], streams: int, window: int
) -> list[bytes]:
    """Deal messages out to some two-way streams, each with at most `window` of them unanswered; the answers
    as they came, stream by stream.
    """
    call: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)

    async def one(mine: Sequence[bytes]) -> list[bytes]:
        places = asyncio.Semaphore(window)
        stream = call()

        async def write() -> None:
            for message in mine:
                await places.acquire()
                await stream.write(message)
            await stream.done_writing()

        writer = asyncio.ensure_future(write())
        answers: list[bytes] = []
        while (answer := await _read(stream)) is not None:
            answers.append(answer)
            places.release()
        await writer
        return answers

    parts = await asyncio.gather(*(one(messages[first::streams]) for first in range(streams)))
    return [answer for part in parts for answer in part]


async def ping_pong(
    channel: aio.Channel, method: str, messages: Sequence[Sequence[bytes]]
) -> list[list[bytes]]:
    """Two-way streams side by side, one for each list of messages, each waiting for an answer before it sends
    the next; the answers of each.

    Raises:
        grpc.RpcError: a stream ended with an error.
    """
    call: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)

    async def one(mine: Sequence[bytes]) -> list[bytes]:
        stream = call()
        answers: list[bytes] = []
        for message in mine:
            await stream.write(message)
            if (answer := await _read(stream)) is None:
                break
            answers.append(answer)
        else:
            await stream.done_writing()
        if (end := await _read(stream)) is not None:
            answers.append(end)
        return answers

    return list(await asyncio.gather(*map(one, messages)))


async def server_streams(channel: aio.Channel, method: str, requests: Sequence[bytes]) -> list[list[Arrival]]:
    """Start a server stream for each request at once and read all to their ends."""
    call: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)

    async def one(request: bytes) -> list[Arrival]:
        started = time.perf_counter()
        return [Arrival(time.perf_counter() - started, data) async for data in call(request)]

    return list(await asyncio.gather(*map(one, requests)))


def batches(items: Sequence[Any], size: int) -> list[list[Any]]:
    """Lists of so many, the last one shorter."""
    rest = iter(items)
    return list(iter(lambda: list(islice(rest, size)), []))
