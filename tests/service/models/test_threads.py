"""service.models.threads, and what needs a thread to end: a version that drains."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.models.repository import Repository
from service.models.threads import run_in_thread
from tests.service.builders import refuse_threads
from tests.service.models.conftest import Load


async def test_work_is_done_once_when_a_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    left = refuse_threads(monkeypatch, 2)
    done: list[int] = []
    with capture_logs() as logs:
        await run_in_thread(lambda: done.append(left[0]))
    assert done == [0]
    # What threads of other tests log meanwhile is not about this.
    assert [one["log_level"] for one in logs if one["log_level"] != "info"] == ["warning"] * 2


async def test_error_of_the_work_is_raised_and_not_tried_again() -> None:
    calls: list[None] = []

    def fail() -> None:
        calls.append(None)
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        await run_in_thread(fail)
    assert len(calls) == 1


async def test_version_ends_that_drains_while_no_thread_can_be_started(
    folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drained for good, with its engines and its memory."""
    repository: Repository = load(folder)
    left = refuse_threads(monkeypatch, 2)
    async with asyncio.timeout(10):
        await repository.unload("moods", 0)
    assert left == [0]
    assert {entry.name for entry in repository.table.entries()} == {"letters"}
    assert repository._drains.draining == []
