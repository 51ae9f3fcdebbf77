"""A server whose stderr is a pipe that nobody reads: it answers, counts the lines that it drops, and ends."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from seqserve.v1.models_pb2 import ListModelsRequest
from tests.chaos.fleet import free_ports
from tests.integration.calls import Calls
from tests.integration.process import ROOT, ServerProcess
from tests.integration.test_lifecycle import get, sample

PATIENCE_S = 120
# Calls between two looks at the number of dropped lines, and those that run at a time.
NUM_CALLS, AT_ONCE = 2000, 200


class UnreadServer(ServerProcess):
    """Server on given ports, as nobody reads where it listens."""

    reading: int

    async def start(self) -> None:
        self.grpc_port, self.http_port = free_ports(2)
        for name, port in (("GRPC", self.grpc_port), ("HTTP", self.http_port)):
            self._environment[f"SEQSERVE_{name}_ADDRESS"] = f"127.0.0.1:{port}"
        self.reading, writing = os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", cwd=ROOT, env=self._environment, stderr=writing
        )
        os.close(writing)
        self._reader = asyncio.create_task(asyncio.sleep(0))
        async with self.channel(initial_reconnect_backoff_ms=100) as channel:
            await channel.channel_ready()


@asynccontextmanager
async def unread(repository: Path) -> AsyncIterator[UnreadServer]:
    server = UnreadServer(repository, {"LOG_CALLS": "true", "LOG_LEVEL": "debug"})
    try:
        await server.start()
        await server.wait_for_health("")
        yield server
    finally:
        await server.stop()
        os.close(server.reading)


async def test_unread_stderr_holds_up_neither_calls_nor_probes_nor_the_end(tiny_repository: Path) -> None:
    async with asyncio.timeout(PATIENCE_S), unread(tiny_repository) as server:
        async with server.channel() as channel:
            calls = Calls(channel)

            async def call(number: int) -> None:
                for _ in range(number):
                    await calls.models.List(ListModelsRequest(), metadata=(("x-request-id", "x" * 128),))

            while not await sample(server, "seqserve_log_lines_dropped_total"):
                await asyncio.gather(*(call(NUM_CALLS // AT_ONCE) for _ in range(AT_ONCE)))
            await call(1)
        for check in ("readyz", "livez"):
            assert (await get(f"{server.http}/{check}"))[0] == 200
        started = asyncio.get_running_loop().time()
        assert await server.stop() == 0
        assert asyncio.get_running_loop().time() - started < 15
