"""service.models.watcher: changes that scans find, and what is loaded and unloaded."""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.models.repository import Repository
from service.models.table import Status
from service.models.watcher import Change, FolderScanner, Watcher
from service.observability.metrics import Metrics
from tests import tiny
from tests.service.builders import load_repository, refuse_to_list, spec_of


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of letters. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for seed in range(3):
        tiny.export_generator(folder, seed=seed)
    return folder


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    """A repository with letters 1."""
    shutil.copytree(exported / "letters" / "1", tmp_path / "repository" / "letters" / "1")
    return tmp_path / "repository"


def put(exported: Path, root: Path, version: int) -> Path:
    """A version in place, whole at once."""
    shutil.copytree(exported / "letters" / str(version), root / ".part")
    return (root / ".part").rename(root / "letters" / str(version))


WRITTEN = [(("letters", 2), Change.WRITTEN)]


def test_what_is_there_at_the_start_is_no_change(root: Path) -> None:
    folder = FolderScanner(root)
    assert [folder.scan() for _ in range(4)] == [[]] * 4


def test_whole_version_is_reported_once_at_the_third_scan(exported: Path, root: Path) -> None:
    folder = FolderScanner(root)
    put(exported, root, 2)
    assert [folder.scan() for _ in range(5)] == [[], [], WRITTEN, [], []]


def test_version_that_is_being_written_is_not_reported(exported: Path, root: Path) -> None:
    folder = FolderScanner(root)
    version = put(exported, root, 2)
    graph = (version / "model.onnx").read_bytes()
    for length in range(0, len(graph), len(graph) // 6):
        (version / "model.onnx").write_bytes(graph[:length])
        assert folder.scan() == []
    (version / "model.onnx").write_bytes(graph)
    assert [folder.scan() for _ in range(4)] == [[], [], WRITTEN, []]


def test_version_that_stays_wrong_is_reported_once_at_the_third_scan(exported: Path, root: Path) -> None:
    folder = FolderScanner(root)
    (put(exported, root, 2) / "model.onnx").write_bytes(b"half")
    assert [folder.scan() for _ in range(6)] == [[], [], WRITTEN, [], [], []]


def test_file_that_changes_back_in_size_is_a_change(exported: Path, root: Path) -> None:
    folder = FolderScanner(root)
    os.utime(root / "letters" / "1" / "model.onnx", (1, 1))
    assert [folder.scan() for _ in range(4)] == [[], [], [(("letters", 1), Change.WRITTEN)], []]


def test_folder_that_is_gone_is_reported_at_the_second_scan(root: Path) -> None:
    folder = FolderScanner(root)
    shutil.rmtree(root / "letters" / "1")
    assert [folder.scan() for _ in range(3)] == [[], [(("letters", 1), Change.GONE)], []]


def test_folder_that_vanishes_for_a_moment_is_not_gone(root: Path) -> None:
    folder = FolderScanner(root)
    version = root / "letters" / "1"
    version.rename(root / ".away")
    assert folder.scan() == []
    (root / ".away").rename(version)
    assert (("letters", 1), Change.GONE) not in [change for _ in range(4) for change in folder.scan()]


def test_repository_that_cannot_be_listed_says_nothing(root: Path) -> None:
    folder = FolderScanner(root)
    root.rename(root.with_name("away"))
    for _ in range(3):
        with pytest.raises(OSError, match="No such file"):
            folder.scan()
    root.with_name("away").rename(root)
    assert folder.scan() == []


def test_links_into_another_folder_of_the_volume_are_followed(exported: Path, root: Path) -> None:
    """Kubernetes mounts a ConfigMap as a hidden folder and links to it."""
    folder = FolderScanner(root)
    shutil.copytree(exported / "letters" / "2", root / "..2026" / "2")
    (root / "..data").symlink_to("..2026")
    (root / "letters" / "2").symlink_to("../..data/2")
    assert [folder.scan() for _ in range(4)] == [[], [], WRITTEN, []]


def test_scan_opens_no_file(exported: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of a model.json costs whoever reads it gigabytes: only the process of a trial does."""
    folder = FolderScanner(root)
    put(exported, root, 2)
    monkeypatch.setattr("io.open", None)
    monkeypatch.setattr("os.open", None)
    assert [folder.scan() for _ in range(3)] == [[], [], WRITTEN]


def test_folder_of_many_files_is_looked_at_in_part(exported: Path, root: Path) -> None:
    version = put(exported, root, 2)
    for index in range(1000):
        (version / f"{index}").touch()
    [found] = {len(found or ()) for key, found in FolderScanner(root)._list().items() if key[1] == 2}
    assert found == 256


def test_folders_that_cannot_be_listed_hide_nothing_else(
    exported: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them stopped the start, or every later scan; what it holds is not gone."""
    shutil.copytree(root / "letters", root / "other")
    folder = FolderScanner(root)
    with monkeypatch.context() as patched, capture_logs() as logs:
        refuse_to_list(patched, root / "other", root / "letters" / "1")
        put(exported, root, 2)
        first = [(("letters", 2), Change.WRITTEN), (("letters", 1), Change.WRITTEN)]
        assert FolderScanner(root)._seen.keys() == {("letters", 1), ("letters", 2)}
        assert [folder.scan() for _ in range(5)] == [[], [], first, [], []]
        assert folder.listing.refused == {
            ("other", 0): "expected a folder that can be listed, found Permission denied"
        }
    assert logs == []  # it is the repository's folder that logs
    assert [folder.scan() for _ in range(4)] == [[], [], [(("letters", 1), Change.WRITTEN)], []]


@given(st.lists(st.sampled_from(["put", "spoil", "mend", "take", "scan"]), max_size=12))
def test_folder_comes_to_rest_whatever_happened_to_it(
    exported: Path, tmp_path_factory: pytest.TempPathFactory, events: list[str]
) -> None:
    """After any history, four scans of an unchanged folder report its changes, and later ones nothing."""
    root = tmp_path_factory.mktemp("any")
    (root / "letters").mkdir()
    folder, version = FolderScanner(root), root / "letters" / "2"
    for event in events:
        if event == "put" and not version.exists():
            put(exported, root, 2)
        elif event == "take" and version.exists():
            shutil.rmtree(version)
        elif event == "spoil" and version.exists():
            (version / "model.onnx").write_bytes(b"spoilt")
        elif event == "mend" and version.exists():
            shutil.copy(exported / "letters" / "2" / "model.onnx", version)
        elif event == "scan":
            folder.scan()
    last = [folder.scan() for _ in range(5)]
    assert last[3:] == [[], []]
    assert sum(map(len, last)) <= 1


# With a repository that serves.


@pytest_asyncio.fixture
async def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest_asyncio.fixture
async def repository(root: Path, metrics: Metrics) -> AsyncIterator[Repository]:
    opened = load_repository(root, metrics)
    yield opened
    await asyncio.to_thread(opened.stop)


async def polls(watcher: Watcher, count: int) -> None:
    for _ in range(count):
        await watcher.poll()


def version_of(repository: Repository) -> int:
    return repository.table.find("letters", 0, "text-generation").spec.version


async def test_new_version_is_loaded(exported: Path, root: Path, repository: Repository) -> None:
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 2)
    await polls(watcher, 3)
    assert version_of(repository) == 2


async def test_version_older_than_those_that_serve_is_left_alone(
    exported: Path, root: Path, repository: Repository
) -> None:
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 3)
    await polls(watcher, 3)
    put(exported, root, 2)
    await polls(watcher, 3)
    assert version_of(repository) == 3


async def test_bad_version_fails_once(
    exported: Path, root: Path, repository: Repository, metrics: Metrics
) -> None:
    watcher = Watcher(repository, FolderScanner(root), 1)
    spec_of(put(exported, root, 2), hidden=7)
    await polls(watcher, 6)
    assert repository.table.get("letters", 2).status is Status.FAILED
    assert version_of(repository) == 1
    assert metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "spec"}) == 1


async def test_version_that_is_taken_away_is_unloaded(
    exported: Path, root: Path, repository: Repository
) -> None:
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 2)
    await polls(watcher, 3)
    shutil.rmtree(root / "letters" / "2")
    await polls(watcher, 2)
    await asyncio.gather(*watcher.unloading)
    assert version_of(repository) == 1
    shutil.rmtree(root / "letters")
    await polls(watcher, 2)
    await asyncio.gather(*watcher.unloading)
    assert repository.table.entries() == []


async def test_older_version_that_still_drains_takes_the_place_of_one_that_is_gone(
    exported: Path, root: Path, repository: Repository
) -> None:
    watcher = Watcher(repository, FolderScanner(root), 1)
    with repository.table.find("letters", 0, "text-generation").leases:
        put(exported, root, 2)
        await polls(watcher, 3)
        assert repository.table.get("letters", 1).status is Status.DRAINING
        shutil.rmtree(root / "letters" / "2")
        await polls(watcher, 2)
        await asyncio.gather(*watcher.unloading)
        assert version_of(repository) == 1
    await repository.drained()
    assert version_of(repository) == 1


async def test_version_unloaded_by_hand_stays_unloaded(
    exported: Path, root: Path, repository: Repository
) -> None:
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 2)
    await polls(watcher, 3)
    await repository.load("letters", 1)
    await repository.unload("letters", 2)
    await polls(watcher, 3)
    assert version_of(repository) == 1


async def fail_once(monkeypatch: pytest.MonkeyPatch, watcher: Watcher, count: int) -> list[str]:
    """Poll so often while the repository cannot be listed by who changes it; return what is logged."""
    with monkeypatch.context() as patched, capture_logs() as logs:
        stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        patched.setattr("service.models.folder.discover", Mock(side_effect=stale))
        await polls(watcher, count)
        await asyncio.gather(*watcher.unloading)
    return [one["event"] for one in logs if one["log_level"] == "error"]


async def test_load_that_an_error_has_stopped_is_tried_again_and_others_go_on(
    exported: Path, root: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change and all others of its scan were lost for good."""
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 2)
    shutil.copytree(exported / "letters" / "1", root / "zeta" / "1")
    spec_of(root / "zeta" / "1", name="zeta")
    assert await fail_once(monkeypatch, watcher, 3) == ["change of a version failed"] * 2
    await polls(watcher, 1)
    assert version_of(repository) == 2
    assert repository.table.get("zeta", 1).status is Status.READY


async def test_removal_that_an_error_has_stopped_is_tried_again(
    exported: Path, root: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version served on for good, though its folder was gone."""
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 2)
    await polls(watcher, 3)
    shutil.rmtree(root / "letters" / "2")
    assert await fail_once(monkeypatch, watcher, 2) == ["change of a version failed"]
    assert version_of(repository) == 2
    await polls(watcher, 1)
    await asyncio.gather(*watcher.unloading)
    assert version_of(repository) == 1


async def test_repository_that_is_missing_is_told_once(root: Path, repository: Repository) -> None:
    watcher, away = Watcher(repository, FolderScanner(root), 1), root.with_name("away")
    with capture_logs() as logged:
        for _ in range(2):
            os.rename(root, away)
            await polls(watcher, 3)
            os.rename(away, root)
            await polls(watcher, 1)
    assert [one["event"] for one in logged].count("repository cannot be looked at") == 2


async def test_watcher_shows_entries_that_come_and_go(
    root: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(repository, FolderScanner(root), 1)
    (root / "my model" / "3").mkdir(parents=True)
    (root / "other" / "1").mkdir(parents=True)
    with monkeypatch.context() as patched:
        refuse_to_list(patched, root / "other", root / "letters")
        await polls(watcher, 2)
        found = {one.name: (one.version, one.status) for one in repository.table.entries()}
        assert found == {
            "'my model'": (3, Status.FAILED),
            "letters": (1, Status.READY),
            "other": (0, Status.FAILED),
        }
    shutil.rmtree(root / "my model")
    await polls(watcher, 1)
    assert [one.name for one in repository.table.entries()] == ["letters"]
