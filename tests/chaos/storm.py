"""Hundreds of connections, each with several short generations in flight: the load under which the engine's
queue is changed from all sides.
"""

import asyncio
import itertools
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
from grpc import aio

from seqserve.v1.text_generation_pb2 import GenerateRequest
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.chaos.outcome import Outcome
from tests.chaos.watching import metrics, resident_bytes, until_idle
from tests.integration.process import ServerProcess

# Each connection brings so many calls at a time.
IN_FLIGHT = 5
# Different requests; their right texts are taken from the quiet server.
_REQUESTS = 60
_PROMPT_STEPS = 5
_MAX_WAITING = 4096


async def storm(repository: Path, model: str, connections: int, seconds: float, alphabet: str) -> Outcome:
    """Run short seeded generations from many connections in closed loops.

    Args:
        repository: folder of models.
        model: that writes.
        connections: each a channel of its own with IN_FLIGHT calls in flight.
        seconds: how long calls are started.
        alphabet: characters of the prompts, at least 12.
    """
    requests = [
        GenerateRequest(
            model=model, prompt=alphabet[seed % _PROMPT_STEPS :][:4], max_tokens=3 + seed % 10, seed=seed
        )
        for seed in range(_REQUESTS)
    ]
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    slowest_s = 0.0
    async with (
        ServerProcess(repository, {"MAX_WAITING": str(_MAX_WAITING)}) as server,
        AsyncExitStack() as stack,
    ):
        quiet = await stack.enter_async_context(server.channel())
        right = [await _text(quiet, request) for request in requests]
        channels = [
            await stack.enter_async_context(server.channel(use_local_subchannel_pool=1))
            for _ in range(connections)
        ]
        before = resident_bytes(server)
        end = time.monotonic() + seconds
        numbers = itertools.count()

        async def call_again(channel: aio.Channel) -> None:
            nonlocal slowest_s
            while (started := time.monotonic()) < end:
                number = next(numbers) % _REQUESTS
                try:
                    text = await _text(channel, requests[number])
                except aio.AioRpcError as error:
                    codes[error.code().name] += 1
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        wrong.append(f"{error.code().name}: {error.details()}")
                        return
                else:
                    codes["OK"] += 1
                    if text != right[number]:
                        wrong.append(f"seed {number}: {text!r}, not {right[number]!r}")
                slowest_s = max(slowest_s, time.monotonic() - started)

        await asyncio.gather(*(call_again(channel) for channel in channels for _ in range(IN_FLIGHT)))
        if not wrong:
            await until_idle(server)
        after = resident_bytes(server)
        left = {
            name: value
            for name, value in (await metrics(server)).items()
            if name.startswith(("seqserve_active", "seqserve_waiting")) and value
        }
        wrong += [f"{name} is {value:g} after the last call" for name, value in left.items()]
    facts = {
        "answered": float(codes["OK"]),
        "refused (RESOURCE_EXHAUSTED)": float(codes["RESOURCE_EXHAUSTED"]),
        "memory growth, MiB": (after - before) / 2**20,
    }
    load = f"{connections} connections, {IN_FLIGHT} generations in flight on each, {seconds:g} s"
    return Outcome("storm of short generations", sum(codes.values()), load, tuple(wrong), slowest_s, facts)


async def _text(channel: aio.Channel, request: GenerateRequest) -> str:
    return "".join(
        [response.text async for response in TextGenerationStub(channel).Generate(request, timeout=60)]
    )
