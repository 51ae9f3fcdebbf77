"""Versions that come and go under load: every answer is from exactly one of them."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

from seqserve.aio import AsyncClient
from seqserve.results import ModelStatus
from tests.chaos.outcome import Outcome
from tests.integration.process import ServerProcess
from tests.tiny import export_generator

SETTINGS = {"WATCH_SECONDS": "0.1"}
LOOPS = 8
MODEL = "letters"
FIELDS: dict[str, Any] = {"model": MODEL, "max_tokens": 60, "seed": 7}


async def reload_versions(folder: Path, reloads: int) -> Outcome:
    """Put version after version, every third of them damaged, into the folder of a server that watches it,
    under generations in closed loops.

    Args:
        folder: an empty one.
        reloads: versions after the first.
    """
    made, repository = folder / "made", folder / "repository"
    for number in range(1, reloads + 2):
        await asyncio.to_thread(export_generator, made, seed=number)
    bad = range(3, reloads + 2, 3)
    for number in bad:
        _damage(made / MODEL / str(number), number)
    lost: list[str] = []
    found: list[str] = []
    right: dict[int, str] = {}
    slowest = 0.0
    over = asyncio.Event()

    async def loop(client: AsyncClient) -> None:
        while not over.is_set():
            try:
                found.append((await client.generate("abc", **FIELDS).read()).text)
            except Exception as error:
                lost.append(f"{type(error).__name__}: {error}")

    _put(made, repository, 1)
    async with (
        ServerProcess(repository, SETTINGS) as server,
        AsyncClient(server.address, retry=None) as client,
    ):
        right[1] = (await client.generate("abc", **FIELDS).read()).text
        work = [asyncio.create_task(loop(client)) for _ in range(LOOPS)]
        for number in range(2, reloads + 2):
            _put(made, repository, number)
            started = time.monotonic()
            wanted = ModelStatus.FAILED if number in bad else ModelStatus.READY
            await _until(client, number, wanted)
            slowest = max(slowest, time.monotonic() - started)
            if wanted is ModelStatus.READY:
                right[number] = (await client.generate("abc", **FIELDS).read()).text
        over.set()
        await asyncio.gather(*work)
    lost += [f"an answer of no version: {text!r}" for text in found if text not in right.values()]
    facts = {
        "versions that answered": float(len(set(right.values()) & set(found))),
        "good versions": float(len(right)),
        "damaged ones refused": len(bad),
    }
    return Outcome(
        "version replaced, every third one damaged",
        reloads,
        f"{len(found)} generations, {LOOPS} at a time",
        tuple(lost),
        slowest,
        facts,
    )


def _put(made: Path, repository: Path, number: int) -> None:
    """A version appears whole: it is copied beside the repository and renamed into it."""
    copy = made.parent / "copy"
    shutil.copytree(made / MODEL / str(number), copy)
    (repository / MODEL).mkdir(parents=True, exist_ok=True)
    copy.rename(repository / MODEL / str(number))


def _damage(version: Path, number: int) -> None:
    """Flip a bit of the graph, or cut the description short."""
    path = version / ("model.onnx" if number % 2 else "model.json")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content if number % 2 else content[: len(content) // 2])


async def _until(client: AsyncClient, version: int, status: ModelStatus) -> None:
    """Wait until a version has a status."""
    async with asyncio.timeout(60):
        while not any(model.version == version and model.status is status for model in await client.models()):  # noqa: ASYNC110 - another process has no event to await
            await asyncio.sleep(0.02)
