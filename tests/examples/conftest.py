"""The examples in one repository, served by the real server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from grpc import aio

from tests.examples.every import NAMES, example
from tests.integration.process import ServerProcess
from training.export.sequences.export import export_sequences


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of all examples."""
    repository = tmp_path_factory.mktemp("examples")
    for name in NAMES:
        export_sequences(example(name).package, repository)
    return repository


@pytest_asyncio.fixture(scope="session")
async def server(examples: Path) -> AsyncIterator[ServerProcess]:
    """A server of all examples."""
    async with ServerProcess(examples) as started:
        yield started


@pytest_asyncio.fixture
async def channel(server: ServerProcess) -> AsyncIterator[aio.Channel]:
    """A channel to the server of all examples."""
    async with server.channel() as opened:
        yield opened
