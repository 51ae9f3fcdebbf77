"""service.models.memory, and what unloaded versions leave behind."""

import asyncio
import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

from service.models.memory import return_freed
from service.models.repository import Repository
from tests.service.builders import spec_of
from tests.service.models.conftest import Load

RELOADS = 10


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_freed_memory_goes_back_to_the_system() -> None:
    return_freed()
    # Small enough that the C library takes it from its heap, and held down by the last piece.
    pieces = [bytearray(100_000) for _ in range(1000)]
    pieces[:-1] = []
    held = resident_bytes()
    return_freed()
    assert held - resident_bytes() > 40 << 20


@pytest.mark.parametrize("driver", ["thread", "loop"])
async def test_unloaded_version_is_freed_without_a_collection(folder: Path, load: Load, driver: str) -> None:
    repository = load(folder, engine_driver=driver)
    served = repository.table.find("letters", 0, "text-generation")
    freed = weakref.ref(served.engine.engines[0])
    del served
    gc.collect()
    gc.disable()
    try:
        await repository.unload("letters", 0)
        await repository.drained()
        async with asyncio.timeout(10):
            # The thread that stopped the engine lets go of it in its own time.
            while freed() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_reloads_leave_no_thread_no_descriptor_and_no_memory(folder: Path, load: Load) -> None:
    repository = load(folder, engine_driver="thread", engines=2)
    for count in range(3):
        await reload(repository, folder, count)
    return_freed()
    resident = resident_bytes()
    threads, descriptors = engine_threads(), len(os.listdir("/proc/self/fd"))
    for count in range(3, 3 + RELOADS):
        await reload(repository, folder, count)
    assert engine_threads() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return_freed()
    assert resident_bytes() - resident < 10 << 20


async def reload(repository: Repository, folder: Path, count: int) -> None:
    """Change letters' model.json, which makes it another model, and load it in place of its former self."""
    spec_of(folder / "letters" / "3", metrics={"count": float(count)})
    await repository.load("letters", 3)
    await repository.drained()


def engine_threads() -> int:
    return sum(thread.name.startswith("engine-") for thread in threading.enumerate())
