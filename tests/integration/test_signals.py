"""Signals in the middle of calls: a process that stands still for a while, or is told to stop many times."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.v1.text_generation_pb2 import GenerateRequest
from service.signals import SAME_S, STOP_SIGNALS
from tests.integration.calls import Calls, forecast_request
from tests.integration.process import SERVING, ServerProcess
from tests.integration.test_drain import end_of
from tests.integration.test_lifecycle import LONG, get, rest_of
from tests.integration.test_state import DAYS

# Some of the streams are read from before the process stands still, the others are not.
STREAMS, BEGUN = 12, 6
STOPPED_S = 1.0
# More than the server makes ahead of those who read.
TOKENS = 5_000
PATIENCE_S = 60
POLL_S = 0.005
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


@asynccontextmanager
async def streaming(repository: Path, **settings: str) -> AsyncIterator[tuple[ServerProcess, list[Any]]]:
    """A server with three streams that never end by themselves, and have begun."""
    server = ServerProcess(
        repository, {**SIZES, "STREAM_INTERVAL_MS": "100", "STREAM_BUFFER": "10", **settings}
    )
    await server.start()
    await server.wait_for_health("")
    async with server.channel() as channel, asyncio.timeout(PATIENCE_S):
        calls = Calls(channel)
        running = [calls.generation.Generate(LONG) for _ in range(3)]
        for one in running:
            await one.read()
        yield server, running


def names_of(server: ServerProcess) -> list[str]:
    return [event["event"] for event in server.events]


async def test_second_signal_ends_running_calls_as_unavailable_at_once(tiny_repository: Path) -> None:
    """It was ignored in the drain. A terminal that closes besides makes no second request."""
    async with streaming(tiny_repository, GRACE_SECONDS="600", DRAIN_SECONDS="600") as (server, running):
        os.kill(server.pid, signal.SIGTERM)
        await server.wait_for_event("draining")
        os.kill(server.pid, signal.SIGHUP)
        for _ in range(20):
            if server.is_running:
                os.kill(server.pid, signal.SIGINT)
            await asyncio.sleep(SAME_S / 2)  # signals that come together are one request
        for one in running:
            found = await end_of(one)
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "WITHDRAWN")
        assert await server.ended() == 0
    names = names_of(server)
    assert [names.count(one) for one in ("stopping", "stopping at once", "draining", "stopped")] == [1] * 4
    assert [event for event in server.events if event["level"] == "error"] == []
    assert server.other_output == []


async def test_closed_terminal_drains_and_the_log_may_be_gone(tiny_repository: Path) -> None:
    """SIGHUP ended the process without a drain."""
    server = ServerProcess(tiny_repository, SIZES)
    await server.start()
    await server.wait_for_health("")
    async with server.channel() as channel, asyncio.timeout(PATIENCE_S):
        running = Calls(channel).generation.Generate(request(0))
        text = (await running.read()).text
        os.kill(server.pid, signal.SIGHUP)
        text += "".join(one.text for one in await rest_of(running))
    assert len(text) == TOKENS
    assert await server.ended() == 0
    assert server.other_output == []


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_signal_before_the_server_listens_ends_it_in_order(
    tiny_repository: Path, number: signal.Signals
) -> None:
    """It ended the process with a trace, or without a drain."""
    server = ServerProcess(tiny_repository, SIZES)
    await server.spawn()
    await asyncio.to_thread(wait_until_held, server.pid)
    os.kill(server.pid, number)
    assert await server.ended() == 0
    assert not {"listening", "serving"} & set(names_of(server))
    assert server.other_output == []


async def test_sigterm_to_the_first_process_of_a_container_is_not_lost(tiny_repository: Path) -> None:
    server = ServerProcess(tiny_repository, SIZES)
    await server.spawn("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    first = await asyncio.to_thread(child_of, server.pid)
    if first is None:
        await server.ended()
        pytest.skip(f"unshare cannot make a process namespace here: {server.other_output}")
    await asyncio.to_thread(wait_until_held, first)
    os.kill(first, signal.SIGTERM)
    assert await server.ended() == 0
    assert "serving" not in names_of(server)


def child_of(pid: int) -> int | None:
    """Wait for the child of a process; None where the process ends without one."""
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        try:
            if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                return int(children[0])
        except (FileNotFoundError, ProcessLookupError):
            return None
        time.sleep(POLL_S)
    raise TimeoutError


def wait_until_held(pid: int) -> None:
    """Wait until the service has installed its handlers, the last of which is SIGHUP's."""
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        [caught] = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")]
        if caught >> (signal.SIGHUP - 1) & 1:
            return
        time.sleep(POLL_S)
    raise TimeoutError


async def test_group_signal_while_models_load_ends_the_start_cleanly(tiny_repository: Path) -> None:
    """As Ctrl-C does it: the process of the trials gets the signal, too."""
    server = ServerProcess(tiny_repository, SIZES)
    await server.spawn(is_group=True)
    await server.wait_for_event("listening")
    for _ in range(2):
        os.killpg(server.pid, signal.SIGINT)
    assert await server.ended() == 0
    assert "serving" not in names_of(server)
    assert [event for event in server.events if event["level"] == "error"] == []
    assert server.other_output == []
