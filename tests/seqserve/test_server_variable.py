"""SEQSERVE_SERVER names the server for both clients and for every command, where nothing else does."""

import socket
from collections.abc import Iterator

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from seqserve import AsyncClient, Client, WrongType, WrongValue
from seqserve.cli import session
from seqserve.cli.app import app
from seqserve.connection import DEFAULT_ADDRESS, SERVER_VARIABLE, server_address
from seqserve.retry import Retry
from tests.seqserve.scripted_server import ScriptedServer

# What each command needs beside the server to get as far as calling it.
ARGUMENTS = {
    "bench": ["score"],
    "classify": ["a text"],
    "forecast": ["--file", "training/data/goog.csv"],
    "generate": ["a prompt"],
    "infer": ["activity", "a text"],
    "label": ["a text"],
    "load": ["charlm"],
    "models": [],
    "score": ["a text"],
    "unload": ["charlm"],
}
# The command playground serves pages, which say what does not answer.
CALLING = sorted(name for name in get_command(app).commands if name != "playground")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        (None, None, DEFAULT_ADDRESS),
        (None, "", DEFAULT_ADDRESS),
        (None, "variable:1", "variable:1"),
        ("given:1", "variable:1", "given:1"),
        ("given:1", "no address", "given:1"),
    ],
)
def test_address_is_the_one_given_then_the_variables_then_the_default(
    given: str | None, variable: str | None, expected: str
) -> None:
    environment = {} if variable is None else {SERVER_VARIABLE: variable}
    assert server_address(given, environment) == expected


async def test_both_clients_call_the_server_of_the_variable(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, server.address)
    with Client(retry=None) as client:
        assert len(client.models()) == 3
    async with AsyncClient(retry=None) as client_async:
        assert len(await client_async.models()) == 3


@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "aio"])
async def test_refusal_of_the_variables_address_names_the_variable(
    kind: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, "http://host:1")
    with pytest.raises(WrongValue, match=r"^SEQSERVE_SERVER: expected an address without http://"):
        kind()


def test_address_that_is_no_text_is_refused_beside_the_variable() -> None:
    with pytest.raises(WrongType, match=r"^address: expected a str, found an int"):
        server_address(50051, {SERVER_VARIABLE: "variable:1"})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def unused() -> Iterator[str]:
    """An address at which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_arguments_of_every_command_are_known_here() -> None:
    assert sorted(ARGUMENTS) == CALLING


@pytest.mark.parametrize("command", sorted(ARGUMENTS))
def test_every_command_calls_the_server_of_the_variable(
    command: str, unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, unused)
    monkeypatch.setattr(session, "RETRY", Retry(attempts=1))
    result = CliRunner().invoke(app, [command, *ARGUMENTS[command]], catch_exceptions=False)
    assert (result.exit_code, result.stderr.split(":")[0]) == (1, "error")
    assert f"nothing answers at {unused}" in result.stderr
