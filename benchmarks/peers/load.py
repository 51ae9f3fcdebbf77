"""The closed loop of the rows against peers: over one connection or several, each call's time kept by its
request.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import numpy as np
from grpc import aio
from numpy.typing import NDArray

from benchmarks import client


@dataclass(frozen=True, slots=True)
class Seen:
    """What a closed loop saw.

    Attributes:
        answers: in the order of the requests.
        latencies_ms: float64 (N,), milliseconds from each call's start to its answer.
        usage: CPU time of both sides.
    """

    answers: list[bytes]
    latencies_ms: NDArray[np.float64]
    usage: client.Usage

    def percentile(self, percent: float, chosen: NDArray[np.bool_] | None = None) -> float:
        """Return a percentile of the latencies, of all requests or of the chosen ones, milliseconds."""
        latencies = self.latencies_ms if chosen is None else self.latencies_ms[chosen]
        return float(np.percentile(latencies, percent))


async def closed_loop(
    server: client.Target, method: str, requests: Sequence[bytes], in_flight: int, connections: int = 1
) -> Seen:
    """Send unary calls, so many at a time, the next when one is answered.

    Args:
        server: to call.
        method: the full name of the rpc.
        requests: serialised.
        in_flight: calls at a time, over all connections.
        connections: how many connections share the calls.
    """
    answers, latencies = [b""] * len(requests), np.zeros(len(requests))
    numbered = iter(enumerate(requests))

    async def worker(channel: aio.Channel) -> None:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        for index, request in numbered:
            started = time.perf_counter()
            answers[index] = await call(request)
            latencies[index] = time.perf_counter() - started

    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(client.connection(server)) for _ in range(connections)]
        usage = client.Usage(server)
        async with asyncio.TaskGroup() as group:
            for number in range(in_flight):
                group.create_task(worker(channels[number % connections]))
        usage.stop()
    assert all(answers), "an answer is empty"
    return Seen(answers, 1000 * latencies, usage)
