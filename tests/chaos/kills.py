"""Replicas killed at random moments under streams of text, which must go on as if nothing had happened."""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path

from seqserve.aio import AsyncClient
from tests.chaos.fleet import Fleet
from tests.chaos.outcome import Outcome
from tests.chaos.texts import Told, losses, tell_all, wishes

REPLICAS = 3


async def kill_replicas(
    repository: Path,
    model: str,
    streams: int,
    max_tokens: int,
    kills: int,
    seed: int,
    alphabet: str = "",
    settings: Mapping[str, str] | None = None,
) -> Outcome:
    """SIGKILL one of three replicas after the other under streams of text, starting each again on its port.

    Args:
        repository: folder of models.
        model: that writes.
        streams: side by side, again and again until there have been enough kills.
        max_tokens: of each text.
        kills: at least.
        seed: of the moments.
        alphabet: characters for the prompts; "": English ones.
        settings: of each replica.
    """
    asked = wishes(model, streams, max_tokens, alphabet)
    chance = random.Random(seed)
    lost: list[str] = []
    gaps = [0.0]
    killed, texts = 0, 0
    async with Fleet(repository, REPLICAS, settings) as fleet, AsyncClient(fleet.target) as client:
        right: list[Told] = []
        for one in await tell_all(client, asked):
            if isinstance(one, BaseException):
                raise one
            right.append(one)
        while killed < kills:
            telling = asyncio.create_task(tell_all(client, asked))
            while not telling.done():
                await asyncio.sleep(chance.uniform(0.05, 0.6))
                if telling.done():
                    break
                index = chance.randrange(REPLICAS)
                await fleet.kill(index)
                killed += 1
                await fleet.start(index)
            found = await telling
            texts += len(found)
            lost += losses(asked, right, found)
            gaps += [one.longest_gap_s for one in found if isinstance(one, Told)]
    calm = max(one.longest_gap_s for one in right)
    load = f"{texts} texts of {max_tokens} characters, {streams} at a time"
    return Outcome(
        "replica killed (SIGKILL), 3 behind round robin",
        killed,
        load,
        tuple(lost),
        max(gaps),
        {"longest gap undisturbed, s": calm},
    )
