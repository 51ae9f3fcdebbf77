"""service.models.admission: versions of another interface than the one that serves, in a repository."""

import asyncio
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.contract.spec import ModelSpec
from service.engine.request import ANYONE
from service.errors import ModelFailure, ModelRefused, NotServed
from service.models.choices import Choices
from service.models.preparing import Preparation
from service.models.repository import Repository
from service.models.table import Status
from service.models.watcher import FolderScanner, Watcher
from service.observability.metrics import Metrics
from service.tasks.classification import ClassificationTask
from tests import tiny
from tests.service.builders import settings_of, spec_of
from tests.service.models.conftest import Load

LABELS = ["negative", "positive"]
RENAMED = ["bad", "good"]
DIFFERENCE = "labels: expected negative, positive as version 1 serves, found bad, good"
ADVICE = "load it with allow_interface_change if callers know"
WARNING = "interface differs from an older version"
# Nothing is measured at load.
SIZES = {"slots": 4, "chunk": 4, "chunk_rows": 4, "engines": 1, "engine_driver": "thread"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 of moods. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    tiny.export_classifier(folder)
    return folder / "moods" / "1"


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    """A repository with moods 1."""
    root = tmp_path / "repository"
    put(exported, root, 1)
    return root


def put(exported: Path, root: Path, version: int, labels: list[str] = LABELS, **changes: Any) -> Path:
    """Put a version of moods in place, with labels and other top-level fields of its own."""
    folder = shutil.copytree(exported, root / "moods" / str(version), dirs_exist_ok=True)
    section = spec_of(folder, version=version, **changes)["classification"]
    spec_of(folder, classification=section | {"labels": labels})
    return folder


def found_by_callers(repository: Repository) -> ModelSpec:
    return repository.table.find("moods", 0, "text-classification").spec


def statuses(repository: Repository) -> dict[int, Status]:
    return {one.version: one.status for one in repository.table.entries()}


async def refusal(repository: Repository, version: int) -> NotServed:
    with pytest.raises(NotServed) as refused:
        await repository.load("moods", version)
    return refused.value


# Load.


async def test_load_of_another_interface_is_refused_and_the_old_version_goes_on(
    exported: Path, root: Path, load: Load
) -> None:
    metrics = Metrics(CollectorRegistry())
    repository = load(root, metrics, **SIZES)
    put(exported, root, 2, RENAMED)
    refused = await refusal(repository, 0)
    assert str(refused) == f"model moods version 2 was refused: {DIFFERENCE}; {ADVICE}"
    assert refused.metadata == {
        "check": "interface",
        "expected": "labels: negative, positive",
        "found": "labels: bad, good",
    }
    assert statuses(repository) == {2: Status.FAILED, 1: Status.READY}
    assert repository.table.get("moods", 2).message == f"{DIFFERENCE}; {ADVICE}"
    assert found_by_callers(repository).version == 1
    counted = metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "interface"})
    assert counted == 1
    with pytest.raises(NotServed, match="labels: expected") as asked:
        repository.table.find("moods", 2, "text-classification")
    assert asked.value.metadata["check"] == "interface"


async def test_load_that_allows_another_interface_takes_it(exported: Path, root: Path, load: Load) -> None:
    repository = load(root, **SIZES)
    put(exported, root, 2, RENAMED)
    await refusal(repository, 2)
    await repository.load("moods", 2, allow_interface_change=True)
    assert found_by_callers(repository).version == 2
    # It is what callers now know.
    put(exported, root, 3, RENAMED)
    await repository.load("moods", 0)
    assert found_by_callers(repository).version == 3


async def test_setting_allows_another_interface(exported: Path, root: Path, load: Load) -> None:
    repository = load(root, allow_interface_change=True, **SIZES)
    put(exported, root, 2, RENAMED)
    await repository.load("moods", 0)
    assert found_by_callers(repository).version == 2


async def test_older_version_of_another_interface_is_not_loaded_beside_the_newer(
    exported: Path, root: Path, load: Load
) -> None:
    put(exported, root, 2, RENAMED)
    repository = load(root, **SIZES)
    assert "labels: expected bad, good as version 2 serves" in str(await refusal(repository, 1))
    assert found_by_callers(repository).version == 2


async def test_version_rewritten_with_another_interface_serves_as_it_was(
    exported: Path, root: Path, load: Load
) -> None:
    repository = load(root, **SIZES)
    before = repository.table.find("moods", 1, "text-classification")
    put(exported, root, 1, RENAMED)
    await refusal(repository, 1)
    assert repository.table.find("moods", 1, "text-classification") is before
    message = repository.table.get("moods", 1).message
    assert message == f"serves as it was; what is on disk now was refused: {DIFFERENCE}; {ADVICE}"


async def test_any_interface_is_taken_where_nothing_serves(exported: Path, root: Path, load: Load) -> None:
    repository = load(root, **SIZES)
    put(exported, root, 2, RENAMED)
    await repository.unload("moods", 1)
    await repository.load("moods", 2)
    assert found_by_callers(repository).version == 2


async def test_older_version_of_another_interface_takes_no_place_of_one_that_is_gone(
    exported: Path, root: Path, load: Load
) -> None:
    put(exported, root, 2, RENAMED)
    repository = load(root, **SIZES)
    shutil.rmtree(root / "moods" / "2")
    with capture_logs() as logs:
        await repository.remove("moods", 2)
    assert "no older version in place of one that is gone" in {one["event"] for one in logs}
    with pytest.raises(NotServed, match="labels: expected bad, good"):
        found_by_callers(repository)


def test_interface_is_refused_before_the_graph_is_loaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> NoReturn:
        raise ModelRefused("interface", "a", "b")

    monkeypatch.setattr("service.models.preparing.load_graph", None)
    with pytest.raises(ModelRefused, match="interface"):
        Preparation(Choices.of(settings_of(root))).run(root / "moods" / "1", accept=refuse)


# An engine that fails.


def _explode() -> NoReturn:
    raise ZeroDivisionError("a fault of the engine")


async def fail(repository: Repository, version: int) -> None:
    """Have the engine of a version fail, and wait for what the repository does about it."""
    served = repository.table.find("moods", version, "text-classification")
    served.engine.engines[0].run_turn = _explode  # type: ignore[method-assign]
    assert isinstance(served.task, ClassificationTask)
    with pytest.raises(ModelFailure, match="its engine has stopped on an error"):
        await served.task.classify(["a good film"], ANYONE)
    await asyncio.wrap_future(repository._worker.submit(int))


async def test_failed_version_is_loaded_anew_beside_one_of_another_interface(
    exported: Path, root: Path, load: Load
) -> None:
    put(exported, root, 2, RENAMED)
    repository = load(root, versions=2, **SIZES)
    before = repository.table.find("moods", 1, "text-classification")
    await fail(repository, 1)
    assert repository.table.find("moods", 1, "text-classification") is not before
    assert repository.table.get("moods", 1).can_answer


async def test_failed_version_is_not_loaded_anew_with_another_interface(
    exported: Path, root: Path, load: Load
) -> None:
    repository = load(root, **SIZES)
    put(exported, root, 1, RENAMED)
    with capture_logs() as logs:
        await fail(repository, 1)
    [told] = [one for one in logs if one["event"] == "engine not restarted"]
    assert told["reason"].startswith(DIFFERENCE)
    assert not repository.is_alive()


# The start.


def warnings(logs: list[Any]) -> list[tuple[int, int, str]]:
    return [
        (one["version"], one["older"], one["difference"])
        for one in logs
        if (one["event"], one["log_level"]) == (WARNING, "warning")
    ]


@pytest.mark.parametrize("versions", [1, 2])
def test_start_serves_another_interface_and_warns_once(
    exported: Path, root: Path, load: Load, versions: int
) -> None:
    put(exported, root, 2, RENAMED)
    put(exported, root, 3, RENAMED, metrics={"count": 3.0})
    shutil.rmtree(root / "moods" / "1")
    put(exported, root, 4)
    with capture_logs() as logs:
        repository = load(root, versions=versions, **SIZES)
    assert found_by_callers(repository).version == 4
    assert warnings(logs) == [(4, 3, "labels: expected bad, good as version 3 has, found negative, positive")]


@pytest.mark.parametrize(
    ("labels", "settings"),
    [(LABELS, {}), (RENAMED, {"allow_interface_change": True})],
    ids=["same", "allowed"],
)
def test_start_does_not_warn_of_the_same_interface_or_where_changes_are_allowed(
    exported: Path, root: Path, load: Load, labels: list[str], settings: dict[str, bool]
) -> None:
    put(exported, root, 2, labels)
    with capture_logs() as logs:
        load(root, **SIZES | settings)
    assert warnings(logs) == []


def test_start_warns_of_an_older_version_that_cannot_be_compared(
    exported: Path, root: Path, load: Load
) -> None:
    put(exported, root, 2)
    (root / "moods" / "1" / "model.json").write_text("{")
    with capture_logs() as logs:
        repository = load(root, **SIZES)
    assert found_by_callers(repository).version == 2
    [(_, older, difference)] = warnings(logs)
    assert older == 1
    assert difference.startswith("not known, since they cannot be compared: model.json: expected JSON")


# The watcher.


async def test_watcher_refuses_another_interface_until_its_folder_changes(
    exported: Path, root: Path, load: Load
) -> None:
    metrics = Metrics(CollectorRegistry())
    repository = load(root, metrics, **SIZES)
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 2, RENAMED)
    for _ in range(5):
        await watcher.poll()
    assert statuses(repository) == {2: Status.FAILED, 1: Status.READY}
    counted = metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "interface"})
    assert counted == 1
    put(exported, root, 2)
    for _ in range(3):
        await watcher.poll()
    assert found_by_callers(repository).version == 2


async def test_watcher_takes_another_interface_where_the_setting_allows_it(
    exported: Path, root: Path, load: Load
) -> None:
    repository = load(root, allow_interface_change=True, **SIZES)
    watcher = Watcher(repository, FolderScanner(root), 1)
    put(exported, root, 2, RENAMED)
    for _ in range(3):
        await watcher.poll()
    assert found_by_callers(repository).version == 2
