"""`seqserve playground`: where it listens, what it warns of, and what it says to nobody."""

import asyncio
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from seqserve.cli.app import app
from tests.integration.process import ServerProcess
from tests.playground.browsing import playground_process

SECRET = "s3cret"  # noqa: S105 - of this test alone


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Records what would be run, and runs nothing."""
    found: list[tuple[Any, Any]] = []
    # By its name: a simulated user of an earlier test leaves another module of that name behind.
    monkeypatch.setattr(
        "seqserve.playground.app.run", lambda target, listening: found.append((target, listening))
    )
    return found


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_it_listens_on_this_machine_alone_by_default(runs: list[tuple[Any, Any]]) -> None:
    result = call("playground", "--server", "127.0.0.1:1", "--no-open")
    [(target, listening)] = runs
    assert (listening.host, listening.port, listening.opens_browser) == ("127.0.0.1", 8090, False)
    assert (target.address, target.token, target.timeout_s) == ("127.0.0.1:1", None, 60)
    assert result.stderr.splitlines() == [
        "playground of 127.0.0.1:1: http://127.0.0.1:8090/ (Ctrl+C ends it)"
    ]


def test_another_host_is_warned_of_and_the_token_is_not_shown(
    runs: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    result = call("--token-file", str(file), "playground", "--host", "0.0.0.0", "--port", "9000")
    assert runs[0][0].token == SECRET
    warning, line = result.stderr.splitlines()
    assert warning.startswith("warning: 0.0.0.0 is reachable from other machines")
    assert warning.endswith("with the token of this command")
    assert "http://0.0.0.0:9000/" in line
    assert SECRET not in result.output + repr(runs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--server", "nowhere"], "error: --server: expected"),
        (["--timeout", "1e300"], "error: --timeout: expected"),
    ],
)
def test_wrong_option_is_named(runs: list[tuple[Any, Any]], options: list[str], said: str) -> None:
    result = call("playground", *options)
    assert (result.exit_code, runs) == (2, [])
    assert result.stderr.startswith(said)


def test_taken_port_and_unknown_host_are_named(runs: list[tuple[Any, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = call("playground", "--port", port)
    assert (result.exit_code, runs) == (2, [])
    assert f"found 127.0.0.1 port {port}: Address already in use" in result.stderr
    result = call("playground", "--host", "no.such.host.invalid")
    assert (result.exit_code, runs) == (2, [])
    assert "found no.such.host.invalid port 8090" in result.stderr


async def test_pages_come_with_the_policy_and_only_for_this_machine(served: ServerProcess) -> None:
    """The process ends on Ctrl+C with nothing but the line that it runs, see `playground_process`."""
    async with playground_process(served.address) as url:
        page, policy = await asyncio.to_thread(fetch, url)
        assert "<title>Models - seqserve</title>" in page
        assert "default-src 'self'" in policy
        with pytest.raises(urllib.error.HTTPError, match="400"):
            await asyncio.to_thread(fetch, url, "evil.example")


def fetch(url: str, host: str | None = None) -> tuple[str, str]:
    request = urllib.request.Request(url, headers={} if host is None else {"Host": host})  # noqa: S310 - loopback
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return answer.read().decode(), answer.headers["content-security-policy"]
