"""Envoy by deploy/envoy as a process of its own, between a server and whoever speaks HTTP to it."""

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.chaos.fleet import free_ports
from tests.integration.process import ROOT

DEPLOY = ROOT / "deploy/envoy"
ENVOY = shutil.which("envoy", path=str(ROOT / ".venv-envoy/bin")) or shutil.which("envoy")
MISSING = "Envoy is missing: make .venv-envoy/stamp, or put envoy 1.40 on PATH"
START_LIMIT_S = 30
CALL_LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is one JSON value."""
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The body, which is a JSON value a line."""
        return [json.loads(line) for line in self.body.splitlines()]


class EnvoyProcess:
    """Envoy as deploy/envoy configures it, with other addresses alone.

    Args:
        folder: where its files go.
        upstream: port of the server.
        origin: the one origin whose pages may call.
        ready: what /readyz answers before it counts as started.
    """

    def __init__(self, folder: Path, upstream: int, origin: str, ready: int = 200) -> None:
        self._folder = folder
        self._upstream = upstream
        self._ready = ready
        (self.port,) = free_ports(1)
        self.write_routes(origin)

    async def __aenter__(self) -> Self:
        assert ENVOY is not None
        config = _replaced(
            (DEPLOY / "envoy.yaml").read_text(),
            {
                "port_value: 8081": f"port_value: {self.port}",
                "port_value: 50051": f"port_value: {self._upstream}",
            },
        )
        (self._folder / "envoy.yaml").write_text(config)
        shutil.copy(DEPLOY / "seqserve.binpb", self._folder)
        self._process = await asyncio.create_subprocess_exec(
            *(ENVOY, "--config-path", "envoy.yaml", "--log-level", "warn"),
            *("--disable-hot-restart", "--concurrency", "1"),
            cwd=self._folder,
            stderr=asyncio.subprocess.PIPE,
        )
        self._errors = asyncio.create_task(self._process.communicate())
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._until_ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def write_routes(self, origin: str) -> None:
        """Move a list of origins into its place that has one origin."""
        text = _replaced((DEPLOY / "routes.yaml").read_text(), {"http://localhost:8000": origin})
        new = self._folder / "routes.new"
        new.write_text(text)
        new.rename(self._folder / "routes.yaml")

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the whole answer to one request on a connection of its own."""
        return await asyncio.to_thread(_call, self.port, method, path, body, headers or {})

    async def _until_ready(self) -> None:
        while True:
            assert not self._errors.done(), (await self._errors)[1].decode()
            try:
                if (await self.call("GET", "/readyz")).status == self._ready:
                    return
            except ConnectionError:
                await asyncio.sleep(0.05)

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        _, errors = await self._errors
        assert b"[critical]" not in errors, errors.decode()


def _replaced(text: str, values: Mapping[str, str]) -> str:
    for old, new in values.items():
        assert text.count(old) == 1, f"{old} is {text.count(old)} times in the file"
        text = text.replace(old, new)
    return text


def _call(port: int, method: str, path: str, body: bytes | str | None, headers: Mapping[str, str]) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=CALL_LIMIT_S)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()
