"""Replicas on ports of their own, killed and started again on the same ones."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.process import ServerProcess


class Fleet:
    """So many servers of one repository; a context that starts and ends them.

    Args:
        repository: folder of models.
        count: of replicas.
        settings: further SEQSERVE_* variables of each, without the prefix.
    """

    def __init__(self, repository: Path, count: int, settings: Mapping[str, str] | None = None) -> None:
        self._repository = repository
        self._settings = dict(settings or {})
        self._ports = free_ports(count)
        self.servers: list[ServerProcess | None] = [None] * count
        self.statuses: list[int] = []

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*map(self.start, range(len(self.servers))))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def target(self) -> str:
        """Every replica's address, as gRPC's client takes them."""
        return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def server(self, index: int) -> ServerProcess:
        """A replica that runs."""
        server = self.servers[index]
        assert server is not None, f"replica {index} does not run"
        return server

    async def start(self, index: int) -> None:
        """Start a replica and wait until it serves."""
        server = ServerProcess(
            self._repository, {**self._settings, "GRPC_ADDRESS": f"127.0.0.1:{self._ports[index]}"}
        )
        self.servers[index] = server
        await server.start()
        await server.wait_for_event("serving")

    async def kill(self, index: int) -> None:
        """SIGKILL, and wait until it is gone."""
        server, self.servers[index] = self.server(index), None
        server.kill()
        await server.ended()

    async def stop(self, index: int) -> None:
        """SIGTERM, and wait for the drained end; its exit status is kept."""
        server, self.servers[index] = self.server(index), None
        self.statuses.append(await server.stop())

    async def _end(self) -> None:
        await asyncio.gather(*(server.stop() for server in self.servers if server is not None))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
