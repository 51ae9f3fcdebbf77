"""Servers that several tests share; each test that needs a server of its own starts one."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.calls import Calls
from tests.integration.process import ROOT, ServerProcess
from tests.tiny import export_all, export_generator


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """letters (LSTM), moods, prices, and letters-gru."""
    repository = tmp_path_factory.mktemp("exported")
    export_all(repository)
    export_generator(repository, "letters-gru", "gru")
    return repository


@pytest.fixture(scope="session")
def letters_repository(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """letters (LSTM) alone, for servers that are started for one test: each model takes time to start."""
    repository = tmp_path_factory.mktemp("letters")
    shutil.copytree(tiny_repository / "letters", repository / "letters")
    return repository


@pytest_asyncio.fixture(scope="session")
async def tiny_server(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    """A server of the tiny models."""
    async with ServerProcess(tiny_repository) as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def rest_server(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    """A server of the tiny models that serves the REST form, with little time for heads of requests."""
    settings = {"HTTP_API": "true", "HTTP_HEAD_SECONDS": "1", "HTTP_MAX_CONNECTIONS": "32"}
    async with ServerProcess(tiny_repository, settings) as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def shipped_server() -> AsyncIterator[ServerProcess]:
    """A server of the models that ship."""
    async with ServerProcess(ROOT / "exported") as server:
        yield server


@pytest_asyncio.fixture
async def tiny(tiny_server: ServerProcess) -> AsyncIterator[Calls]:
    """Calls to the server of the tiny models."""
    async with tiny_server.channel() as channel:
        yield Calls(channel)


@pytest_asyncio.fixture
async def shipped(shipped_server: ServerProcess) -> AsyncIterator[Calls]:
    """Calls to the server of the models that ship."""
    async with shipped_server.channel() as channel:
        yield Calls(channel)
