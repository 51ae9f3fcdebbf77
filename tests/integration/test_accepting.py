"""Paths that are not UTF-8, over a socket: grpc.aio's accept loop ends at the first."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import get, rest_of, sample
from tests.raw import NOT_UTF8, status_of

# A newcomer's call, from connecting to its answer.
SOON_S = 1.0
PATIENCE_S = 30.0
UNIMPLEMENTED = b"12"
# So slow that the stream is still running when the attack is over.
SLOW = {"STREAM_INTERVAL_MS": "20", "STREAM_BUFFER": "10"}
LONG = generation.GenerateRequest(model="letters", prompt="abc", max_tokens=2000, temperature=0.0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tiny_repository, SLOW) as server:
        yield server


async def attack(server: ServerProcess, path: bytes, connections: int, times: int) -> None:
    """Call a path on several connections at once, several times on each; every call has its answer."""
    attacks = [status_of("127.0.0.1", server.grpc_port, path, times) for _ in range(connections)]
    assert await asyncio.gather(*attacks) == [[UNIMPLEMENTED] * times] * connections


async def newcomer_is_answered(server: ServerProcess) -> None:
    async with asyncio.timeout(SOON_S), server.channel(use_local_subchannel_pool=1) as channel:
        assert (await Calls(channel).classify(["good"]))[0].label


@pytest.mark.parametrize(("connections", "times"), [(1, 1), (1, 10), (10, 1), (5, 5)])
async def test_newcomer_is_answered_after_bad_paths(
    target: ServerProcess,
    connections: int,
    times: int,
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await newcomer_is_answered(target)  # what is slow at first is not what is tested
        await attack(target, NOT_UTF8, connections, times)
        await newcomer_is_answered(target)
        for check in ("readyz", "livez"):
            assert (await get(f"{target.http}/{check}"))[0] == 200
    assert await sample(target, "seqserve_listener_restarts_total") == 0
    assert [event for event in target.events if event["level"] == "error"] == []
    assert target.other_output == []


async def test_stream_that_is_running_is_whole(target: ServerProcess) -> None:
    async with asyncio.timeout(PATIENCE_S), target.channel() as channel:
        calls = Calls(channel)
        alone = await calls.generate(prompt=LONG.prompt, max_tokens=LONG.max_tokens, temperature=0.0)
        running = calls.generation.Generate(LONG)
        text = (await running.read()).text
        await attack(target, NOT_UTF8, connections=3, times=3)
        await newcomer_is_answered(target)
        text += "".join(message.text for message in await rest_of(running))
        assert text == alone.text
        assert len(text) == LONG.max_tokens


@pytest.mark.parametrize("path", [b"", b"/", b"\xff" * 9000, b"/seqserve.v1.TextClassification/Classify\xff"])
async def test_other_paths_that_are_no_method(target: ServerProcess, path: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await attack(target, path, connections=2, times=2)
        await newcomer_is_answered(target)
