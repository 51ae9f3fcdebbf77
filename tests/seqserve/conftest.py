"""Fixtures: the scripted server, running, and a client of it."""

from collections.abc import Iterator

import pytest

from seqserve import Client
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, started


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    servicer = ScriptedServer()
    running = started(servicer)
    yield servicer
    servicer.resume.set()
    running.stop(grace=1).wait(WAIT_S)


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    """A client that tries nothing again: failures are those of the one call."""
    with Client(server.address, timeout_s=WAIT_S, retry=None) as connected:
        yield connected
