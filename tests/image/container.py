"""A container of the built image: started hardened, spoken to over published loopback ports, stopped as an
orchestrator does.
"""

import asyncio
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

TOOL = shlex.split(os.environ.get("CONTAINER", "podman"))
FLAGS = shlex.split(os.environ.get("CONTAINER_FLAGS", ""))
IMAGE = os.environ.get("IMAGE", "")
SERVING = health_pb2.HealthCheckResponse.SERVING
LIMIT_S = 180
# What docs/image.md recommends. podman mounts writable folders into a read-only root unless told; docker does
# not.
HARDENED = [
    "--read-only",
    *(["--read-only-tmpfs=false"] if "podman" in TOOL[0] else []),
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--pids-limit=256",
]


def missing() -> str:
    """Why containers of the image cannot be run here; empty if they can."""
    if shutil.which(TOOL[0]) is None:
        return f"no {TOOL[0]}: apt-get install podman runc, or set CONTAINER"
    if not IMAGE:
        return "no image: make image-test builds one and runs these"
    return ""


async def call(*arguments: str, succeed: bool = True) -> str:
    """Run the container tool.

    Args:
        arguments: subcommand and what follows.
        succeed: whether an exit status other than 0 is an error.
    Returns:
        Standard output, standard error after it.
    """
    process = await asyncio.create_subprocess_exec(
        *TOOL, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT_S):
        output, errors = await process.communicate()
    text, complaint = output.decode(errors="replace"), errors.decode(errors="replace")
    assert not succeed or process.returncode == 0, f"{arguments}: status {process.returncode}: {complaint}"
    return (text + complaint).strip()


class Container:
    """A running image; a context that waits until it serves and removes it.

    Args:
        settings: SEQSERVE_* variables, without the prefix.
        mounts: folders of this machine, read-only, by their path inside.
        cpus, memory: limits, the latter in MiB.
        image: another than the one under test.
        serves: whether to wait until it serves.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        mounts: Mapping[str, Path] | None = None,
        *,
        cpus: float = 1,
        memory: int = 1024,
        image: str = IMAGE,
        serves: bool = True,
    ) -> None:
        self._arguments = [
            *HARDENED,
            *FLAGS,
            *(f"--publish=127.0.0.1::{port}" for port in (50051, 8080)),
            f"--cpus={cpus}",
            f"--memory={memory}m",
            f"--memory-swap={memory}m",
            *(f"--env=SEQSERVE_{name}={value}" for name, value in (settings or {}).items()),
            *(f"--volume={folder}:{path}:ro" for path, folder in (mounts or {}).items()),
            image,
        ]
        self._serves = serves
        self._identifier = ""
        self.address = self.http = ""

    async def __aenter__(self) -> Self:
        self._identifier = (await call("run", "--detach", "--pull=never", *self._arguments)).splitlines()[0]
        if self._serves:
            await self.wait_until_it_serves()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call("rm", "--force", self._identifier)

    async def wait_until_it_serves(self) -> None:
        """Find the published ports and watch the health service."""
        self.address = await self._published(50051)
        self.http = f"http://{await self._published(8080)}"
        async with asyncio.timeout(LIMIT_S), self.channel() as channel:
            request = health_pb2.HealthCheckRequest()
            async for response in health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True):
                if response.status == SERVING:
                    return

    def channel(self) -> aio.Channel:
        return aio.insecure_channel(self.address)

    async def python(self, program: str, *, succeed: bool = True) -> str:
        """What a program prints that runs inside, as the service's user and with its Python."""
        return await call("exec", self._identifier, "python3", "-c", program, succeed=succeed)

    async def run(self, *command: str, succeed: bool = True) -> str:
        """What a command prints that runs inside."""
        return await call("exec", self._identifier, *command, succeed=succeed)

    async def restart(self) -> None:
        """Start it again after its end, and wait until it serves."""
        await call("start", self._identifier)
        await self.wait_until_it_serves()

    async def stop(self, seconds: int) -> None:
        """Stop it as an orchestrator does: its stop signal, and SIGKILL after that time."""
        await call("stop", f"--time={seconds}", self._identifier)

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        return int((await call("wait", self._identifier)).splitlines()[0])

    async def state(self) -> dict[str, Any]:
        """What the tool knows about it: status, exit status, whether memory ran out."""
        found: dict[str, Any] = json.loads(
            await call("inspect", "--format={{json .State}}", self._identifier)
        )
        return found

    async def events(self, name: str) -> Sequence[dict[str, Any]]:
        """The service's log events of that name."""
        lines = (await call("logs", self._identifier)).splitlines()
        return [
            event
            for event in (json.loads(line) for line in lines if line.startswith("{"))
            if event["event"] == name
        ]

    async def output(self) -> str:
        """All that it wrote."""
        return await call("logs", self._identifier)

    async def _published(self, port: int) -> str:
        return (await call("port", self._identifier, f"{port}/tcp")).splitlines()[0].rpartition(" ")[2]
