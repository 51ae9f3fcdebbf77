"""Many requests of every kind and length, and what the server still holds afterwards."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from seqserve.aio import AsyncClient
from seqserve.errors import InvalidArgument
from tests.chaos.outcome import Outcome
from tests.chaos.watching import metrics, open_files, resident_bytes, threads, until_idle
from tests.integration.process import ServerProcess
from tests.tiny import COLUMNS, VOCABULARY, WORDS

LOOPS = 16
# Of all requests so many in a hundred leave before their answer.
LEAVING = 3
# Small enough to be full when memory is looked at first: what grows later is not a cache that fills.
PROMPT_CACHE_BYTES = 1 << 20


class Mix:
    """Requests of every kind to the tiny models, drawn at random.

    Args:
        client: connected.
        chance: decides.
    """

    def __init__(self, client: AsyncClient, chance: random.Random) -> None:
        self._client = client
        self._chance = chance
        self._kinds: tuple[Callable[[], Awaitable[object]], ...] = (
            self._generate,
            self._score,
            self._classify,
            self._forecast,
            self._wrong,
        )

    async def ask(self) -> None:
        """One request, from which some leave early."""
        request = self._chance.choices(self._kinds, (30, 20, 30, 15, 5))[0]()
        if self._chance.randrange(100) < LEAVING:
            task = asyncio.ensure_future(request)
            await asyncio.sleep(self._chance.uniform(0, 0.01))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            await request

    def _text(self, least: int, most: int) -> str:
        return "".join(self._chance.choices(VOCABULARY, k=self._chance.randint(least, most)))

    async def _generate(self) -> None:
        count = self._chance.randint(1, 200)
        told = await self._client.generate(
            self._text(0, 60), model="letters", max_tokens=count, seed=self._chance.getrandbits(64)
        ).read()
        assert len(told.text) == count

    async def _score(self) -> None:
        texts = [self._text(2, 200) for _ in range(self._chance.randint(1, 4))]
        assert len(await self._client.score(texts, model="letters")) == len(texts)

    async def _classify(self) -> None:
        texts = [
            " ".join(self._chance.choices(WORDS, k=self._chance.randint(1, 120)))
            for _ in range(self._chance.randint(1, 8))
        ]
        assert len(await self._client.classify(texts, model="moods")) == len(texts)

    async def _forecast(self) -> None:
        rows = [[self._chance.uniform(1, 100) for _ in COLUMNS] for _ in range(self._chance.randint(7, 80))]
        assert len(await self._client.forecast([rows], model="prices")) == 1

    async def _wrong(self) -> None:
        try:
            await self._client.classify([], model="moods")
        except InvalidArgument:
            return
        raise AssertionError("no text is no request")


async def soak(repository: Path, requests: int, warm: int) -> Outcome:
    """Closed loops of mixed requests of random lengths, some of which leave early.

    Args:
        repository: with the tiny models.
        requests: in all.
        warm: after so many memory is looked at first.
    """
    chance = random.Random(1)
    lost: list[str] = []
    slowest = 0.0
    async with (
        ServerProcess(
            repository, {"PROMPT_CACHE_BYTES": str(PROMPT_CACHE_BYTES), "ENGINE_DRIVER": "thread"}
        ) as server,
        AsyncClient(server.address) as client,
    ):
        mix = Mix(client, chance)
        left = itertools.count()

        async def run(until: int) -> None:
            async def loop() -> None:
                nonlocal slowest
                while next(left) < until:
                    started = time.monotonic()
                    try:
                        await mix.ask()
                    except Exception as error:
                        lost.append(f"{type(error).__name__}: {error}")
                    slowest = max(slowest, time.monotonic() - started)

            await asyncio.gather(*(loop() for _ in range(LOOPS)))

        await run(warm)
        await until_idle(server)
        before = (resident_bytes(server), open_files(server), threads(server))
        await run(requests)
        await until_idle(server)
        after = (resident_bytes(server), open_files(server), threads(server))
        cancelled = sum(
            value
            for name, value in (await metrics(server)).items()
            if name.startswith("seqserve_cancelled_total")
        )
    facts = {
        "memory growth, %": 100 * (after[0] / before[0] - 1),
        "memory at the end, MiB": after[0] / 2**20,
        "file descriptors gained": after[1] - before[1],
        "threads gained": after[2] - before[2],
        "sequences cancelled": cancelled,
    }
    return Outcome(
        "soak: random lengths, 3 in 100 leave early",
        requests,
        f"{LOOPS} at a time, every rpc",
        tuple(lost),
        slowest,
        facts,
    )
