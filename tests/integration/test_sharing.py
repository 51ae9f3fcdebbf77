"""Callers who share one server: what one sends neither refuses another nor shows in another's answers."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import aio

from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.test_access import ALONE, TOKENS, bearer
from tests.integration.test_lifecycle import get

PROMPT = "abcdefgh" * 10
LONG_TEXT = "abcdefgh" * 12_000


@asynccontextmanager
async def others_busy(calls: Iterable[Awaitable[object]]) -> AsyncIterator[None]:
    """Run calls beside, and cancel them at the end."""
    running = [asyncio.ensure_future(call) for call in calls]
    try:
        yield
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def wait_for_waiting(server: ServerProcess, count: int) -> None:
    """Wait until so many rows wait for a slot."""
    async with asyncio.timeout(30):
        while await metric(server, "seqserve_waiting_sequences") < count:
            pass


async def metric(server: ServerProcess, name: str) -> float:
    """Return the value of a metric of the model letters."""
    _, text = await get(f"{server.http}/metrics")
    [value] = re.findall(rf'^{name}{{model="letters"}} (\S+)$', text, re.MULTILINE)
    return float(value)


def alone(server: ServerProcess) -> aio.Channel:
    """Return a channel with a connection of its own."""
    return aio.insecure_channel(server.address, options=ALONE)


@pytest.mark.parametrize(
    ("shared", "hits"),
    [
        pytest.param("false", [0, 1, 1, 2], id="by its own token alone"),
        pytest.param("true", [0, 1, 2, 3], id="by every token where the operator says so"),
    ],
)
async def test_cached_prompt_is_found(
    tiny_repository: Path, tmp_path: Path, shared: str, hits: list[int]
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKENS)
    settings = {"TOKENS": str(tokens), "SHARED_PROMPT_CACHE": shared, "ENGINES": "1"}
    found = []
    async with ServerProcess(tiny_repository, settings) as server, server.channel() as channel:
        for token in ("secret-shop", "secret-shop", "secret-keeper", "secret-keeper"):
            request = generation.GenerateRequest(model="letters", prompt=PROMPT, max_tokens=2)
            stream = Calls(channel).generation.Generate(request, metadata=bearer(token))
            assert [one async for one in stream][-1].usage.generated_tokens == 2
            found.append(await metric(server, "seqserve_prompt_cache_hits_total"))
    assert found == hits


async def test_cached_prompt_is_found_by_connections_of_one_address_where_there_are_no_tokens(
    tiny_repository: Path,
) -> None:
    async with ServerProcess(tiny_repository, {"ENGINES": "1"}) as server:
        for hits in (0, 1):
            async with alone(server) as channel:
                await Calls(channel).generate(prompt=PROMPT, max_tokens=2)
            assert await metric(server, "seqserve_prompt_cache_hits_total") == hits


async def test_long_texts_of_one_caller_refuse_no_deadline_of_another(tiny_repository: Path) -> None:
    settings = {
        "SLOTS": "2",
        "ENGINES": "1",
        "MAX_TEXT_LENGTH": "2000000",
        "MAX_ANSWER_BYTES": str(16 << 20),
    }
    request = generation.ScoreRequest(model="letters", texts=["abcdefgh"])
    async with (
        ServerProcess(tiny_repository, settings) as server,
        alone(server) as many,
        alone(server) as few,
        others_busy([Calls(many).score([20 * LONG_TEXT]) for _ in range(12)]),
    ):
        await wait_for_waiting(server, 10)
        for _ in range(10):
            response = await Calls(few).generation.Score(request, timeout=2)
            assert len(response.scores[0].token_logprobs) == 7


@pytest.mark.parametrize("prompts", ["one prompt", "different prompts"])
async def test_long_prompts_that_fill_the_queue_leave_room_for_another_caller(
    tiny_repository: Path, prompts: str
) -> None:
    settings = {"SLOTS": "4", "MAX_WAITING": "32", "ENGINES": "1"}
    texts = [LONG_TEXT if prompts == "one prompt" else f"{LONG_TEXT}{'ab' * n}" for n in range(100)]
    async with (
        ServerProcess(tiny_repository, settings) as server,
        alone(server) as many,
        alone(server) as few,
        others_busy([Calls(many).generate(prompt=text[-99_000:]) for text in texts]),
    ):
        await wait_for_waiting(server, 24)
        for _ in range(10):
            assert len((await Calls(few).generate(prompt="abc", max_tokens=5)).text) == 5
