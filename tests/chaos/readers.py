"""Callers who never read: their own rows pause, others keep their pace."""

import asyncio
import time
from pathlib import Path
from typing import Any

from grpc import aio

from seqserve.aio import AsyncClient
from seqserve.v1.text_generation_pb2 import GenerateRequest
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.chaos.outcome import Outcome
from tests.chaos.texts import Told, losses, tell_all, wishes
from tests.chaos.watching import metrics, resident_bytes, until_idle
from tests.integration.process import ServerProcess

# The least that HTTP/2 and gRPC let a client do: it holds back its reading after a few messages.
SMALL_WINDOW = {"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}


async def stop_reading(
    repository: Path, model: str, readers: int, max_tokens: int, alphabet: str = ""
) -> Outcome:
    """Streams whose callers read one message and no more, under streams that are read.

    Args:
        repository: folder of models.
        model: that writes.
        readers: who never read.
        max_tokens: of each text that is read.
        alphabet: characters for the prompts; "": English ones.
    """
    asked = wishes(model, 8, max_tokens, alphabet)
    async with ServerProcess(repository) as server, AsyncClient(server.address) as client:
        started = time.monotonic()
        right = [one for one in await tell_all(client, asked) if isinstance(one, Told)]
        calm_s = time.monotonic() - started
        before = resident_bytes(server)
        async with server.channel(**SMALL_WINDOW, use_local_subchannel_pool=1) as channel:
            stuck = [_stuck(channel, model, seed) for seed in range(readers)]
            for call in stuck:
                await call.read()
            paused_at = await _until_paused(server, model)
            started = time.monotonic()
            found = await tell_all(client, asked)
            beside_s = time.monotonic() - started
            after = resident_bytes(server)
            for call in stuck:
                call.cancel()
        await until_idle(server)
    facts = {
        "tokens generated for those who never read, each": paused_at / readers,
        "time of the others / time without them": beside_s / calm_s,
        "memory grown, MiB": (after - before) / 2**20,
    }
    return Outcome(
        "callers who never read",
        readers,
        f"{len(asked)} texts of {max_tokens} characters beside them",
        tuple(losses(asked, right, found)),
        beside_s - calm_s,
        facts,
    )


def _stuck(channel: aio.Channel, model: str, seed: int) -> Any:
    return TextGenerationStub(channel).Generate(GenerateRequest(model=model, max_tokens=100_000, seed=seed))


async def _until_paused(server: ServerProcess, model: str) -> float:
    """Wait until no more tokens are generated; how many were since the start of the wait."""
    name = f'seqserve_tokens_generated_total{{model="{model}"}}'
    first = last = (await metrics(server))[name]
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.3)
            now = (await metrics(server))[name]
            if now == last:
                return now - first
            last = now
