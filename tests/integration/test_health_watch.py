"""Watchers of health who never read: they hold up neither the start, nor the others, nor the end."""

import asyncio
from pathlib import Path

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.api.health import MAX_WATCHES
from tests.deaf import deaf
from tests.integration.process import SERVING, ServerProcess
from tests.integration.test_lifecycle import NOT_SERVING, SERVICES, get

PATIENCE_S = 30
NAMES = ("", "model/letters", *SERVICES)
# A drain that lasted as long as it may would be seen; what is expected takes a second more than the grace.
LONG_DRAIN_S, QUICK_END_S = 60, 15


async def ended(server: ServerProcess, within_s: float) -> int:
    async with asyncio.timeout(within_s):
        return await server.ended()


async def test_start_and_end_do_not_wait_for_watchers_who_never_read(tiny_repository: Path) -> None:
    server = ServerProcess(tiny_repository, {"GRACE_SECONDS": "0.5", "DRAIN_SECONDS": str(LONG_DRAIN_S)})
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE_S), deaf(server.grpc_port) as beside, server.channel() as channel:
            await beside.watch([*NAMES] * 9)
            hearing = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            while (await hearing.read()).status != SERVING:
                pass
            await server.wait_for_health("model/letters")
            assert (await get(f"{server.http}/readyz"))[0] == 200
            server.terminate()
            assert (await hearing.read()).status == NOT_SERVING
            assert await hearing.read() is aio.EOF
            assert await ended(server, QUICK_END_S) == 0
        event = "watchers do not read and are cut off"
        [cut] = [one for one in server.events if one["event"] == event]
        assert cut["watches"] == len(NAMES) * 9
        assert [event for event in server.events if event["level"] == "error"] == []
    finally:
        await server.stop()


async def test_watch_too_many_on_a_connection_is_refused(tiny_server: ServerProcess) -> None:
    async with asyncio.timeout(PATIENCE_S), deaf(tiny_server.grpc_port) as greedy:
        await greedy.watch([""] * MAX_WATCHES)
        assert greedy.codes == {}
        await greedy.watch([""] * 3)
        assert list(greedy.codes.values()) == [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]] * 3
        await tiny_server.wait_for_health("")


async def test_watchers_who_break_off_leave_no_error_and_do_not_hold_the_drain(tiny_repository: Path) -> None:
    async with ServerProcess(tiny_repository, {"DRAIN_SECONDS": str(LONG_DRAIN_S)}) as server:
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(3):
                async with deaf(server.grpc_port) as leaving:
                    await leaving.watch([*NAMES] * 8)
            await server.wait_for_health("")
        server.terminate()
        assert await ended(server, QUICK_END_S) == 0
        assert [event for event in server.events if event["level"] == "error"] == []
        assert server.other_output == []
