"""Signals in the middle of calls: a process that stands still for a while, or is told to stop many times."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.v1.text_generation_pb2 import GenerateRequest
from tests.integration.calls import Calls, forecast_request
from tests.integration.process import SERVING, ServerProcess
from tests.integration.test_lifecycle import get, rest_of
from tests.integration.test_state import DAYS

# Some of the streams are read from before the process stands still, the others are not.
STREAMS, BEGUN = 12, 6
STOPPED_S = 1.0
# More than the server makes ahead of those who read.
TOKENS = 5_000
PATIENCE_S = 60
SIZES = {"SLOTS": "16", "CHUNK": "8", "CHUNK_ROWS": "8", "ENGINES": "1"}


def request(seed: int) -> GenerateRequest:
    return GenerateRequest(model="letters", prompt="abc", max_tokens=TOKENS, seed=seed)


async def text_of(calls: Calls, seed: int) -> str:
    return "".join([one.text async for one in calls.generation.Generate(request(seed))])


async def test_streams_of_a_process_that_stood_still_come_out_right(tiny_repository: Path) -> None:
    """As when a machine is paused or swaps: nothing is lost, and the process is healthy afterwards."""
    async with (
        ServerProcess(tiny_repository, SIZES) as server,
        server.channel() as channel,
        asyncio.timeout(PATIENCE_S),
    ):
        calls = Calls(channel)
        right = await asyncio.gather(*(text_of(calls, seed) for seed in range(3)))
        running = [calls.generation.Generate(request(seed % 3)) for seed in range(STREAMS)]
        first = [(await one.read()).text for one in running[:BEGUN]]
        os.kill(server.pid, signal.SIGSTOP)
        try:
            beside = asyncio.ensure_future(calls.classify(["good"]))
            done, _ = await asyncio.wait({beside}, timeout=STOPPED_S)
            assert not done
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert (await beside)[0].label
        rest = await asyncio.gather(*(rest_of(one) for one in running))
        begun = first + [""] * (STREAMS - BEGUN)
        texts = [
            before + "".join(one.text for one in pieces) for before, pieces in zip(begun, rest, strict=True)
        ]
        assert texts == [right[seed % 3] for seed in range(STREAMS)]
        assert (await calls.forecasting.Forecast(forecast_request([DAYS]))).forecasts
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == SERVING
        assert (await get(f"{server.http}/livez"))[0] == 200
        assert [event for event in server.events if event["level"] == "error"] == []


async def test_twenty_sigterms_within_a_second_are_one_drain(tiny_repository: Path) -> None:
    server = ServerProcess(tiny_repository, SIZES)
    await server.start()
    await server.wait_for_health("")
    async with server.channel() as channel, asyncio.timeout(PATIENCE_S):
        calls = Calls(channel)
        running = [calls.generation.Generate(request(seed)) for seed in range(3)]
        begun = [(await one.read()).text for one in running]
        for number in range(20):
            with suppress(ProcessLookupError):  # on a slow machine it may have ended before the last ones
                os.kill(server.pid, signal.SIGINT if number % 5 == 4 else signal.SIGTERM)
            await asyncio.sleep(0.05)  # twenty within a second
        rest = await asyncio.gather(*(rest_of(one) for one in running))
        texts = [
            before + "".join(one.text for one in pieces) for before, pieces in zip(begun, rest, strict=True)
        ]
        assert [len(text) for text in texts] == [TOKENS] * 3
    assert await server.ended() == 0
    names = [event["event"] for event in server.events]
    assert (names.count("draining"), names.count("stopped")) == (1, 1)
    assert [event for event in server.events if event["level"] == "error"] == []
    assert server.other_output == []


async def test_sigterms_while_models_load_end_the_start_cleanly(tiny_repository: Path) -> None:
    server = ServerProcess(tiny_repository, SIZES)
    await server.start()
    for _ in range(5):
        server.terminate()
    assert await server.ended() == 0
    assert server.other_output == []
