"""A server of models for sequences, which several tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests import contract2
from tests.service.api.conftest import Running, serving

NETS = (
    contract2.ACTIVITY,
    contract2.TAGS,
    contract2.ODD,
    contract2.VANILLA,
    contract2.TOPICS,
    contract2.WINDOWED,
    contract2.WORD_TAGS,
    contract2.BEGUN,
    contract2.BOTH_WAYS,
    contract2.POOLED,
    contract2.EQUAL,
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def generic(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A server of models of contract 2, one of each kind of input and output."""
    folder: Path = tmp_path_factory.mktemp("generic")
    for net in NETS:
        contract2.export(net, folder)
    async with serving(folder, "thread") as started:
        yield started
