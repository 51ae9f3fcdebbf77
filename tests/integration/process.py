"""The real server as a process of its own: started on free ports, spoken to over gRPC, ended by a signal."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
START_LIMIT_S = 60


@contextmanager
def _default_hangup() -> Iterator[None]:
    """A process started meanwhile does not inherit that SIGHUP is ignored, as it is under nohup."""
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class ServerProcess:
    """`python -m service` with settings from the environment; a context that waits until it serves and ends
    it.

    Args:
        repository: folder of models.
        settings: further SEQSERVE_* variables, without the prefix.
    """

    def __init__(self, repository: Path, settings: Mapping[str, str] | None = None) -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SEQSERVE_")},
            "SEQSERVE_REPOSITORY": str(repository),
            "SEQSERVE_GRPC_ADDRESS": "127.0.0.1:0",
            "SEQSERVE_HTTP_ADDRESS": "127.0.0.1:0",
            "SEQSERVE_LOG_FORMAT": "json",
            **{f"SEQSERVE_{name}": value for name, value in (settings or {}).items()},
        }
        self.events: list[dict[str, Any]] = []
        self.other_output: list[str] = []
        self.grpc_port = 0
        self.http_port = 0
        self._grown = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        await self.wait_for_health("")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def channel(self, **options: Any) -> aio.Channel:
        return aio.insecure_channel(
            self.address, options=[(f"grpc.{name}", value) for name, value in options.items()]
        )

    async def start(self) -> None:
        """Start it and wait until it listens."""
        await self.spawn()
        listening = await self.wait_for_event("listening")
        self.grpc_port, self.http_port = listening["grpc_port"], listening["http_port"]

    async def start_on_console(self) -> None:
        """Start it with a log of console text, and wait until it listens."""
        await self.spawn()
        pattern = r" grpc_port=(\d+) .*http_port=(\d+)"
        while (found := re.search(pattern, "".join(self.other_output))) is None:
            await self.wait_for_output()
        self.grpc_port, self.http_port = map(int, found.groups())

    async def wait_for_event(self, name: str) -> dict[str, Any]:
        """The first log event of that name, now or later."""
        async with asyncio.timeout(START_LIMIT_S):
            while True:
                for event in self.events:
                    if event["event"] == name:
                        return event
                assert not self._reader.done(), f"the server ended: {self.events} {self.other_output}"
                self._grown.clear()
                await self._grown.wait()

    async def wait_for_output(self) -> None:
        """Wait until it writes another line."""
        assert not self._reader.done(), f"the server ended: {self.events} {self.other_output}"
        self._grown.clear()
        async with asyncio.timeout(START_LIMIT_S):
            await self._grown.wait()

    async def wait_for_health(self, service: str, status: int = SERVING) -> None:
        """Watch a health name until it has that status."""
        async with asyncio.timeout(START_LIMIT_S), self.channel() as channel:
            async for response in health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=service)
            ):
                if response.status == status:
                    return

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> int:
        """Wait for the end; the exit status."""
        status = await self._process.wait()
        await self._reader
        return status

    async def stop(self) -> int:
        """End it, by force if need be; the exit status."""
        if self._process.returncode is None:
            self.terminate()
        try:
            async with asyncio.timeout(START_LIMIT_S):
                return await self.ended()
        except TimeoutError:
            self._process.kill()
            raise

    async def run_to_end(self) -> int:
        """Start a server that is expected to stop by itself; the exit status."""
        await self.spawn()
        async with asyncio.timeout(START_LIMIT_S):
            return await self.ended()

    async def spawn(self, *before: str, is_group: bool = False) -> None:
        """Start the process and wait for nothing.

        Args:
            before: program and arguments that start it.
            is_group: whether it gets a process group of its own.
        """
        with _default_hangup():
            self._process = await asyncio.create_subprocess_exec(
                *before,
                sys.executable,
                "-m",
                "service",
                cwd=ROOT,
                env=self._environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                process_group=0 if is_group else None,
            )
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode(errors="backslashreplace")
            if text.startswith("{"):
                self.events.append(json.loads(text))
            else:
                self.other_output.append(text)
            self._grown.set()
        self._grown.set()
