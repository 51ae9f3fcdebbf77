"""Rolling restarts: every replica is told to stop and started again while everything goes on."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from seqserve.aio import AsyncClient
from tests.chaos.fleet import Fleet
from tests.chaos.outcome import Outcome
from tests.chaos.texts import Told, losses, tell_all, wishes

REPLICAS = 3
SETTINGS = {"GRACE_SECONDS": "0.3", "DRAIN_SECONDS": "0.5"}


async def restart_replicas(
    repository: Path,
    model: str,
    ask: Callable[[AsyncClient], Awaitable[object]],
    rounds: int,
    max_tokens: int,
    alphabet: str = "",
    settings: Mapping[str, str] | None = None,
) -> Outcome:
    """SIGTERM each replica in turn, wait for its end and start it again, under unary calls in closed loops
    and streams that outlast the drain.

    Args:
        repository: folder of models.
        model: that writes.
        ask: a unary call; the same answer each time.
        rounds: through all replicas.
        max_tokens: of each text.
        alphabet: characters for the prompts; "": English ones.
        settings: further ones of each replica.
    """
    asked = wishes(model, 8, max_tokens, alphabet)
    lost: list[str] = []
    slowest = 0.0
    answers: Counter[str] = Counter()
    over = asyncio.Event()

    async def loop(client: AsyncClient, right: object) -> None:
        nonlocal slowest
        while not over.is_set():
            started = time.monotonic()
            try:
                found = await ask(client)
            except Exception as error:
                lost.append(f"unary call: {type(error).__name__}: {error}")
            else:
                answers["unary"] += 1
                if found != right:
                    lost.append(f"unary call: {found}, not {right}")
            slowest = max(slowest, time.monotonic() - started)

    async def write(client: AsyncClient, right: list[Told]) -> None:
        while not over.is_set():
            found = await tell_all(client, asked)
            answers["texts"] += len(found)
            lost.extend(losses(asked, right, found))

    async with (
        Fleet(repository, REPLICAS, SETTINGS | dict(settings or {})) as fleet,
        AsyncClient(fleet.target) as client,
    ):
        right_answer = await ask(client)
        right = [one for one in await tell_all(client, asked) if isinstance(one, Told)]
        assert len(right) == len(asked)
        work = [asyncio.create_task(loop(client, right_answer)) for _ in range(8)] + [
            asyncio.create_task(write(client, right))
        ]
        for _ in range(rounds):
            for index in range(REPLICAS):
                await fleet.stop(index)
                await fleet.start(index)
        over.set()
        await asyncio.gather(*work)
        lost += [f"exit status {status}" for status in fleet.statuses if status]
        restarts = len(fleet.statuses)
    load = f"{answers['unary']} unary calls, {answers['texts']} texts of {max_tokens} characters"
    return Outcome(
        "rolling restart (SIGTERM), 3 behind round robin", restarts, load, tuple(lost), slowest, {}
    )
