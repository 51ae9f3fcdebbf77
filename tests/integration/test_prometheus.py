"""Rules and dashboard against a real Prometheus that scrapes a real server."""

import asyncio
import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import yaml

from tests.chaos.fleet import free_ports
from tests.deploy.expressions import RULES, rules, tool, used_by_dashboard
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.tiny import edit_spec

LIMIT_S = 60
JOB = "seqserve"
SETTINGS = {"SLOTS": "16", "CHUNK": "8", "CHUNK_ROWS": "8", "ENGINES": "1", "WATCH_SECONDS": "0.5"}
ROW = (10.0, 11.0, 9.0, 10.5, 1000.0)
# Nothing is refused for lack of room here, and a change of the start's time takes a second start.
WITHOUT_DATA = {"Refused by reason", "Starts"}

Sample = tuple[dict[str, str], float]


class Prometheus:
    """Prometheus' HTTP API.

    Args:
        port: on loopback.
    """

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}"

    async def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            await asyncio.to_thread(self._get, "/-/ready")
        except OSError:
            return False
        return True

    async def query(self, expr: str) -> list[Sample]:
        """What an expression is now: labels and value; one that Prometheus refuses raises."""
        found = json.loads(
            await asyncio.to_thread(self._get, "/api/v1/query?" + urllib.parse.urlencode({"query": expr}))
        )
        assert found["status"] == "success"
        return [(one["metric"], float(one["value"][1])) for one in found["data"]["result"]]

    async def refused_rules(self) -> dict[str, str]:
        """Rules whose evaluation failed, and why."""
        found = json.loads(await asyncio.to_thread(self._get, "/api/v1/rules"))
        return {
            rule["name"]: rule["lastError"]
            for group in found["data"]["groups"]
            for rule in group["rules"]
            if rule.get("lastError")
        }

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self._root + path, timeout=LIMIT_S) as response:  # noqa: S310 - loopback
            return str(response.read().decode())


@asynccontextmanager
async def watched_by_prometheus(server: ServerProcess, folder: Path) -> AsyncIterator[Prometheus]:
    """Prometheus with the rules of deploy/, which looks at the server every second."""
    program, (port,) = tool("prometheus"), free_ports(1)
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": JOB, "static_configs": [{"targets": [f"127.0.0.1:{server.http_port}"]}]}
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        prometheus = Prometheus(port)

        async def is_ready() -> bool:
            assert process.returncode is None, (folder / "prometheus.log").read_text()
            return await prometheus.is_ready()

        await until(is_ready, "Prometheus does not start")
        yield prometheus
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def until(holds: Callable[[], Awaitable[object]], otherwise: str) -> None:
    """Ask again and again, for what Prometheus knows comes with its next scrape."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not await holds():  # noqa: ASYNC110 - another process has no event to await
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"{otherwise}, {LIMIT_S} s long")


@asynccontextmanager
async def called(server: ServerProcess) -> AsyncIterator[None]:
    """Calls of every task go on meanwhile."""
    async with server.channel() as channel:
        calls = Calls(channel)

        async def go_on() -> None:
            while True:
                await asyncio.gather(
                    calls.generate(prompt="abc", max_tokens=12),
                    calls.classify(["a good film"]),
                    calls.forecast([[ROW] * 9]),
                )
                await asyncio.sleep(0.1)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_rules_and_dashboard_tell_of_a_server_its_refused_version_and_its_end(
    tiny_repository: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(tiny_repository, tmp_path / "models")
    async with ServerProcess(root, SETTINGS) as server, watched_by_prometheus(server, tmp_path) as prometheus:
        async with called(server):
            await until(shows(prometheus, f'up{{job="{JOB}"}} == 1'), "the target is not up")
            for record in (rule["record"] for rule in rules() if "record" in rule):
                name = record + ('{model="letters"}' if "_model:" in record else "")
                # NaN is no value, and alone differs from itself.
                await until(shows(prometheus, f"{name} == {name}"), f"{name} has no value")
            slots = {
                labels["model"]: use
                for labels, use in await prometheus.query("instance_model:seqserve_slots:use")
            }
            assert set(slots) == {"letters", "letters-gru", "moods", "prices"}
            assert all(0 <= use <= 1 for use in slots.values())
            assert [value for _, value in await prometheus.query("job:seqserve_errors:ratio_rate5m")] == [0]
            assert await prometheus.query('ALERTS{alertstate="firing"}') == []

            edit_spec(shutil.copytree(root / "letters" / "1", root / "letters" / "2"), version=3)
            await server.wait_for_event("model refused")
            await until(
                shows(prometheus, alert("SeqserveVersionRefused", "firing")),
                "the refused version rings no alert",
            )
            for used in used_by_dashboard():
                if used.place in WITHOUT_DATA:
                    await prometheus.query(used.expr)
                else:
                    await until(shows(prometheus, used.expr), f"{used.place} shows nothing: {used.expr}")

        assert await server.stop() == 0
        await until(
            shows(prometheus, alert("SeqserveTargetDown", "pending")),
            "the target that is down rings no alert",
        )
        await until(
            shows(prometheus, alert("SeqserveDown", "pending")), "the service that is down rings no alert"
        )
        assert await prometheus.refused_rules() == {}


def shows(prometheus: Prometheus, expr: str) -> Callable[[], Awaitable[list[Sample]]]:
    """Asks for an expression."""
    return lambda: prometheus.query(expr)


def alert(name: str, state: str) -> str:
    return f'ALERTS{{alertname="{name}", alertstate="{state}"}}'
