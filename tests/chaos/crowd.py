"""One caller's thousand requests beside another's one."""

import asyncio
import time
from pathlib import Path
from typing import Any

from grpc import aio

from seqserve.v1.text_generation_pb2 import GenerateRequest, ScoreRequest
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.chaos.outcome import Outcome
from tests.chaos.watching import metrics
from tests.integration.process import ServerProcess


async def crowd(repository: Path, model: str, text: str, many: int, tries: int) -> Outcome:
    """Many endless generations from one connection; then, again and again, one short call from another.

    Args:
        repository: folder of models.
        model: that writes and scores.
        text: scored by the short call.
        many: generations of the one caller, four times as many as there are slots.
        tries: calls of the other.
    """
    lost = []
    alone_s, beside_s = [], []
    async with (
        ServerProcess(repository, {"SLOTS": str(many // 4)}) as server,
        server.channel(use_local_subchannel_pool=1) as greedy,
        server.channel() as modest,
    ):
        score = TextGenerationStub(modest).Score
        request = ScoreRequest(model=model, texts=[text])
        right = await score(request)
        for _ in range(tries):
            alone_s.append((await _timed(score, request))[0])
        calls = [
            TextGenerationStub(greedy).Generate(GenerateRequest(model=model, max_tokens=100_000, seed=seed))
            for seed in range(many)
        ]
        reading = [asyncio.create_task(_read(call)) for call in calls]
        await _until_waiting(server, model)
        for _ in range(tries):
            try:
                took_s, found = await _timed(score, request)
            except aio.AioRpcError as error:
                lost.append(f"{error.code().name}: {error.details()}")
            else:
                beside_s.append(took_s)
                if found != right:
                    lost.append("another answer than alone")
        paused = (await metrics(server)).get(f'seqserve_paused_total{{model="{model}"}}', 0.0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    facts = {
        "slowest alone, s": max(alone_s),
        "slowest beside them, s": max(beside_s, default=0.0),
        "rows paused for others": paused,
    }
    return Outcome(
        "one caller's endless generations",
        many,
        f"{tries} short calls of another",
        tuple(lost),
        max(beside_s, default=0.0),
        facts,
    )


async def _timed(score: Any, request: ScoreRequest) -> tuple[float, object]:
    started = time.monotonic()
    found = await score(request, timeout=30)
    return time.monotonic() - started, found


async def _read(call: Any) -> None:
    async for _ in call:
        pass


async def _until_waiting(server: ServerProcess, model: str) -> None:
    """Wait until all slots are taken and somebody waits."""
    name = f'seqserve_waiting_sequences{{model="{model}"}}'
    async with asyncio.timeout(60):
        while not (await metrics(server))[name]:  # noqa: ASYNC110 - another process has no event to await
            await asyncio.sleep(0.05)
