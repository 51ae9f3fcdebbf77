"""service.api.versions."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.versions import TaskVersions, find_any
from service.errors import InvalidArgument, NotFound, NotReady, NotServed, ServiceError
from service.models.repository import Repository
from service.models.table import Entry, Status, VersionTable
from service.tasks.classification import ClassificationTask
from service.tasks.generation import GenerationTask
from tests.service.builders import load_repository


@pytest.fixture(scope="module")
def repository(models: Path) -> Iterator[Repository]:
    """letters, moods and prices."""
    opened = load_repository(models)
    yield opened
    opened.stop()


@pytest.fixture
def table(repository: Repository) -> VersionTable:
    """A table of one's own with the same entries."""
    copied = VersionTable()
    copied.set(*repository.table.entries())
    return copied


def generating(table: VersionTable) -> TaskVersions[GenerationTask]:
    return TaskVersions(table, "text-generation", GenerationTask)


async def test_lease_gives_the_version_and_its_task(table: VersionTable) -> None:
    versions = TaskVersions(table, "text-classification", ClassificationTask)
    with versions.lease("moods", 0) as (served, task):
        assert (served.spec.name, served.spec.version) == ("moods", 1)
        assert task is served.task


async def test_version_is_leased_while_the_context_lasts(table: VersionTable) -> None:
    with generating(table).lease("letters", 1) as (served, _):
        with generating(table).lease("letters", 0):
            assert served.leases.count == 2
        assert served.leases.count == 1
    assert served.leases.count == 0


async def test_lease_ends_with_an_error_too(table: VersionTable) -> None:
    served = table.find("letters", 0, "text-generation")
    with pytest.raises(ValueError, match="wrong"), generating(table).lease("letters", 0):
        raise ValueError("wrong")
    assert served.leases.count == 0


async def test_version_that_is_leased_does_not_drain_to_its_end(table: VersionTable) -> None:
    with generating(table).lease("letters", 0) as (served, _):
        waiting = asyncio.create_task(served.leases.wait_until_free())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


@pytest.mark.parametrize(
    ("name", "version", "error"),
    [
        ("", 0, InvalidArgument),
        ("moods", 0, InvalidArgument),
        ("none", 0, NotFound),
        ("letters", 9, NotFound),
    ],
)
def test_nothing_is_leased_where_nothing_serves_the_task(
    table: VersionTable, name: str, version: int, error: type[ServiceError]
) -> None:
    with pytest.raises(error), generating(table).lease(name, version):
        pass


@pytest.mark.parametrize("name", ["letters", "moods", "prices"])
def test_any_task_will_do_for_a_protocol_that_serves_them_all(table: VersionTable, name: str) -> None:
    assert find_any(table, name, 0).spec.name == name


@pytest.mark.parametrize(
    ("status", "error"),
    [(Status.LOADING, NotReady), (Status.FAILED, NotServed), (Status.DRAINING, NotFound)],
)
def test_version_that_does_not_serve_is_refused_with_the_reason(
    table: VersionTable, status: Status, error: type[ServiceError]
) -> None:
    table.set(Entry("fresh", 1, status, "it was bad"))
    with pytest.raises(error):
        find_any(table, "fresh", 0)
    with pytest.raises(error), generating(table).lease("fresh", 1):
        pass


def test_unknown_model_and_version_are_not_found_whatever_the_task(table: VersionTable) -> None:
    with pytest.raises(NotFound):
        find_any(table, "none", 0)
    with pytest.raises(NotFound):
        find_any(table, "moods", 9)
