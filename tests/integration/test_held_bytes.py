"""Memory of the real server while callers send much, or parts of much."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest_asyncio

from seqserve.v1.forecasting_pb2 import ForecastStreamRequest
from service.api.held_bytes import CALL_BYTES, MESSAGE_FACTOR, min_held_bytes
from service.api.sessions import SESSION_BYTES
from tests.chaos.watching import metrics
from tests.deaf import deaf
from tests.half_sent import half_sent
from tests.integration.calls import Calls, forecast_request
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import sample
from tests.integration.test_tasks import prices

CLASSIFY = "/seqserve.v1.TextClassification/Classify"
STREAM = "/seqserve.v1.TextClassification/ClassifyStream"
LOAD = "/seqserve.v1.Models/Load"
LIST = "/seqserve.v1.Models/List"
MESSAGE_BYTES = 1 << 20
HELD_BYTES = 2 * min_held_bytes(MESSAGE_BYTES)
RESOURCE_EXHAUSTED, UNAUTHENTICATED = 8, 16
RESIDENT = "process_resident_memory_bytes"
PATIENCE_S = 30
QUICK_S = 5
SETTINGS = {"MAX_MESSAGE_BYTES": str(MESSAGE_BYTES), "MAX_HELD_BYTES": str(HELD_BYTES)}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tiny_repository, SETTINGS) as server:
        async with server.channel() as channel:
            await Calls(channel).classify(["good"])
        yield server


async def held(server: ServerProcess) -> float:
    return await sample(server, "seqserve_held_bytes")


async def nothing_held(server: ServerProcess) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await held(server):  # noqa: ASYNC110 -- the metric has to be asked for
            await asyncio.sleep(0.05)


async def newcomer_is_served(server: ServerProcess) -> None:
    async with asyncio.timeout(QUICK_S), server.channel(use_local_subchannel_pool=1) as channel:
        assert (await Calls(channel).classify(["good"]))[0].label


async def test_half_sent_messages_of_one_connection_are_bounded(target: ServerProcess) -> None:
    """Each of 300 calls sends all of a message but its end."""
    count, part = 300, b"\0" * (MESSAGE_BYTES - 1)
    may_wait = HELD_BYTES // 2 // MESSAGE_BYTES
    before = await sample(target, RESIDENT)
    async with asyncio.timeout(PATIENCE_S), half_sent(target.grpc_port) as connection:
        streams = [connection.begin(CLASSIFY, MESSAGE_BYTES) for _ in range(count)]
        sending = asyncio.gather(*(connection.send(stream, part) for stream in streams))
        codes = await connection.ended(count - may_wait)
        assert set(codes) == {RESOURCE_EXHAUSTED}
        await newcomer_is_served(target)
        assert await held(target) <= HELD_BYTES
        # Some arrives before a call counts as slow, on a busy machine more.
        assert await sample(target, RESIDENT) - before < count * MESSAGE_BYTES // 2
        sending.cancel()
    await nothing_held(target)


async def test_half_sent_messages_of_streams_leave_others_alone(target: ServerProcess) -> None:
    async with asyncio.timeout(PATIENCE_S), half_sent(target.grpc_port) as connection:
        streams = [connection.begin(STREAM, MESSAGE_BYTES) for _ in range(20)]
        await asyncio.gather(*(connection.send(stream, b"\0" * 50_000) for stream in streams))
        await newcomer_is_served(target)
    await nothing_held(target)


async def test_message_of_a_caller_without_a_token_is_not_read(tiny_repository: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("predict shop 3f0c3f0c3f0c3f0c3f0c3f0c3f0c3f0c\n")
    async with (
        ServerProcess(tiny_repository, {"TOKENS": str(tokens)}) as server,
        asyncio.timeout(PATIENCE_S),
        half_sent(server.grpc_port) as connection,
    ):
        for path in (CLASSIFY, STREAM, LOAD):
            connection.begin(path, MESSAGE_BYTES)
        assert await connection.ended(3) == [UNAUTHENTICATED] * 3


async def test_requests_that_hold_too_much_are_refused_and_others_are_served(target: ServerProcess) -> None:
    """A caller may hold half of all: some of its large requests run, the others are refused at once."""
    texts = ["good film " * 4_000] * 10
    before = await sample(target, RESIDENT)

    async def code_of(calls: Calls) -> grpc.StatusCode:
        try:
            await calls.classify(texts)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async with asyncio.timeout(PATIENCE_S), server_channel(target) as channel:
        asking = asyncio.gather(*(code_of(Calls(channel)) for _ in range(100)))
        await newcomer_is_served(target)
        codes = await asking
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) >= HELD_BYTES // 2 // (MESSAGE_FACTOR * MESSAGE_BYTES)
    assert await sample(target, RESIDENT) - before < HELD_BYTES
    await nothing_held(target)


async def test_answers_that_are_not_read_are_held(target: ServerProcess) -> None:
    count = 1_500
    before = await sample(target, RESIDENT)
    async with asyncio.timeout(PATIENCE_S), deaf(target.grpc_port) as peer:
        await peer.call(LIST, [b""] * count)
        await newcomer_is_served(target)
        assert HELD_BYTES // 4 < await held(target) <= HELD_BYTES
        assert {RESOURCE_EXHAUSTED} >= set(peer.codes.values())
        assert await sample(target, RESIDENT) - before < 2 * HELD_BYTES
    await nothing_held(target)


async def test_series_that_stay_open_are_held(target: ServerProcess) -> None:
    """A stream whose messages are all answered holds what its series keep."""
    count = 20
    async with asyncio.timeout(PATIENCE_S), server_channel(target) as channel:
        call = Calls(channel).forecasting.ForecastStream()
        for number in range(count):
            [request] = forecast_request([prices(40)]).series
            await call.write(
                ForecastStreamRequest(id=str(number), model="prices", observations=request.observations)
            )
            assert not (await call.read()).HasField("error")
        assert await held(target) >= CALL_BYTES + count * SESSION_BYTES
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    await nothing_held(target)


async def test_cached_prompts_are_counted(target: ServerProcess) -> None:
    async with server_channel(target) as channel:
        await Calls(channel).generate(prompt="abc" * 100, max_tokens=1, seed=1)
    name = 'seqserve_prompt_cache_bytes{model="letters"}'
    cached = (await metrics(target))[name]
    assert cached > 0
    async with asyncio.timeout(PATIENCE_S):
        while await held(target) != cached:  # noqa: ASYNC110 -- the metric has to be asked for
            await asyncio.sleep(0.05)


def server_channel(server: ServerProcess) -> grpc.aio.Channel:
    return server.channel(use_local_subchannel_pool=1)
