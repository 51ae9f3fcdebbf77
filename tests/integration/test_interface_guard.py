"""A retrained model whose labels differ, while a real server watches its folder."""

import asyncio
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from seqserve.aio import AsyncClient
from seqserve.cli.app import app
from seqserve.errors import NotServed
from seqserve.results import ModelInfo
from tests.integration.process import ServerProcess
from tests.service.builders import spec_of
from tests.tiny import export_classifier

LIMIT_S = 60
WORD = "secret-keeper-0123456789"
SETTINGS = {"SLOTS": "4", "CHUNK": "4", "CHUNK_ROWS": "4", "ENGINES": "1", "WATCH_SECONDS": "0.1"}
REFUSED = (
    "labels: expected negative, positive as version 1 serves, found bad, good; "
    "load it with allow_interface_change if callers know"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with moods 1."""
    export_classifier(tmp_path / "repository")
    return tmp_path / "repository"


def put_renamed(root: Path, version: int) -> None:
    """Put another version of moods in place, whole at once, whose labels are named differently."""
    part = shutil.copytree(root / "moods" / "1", root / ".part")
    section = spec_of(part, version=version)["classification"]
    spec_of(part, classification=section | {"labels": ["bad", "good"]})
    part.rename(root / "moods" / str(version))


async def has_status(client: AsyncClient, version: int, status: str) -> ModelInfo:
    """Wait until a version is listed with a status."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            for model in await client.models():
                if (model.version, model.status) == (version, status):
                    return model
            await asyncio.sleep(0.05)  # the server tells nobody of it


def command(server: ServerProcess, token: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--server", server.address, "--token-file", str(token), *arguments])


async def test_retrained_model_with_renamed_labels_waits_for_load_with_the_field(
    root: Path, tmp_path: Path
) -> None:
    tokens, token = tmp_path / "tokens", tmp_path / "token"
    tokens.write_text(f"admin keeper {WORD}\n")
    tokens.chmod(0o600)
    token.write_text(WORD)
    async with (
        ServerProcess(root, SETTINGS | {"TOKENS": str(tokens)}) as server,
        AsyncClient(server.address, token=WORD) as client,
    ):

        async def label() -> str:
            [found] = await client.classify(["a good film"], model="moods")
            return found.label

        before = await label()
        put_renamed(root, 2)
        assert (await has_status(client, 2, "failed")).message == REFUSED
        assert await label() == before
        with pytest.raises(NotServed) as refused:
            await client.load_model("moods")
        assert REFUSED in str(refused.value)
        result = await asyncio.to_thread(command, server, token, "load", "moods")
        assert result.exit_code != 0
        assert "labels: expected negative, positive as version 1 serves" in " ".join(result.stderr.split())
        assert await label() == before
        loaded = await asyncio.to_thread(command, server, token, "load", "moods", "--allow-interface-change")
        assert "version\t2\n" in loaded.stdout
        assert await label() == {"negative": "bad", "positive": "good"}[before]
        # The next version has the interface that now serves.
        put_renamed(root, 3)
        await has_status(client, 3, "ready")
        counted = [one for one in server.events if one["event"] == "model refused"]
        assert {one["check"] for one in counted} == {"interface"}
