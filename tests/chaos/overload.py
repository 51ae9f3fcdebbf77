"""More than a server can do: what it still does, what it refuses, and how soon it is itself again."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc import aio

from seqserve.v1.text_generation_pb2 import ScoreRequest, ScoreResponse
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.chaos.outcome import Outcome
from tests.chaos.watching import resident_bytes
from tests.integration.process import ServerProcess

DEADLINE_S = 1.0
LOOPS = 64
REFUSALS = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(slots=True)
class Tally:
    """Answers by what they were, with the characters of the right ones; wrong ones as lines."""

    right: int = 0
    characters: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)


class Scorer:
    """Scores texts over one connection and knows the right answers.

    Args:
        channel: to the server.
        requests: some, of many lengths.
        right: their answers.
    """

    def __init__(
        self, channel: aio.Channel, requests: list[ScoreRequest], right: list[ScoreResponse]
    ) -> None:
        self._score = TextGenerationStub(channel).Score
        self._requests = requests
        self._right = right

    async def ask(self, index: int, tally: Tally, timeout_s: float) -> None:
        """One request, counted."""
        which = index % len(self._requests)
        try:
            found = await self._score(self._requests[which], timeout=timeout_s)
        except aio.AioRpcError as error:
            if error.code() in REFUSALS:
                tally.refused[error.code().name] += 1
            else:
                tally.lost.append(f"{error.code().name}: {error.details()}")
        else:
            tally.right += 1
            tally.characters += len(self._requests[which].texts[0])
            if found != self._right[which]:
                tally.lost.append(f"request {which}: another answer than alone")


async def overload(
    repository: Path,
    model: str,
    alphabet: str,
    lengths: tuple[int, int],
    times: float,
    calm_s: float,
    seconds: float,
) -> Outcome:
    """Offer so many times what the server does in closed loops, at random moments (Poisson), each call with a
    deadline of a second.

    Args:
        repository: folder of models.
        model: that scores.
        alphabet: characters of its texts.
        lengths: least and most characters of a text.
        times: of the capacity.
        calm_s: how long the capacity is measured.
        seconds: how long too much is offered.
    """
    chance = random.Random(5)
    texts = ["".join(chance.choices(alphabet, k=chance.randint(*lengths))) for _ in range(64)]
    requests = [ScoreRequest(model=model, texts=[text]) for text in texts]
    async with ServerProcess(repository) as server, server.channel() as channel:
        score = TextGenerationStub(channel).Score
        right = [await score(request) for request in requests]
        scorer = Scorer(channel, requests, right)
        capacity, characters = await _capacity(scorer, calm_s)
        before = resident_bytes(server)
        tally, most = await _offer(server, scorer, capacity * times, seconds)
        recovery = await _recovery(scorer, tally)
        tally.lost += [] if server.is_running else ["the server ended"]
    facts = {
        "capacity, answers/s": capacity,
        "goodput, answers/s": tally.right / seconds,
        "goodput / capacity": tally.right / seconds / capacity,
        "goodput / capacity, by characters": tally.characters / seconds / characters,
        "refused at once (RESOURCE_EXHAUSTED)": tally.refused["RESOURCE_EXHAUSTED"],
        "late (DEADLINE_EXCEEDED)": tally.refused["DEADLINE_EXCEEDED"],
        "memory before, MiB": before / 2**20,
        "memory at most, MiB": most / 2**20,
    }
    return Outcome(
        f"{times:g} x capacity for {seconds:g} s",
        round(capacity * times * seconds),
        "Score calls",
        tuple(tally.lost),
        recovery,
        facts,
    )


async def _capacity(scorer: Scorer, seconds: float) -> tuple[float, float]:
    """Answers and characters a second in closed loops without deadlines."""
    tally = Tally()
    end = time.monotonic() + seconds
    started = time.monotonic()

    async def loop(first: int) -> None:
        index = first
        while time.monotonic() < end:
            await scorer.ask(index, tally, 60)
            index += LOOPS

    await asyncio.gather(*map(loop, range(LOOPS)))
    assert not tally.lost
    assert not tally.refused
    took = time.monotonic() - started
    return tally.right / took, tally.characters / took


async def _offer(server: ServerProcess, scorer: Scorer, rate: float, seconds: float) -> tuple[Tally, int]:
    """Calls at random moments, whatever becomes of them. Returns what became of them, and the most memory
    seen, bytes.
    """
    chance = random.Random(6)
    tally, running, most = Tally(), set(), 0
    start = time.monotonic()
    due, index = 0.0, 0
    while due < seconds:
        if (ahead := start + due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(scorer.ask(index, tally, DEADLINE_S))
        running.add(task)
        task.add_done_callback(running.discard)
        if index % 100 == 0:
            most = max(most, resident_bytes(server))
            await asyncio.sleep(0)
        index += 1
        due += chance.expovariate(rate)
    await asyncio.gather(*running)
    return tally, most


async def _recovery(scorer: Scorer, tally: Tally) -> float:
    """Seconds until a call is answered again."""
    started = time.monotonic()
    again = Tally()
    while not again.right:
        await scorer.ask(0, again, DEADLINE_S)
    tally.lost += again.lost
    return time.monotonic() - started
