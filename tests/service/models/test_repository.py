"""service.models.repository."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.errors import InvalidArgument, NotFound, NotReady, NotServed, ServiceError
from service.models.loading import discover
from service.models.repository import Entry, Repository, Status
from service.observability.metrics import Metrics
from tests import tiny
from tests.service.builders import ignore_results, load_repository, settings_of, spec_of


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of letters and one of moods. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for seed in range(3):
        tiny.export_generator(folder, seed=seed)
    tiny.export_classifier(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A repository of one's own."""
    return shutil.copytree(exported, tmp_path / "repository")


def spoil(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"spoilt")


def statuses(repository: Repository) -> dict[tuple[str, int], Status]:
    return {(entry.name, entry.version): entry.status for entry in repository.entries()}


@pytest.fixture
def loaded() -> Iterator[list[Repository]]:
    """Repositories to stop at the end."""
    repositories: list[Repository] = []
    yield repositories
    for repository in repositories:
        repository.stop()


def load(
    loaded: list[Repository], folder: Path, metrics: Metrics | None = None, **changes: Any
) -> Repository:
    loaded.append(load_repository(folder, metrics, **changes))
    return loaded[-1]


# What is on disk.


def make(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).mkdir(parents=True)
    return folder


def test_discover_finds_versions_newest_first_by_number(tmp_path: Path) -> None:
    assert discover(make(tmp_path, "b/2", "b/10", "b/1", "a/7")) == {"a": [7], "b": [10, 2, 1]}


@pytest.mark.parametrize("name", ["0", "01", "-1", "1.5", "v1", ".2.part", "latest", "²", "\u0661", "1 "])
def test_discover_leaves_alone_what_is_no_version(tmp_path: Path, name: str) -> None:
    assert discover(make(tmp_path, f"model/{name}", "model/3")) == {"model": [3]}


def test_discover_leaves_hidden_folders_and_files_alone(tmp_path: Path) -> None:
    make(tmp_path, ".git/1", "model/1", "empty")
    (tmp_path / "README.md").touch()
    (tmp_path / "model" / "2").touch()
    assert discover(tmp_path) == {"model": [1]}


def test_discover_finds_nothing_where_there_is_no_folder(tmp_path: Path) -> None:
    assert discover(tmp_path / "missing") == {}


# Loading.


def test_newest_version_alone_is_served(folder: Path, loaded: list[Repository]) -> None:
    assert statuses(load(loaded, folder)) == {("letters", 3): Status.READY, ("moods", 1): Status.READY}


def test_versions_setting_serves_several(folder: Path, loaded: list[Repository]) -> None:
    repository = load(loaded, folder, versions=2)
    assert statuses(repository) == {
        ("letters", 3): Status.READY,
        ("letters", 2): Status.READY,
        ("moods", 1): Status.READY,
    }


def test_bad_newest_version_leaves_the_next_older_one_serving(folder: Path, loaded: list[Repository]) -> None:
    spoil(folder / "letters" / "3")
    repository = load(loaded, folder)
    assert statuses(repository) == {
        ("letters", 3): Status.FAILED,
        ("letters", 2): Status.READY,
        ("moods", 1): Status.READY,
    }
    assert repository.find("letters", 0, "text-generation").spec.version == 2


def test_bad_versions_do_not_count_towards_the_versions_setting(
    folder: Path, loaded: list[Repository]
) -> None:
    spoil(folder / "letters" / "3")
    found = statuses(load(loaded, folder, versions=2))
    assert [found["letters", version] for version in (3, 2, 1)] == [Status.FAILED, Status.READY, Status.READY]


def test_model_without_a_good_version_leaves_others_serving(folder: Path, loaded: list[Repository]) -> None:
    for version in ("1", "2", "3"):
        spoil(folder / "letters" / version)
    repository = load(loaded, folder)
    assert repository.find("moods", 0, "text-classification").spec.name == "moods"
    assert repository.get("letters", 0).version == 3


def test_error_that_nobody_foresaw_leaves_others_serving(
    folder: Path, loaded: list[Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*arguments: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("service.models.loading.read_tokenizer", explode)
    repository = load(loaded, folder)
    assert repository.get("moods", 0).message == "check 'unexpected' failed: ZeroDivisionError: surprise"
    assert repository.get("letters", 0).status is Status.READY


def test_empty_folder_serves_nothing(tmp_path: Path, loaded: list[Repository]) -> None:
    assert load(loaded, tmp_path).entries() == []


def test_every_change_is_told_in_order(folder: Path, loaded: list[Repository]) -> None:
    spoil(folder / "letters" / "3")
    told: list[tuple[str, int, Status]] = []
    loaded.append(repository := Repository(settings_of(folder), Metrics(CollectorRegistry()), ignore_results))
    repository.load_all(lambda entry: told.append((entry.name, entry.version, entry.status)))
    assert [one for one in told if one[0] == "letters"] == [
        ("letters", 3, Status.LOADING),
        ("letters", 3, Status.LOADING),
        ("letters", 3, Status.FAILED),
        ("letters", 2, Status.LOADING),
        ("letters", 2, Status.READY),
    ]


def test_metrics_show_what_serves_and_what_failed(folder: Path, loaded: list[Repository]) -> None:
    spoil(folder / "letters" / "3")
    metrics = Metrics(CollectorRegistry())
    load(loaded, folder, metrics)
    labels = {
        "model": "letters",
        "version": "2",
        "task": "text-generation",
        "cell": "lstm",
        "variant": "fp32",
        "provider": "CPUExecutionProvider",
    }
    assert metrics.registry.get_sample_value("seqserve_model_info", labels) == 1
    assert metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "spec"}) == 1


def test_variant_that_a_model_lacks_falls_back_to_fp32(folder: Path, loaded: list[Repository]) -> None:
    assert load(loaded, folder, variant="int8").find("letters", 0, "text-generation").variant == "fp32"


def test_rnn_does_not_promise_the_same_bits(tmp_path: Path, loaded: list[Repository]) -> None:
    tiny.export_generator(tmp_path, "plain", "rnn")
    tiny.export_generator(tmp_path, "gated", "gru")
    repository = load(loaded, tmp_path)
    assert [repository.find(name, 0, "text-generation").batch_invariant for name in ("plain", "gated")] == [
        False,
        True,
    ]


# Finding.


@pytest.fixture(scope="module")
def repository(exported: Path) -> Iterator[Repository]:
    """letters 3 and 2, moods 1."""
    opened = load_repository(exported, versions=2)
    yield opened
    opened.stop()


def error_of(repository: Repository, name: str, version: int) -> ServiceError:
    with pytest.raises(ServiceError) as refusal:
        repository.find(name, version, "text-generation")
    return refusal.value


@pytest.mark.parametrize(("version", "found"), [(0, 3), (3, 3), (2, 2)])
def test_version_zero_means_the_newest_and_others_mean_themselves(
    repository: Repository, version: int, found: int
) -> None:
    assert repository.find("letters", version, "text-generation").spec.version == found


def test_unknown_model_is_answered_with_those_there_are(repository: Repository) -> None:
    error = error_of(repository, "latters", 0)
    assert isinstance(error, NotFound)
    assert str(error) == "model 'latters': expected one of letters, moods, found no such model"


@pytest.mark.parametrize("version", [1, 99])
def test_unknown_version_is_answered_with_those_that_serve(repository: Repository, version: int) -> None:
    error = error_of(repository, "letters", version)
    assert isinstance(error, NotFound)
    assert str(error) == f"model 'letters': expected one of the versions that serve (3, 2), found {version}"


def test_missing_name_is_answered_with_those_for_the_task(repository: Repository) -> None:
    error = error_of(repository, "", 0)
    assert isinstance(error, InvalidArgument)
    assert str(error) == "model: expected the name of a model (letters), found none"


def test_model_for_another_task_is_answered_with_those_for_the_task(repository: Repository) -> None:
    error = error_of(repository, "moods", 0)
    assert isinstance(error, InvalidArgument)
    assert (
        str(error)
        == "model: expected a model for text-generation (letters), found moods, which is for text-classification"
    )


def test_model_that_is_still_loading_is_not_ready(exported: Path) -> None:
    waiting = Repository(settings_of(exported), Metrics(CollectorRegistry()), ignore_results)
    error = error_of(waiting, "letters", 0)
    assert isinstance(error, NotReady)
    assert str(error) == "model letters version 3 is still loading"


def test_refused_version_is_not_served_with_the_reason(folder: Path, loaded: list[Repository]) -> None:
    spoil(folder / "letters" / "3")
    error = error_of(load(loaded, folder), "letters", 3)
    assert isinstance(error, NotServed)
    assert str(error).startswith("model letters version 3 was refused: sha256 of model.onnx: expected")


def test_entries_are_sorted_by_name_and_newest_first(repository: Repository) -> None:
    assert [(entry.name, entry.version) for entry in repository.entries()] == [
        ("letters", 3),
        ("letters", 2),
        ("moods", 1),
    ]


def test_entry_of_an_empty_repository_is_not_found(tmp_path: Path, loaded: list[Repository]) -> None:
    with pytest.raises(NotFound, match="expected one of none"):
        load(loaded, tmp_path).get("letters", 0)


def test_entry_keeps_the_text_of_its_spec(repository: Repository, exported: Path) -> None:
    entry: Entry = repository.get("letters", 2)
    assert entry.served is not None
    assert entry.served.spec_text == (exported / "letters" / "2" / "model.json").read_text()


def test_repository_is_alive_until_an_engine_has_failed(folder: Path, loaded: list[Repository]) -> None:
    repository = load(loaded, folder)
    assert repository.is_alive()
    repository.find("letters", 0, "text-generation").engine.engines[0].has_failed = True
    assert not repository.is_alive()


@pytest.mark.parametrize(
    ("changes", "slots"),
    [
        ({"engines": 1, "slots": 5}, [5]),
        ({"engines": 2, "slots": 5}, [2, 3]),
        ({"engines": 4, "slots": 2}, [1, 1]),
    ],
)
def test_slots_that_are_set_are_shared_by_the_engines(
    folder: Path, loaded: list[Repository], changes: dict[str, Any], slots: list[int]
) -> None:
    engines = load(loaded, folder, **changes).find("letters", 0, "text-generation").engine.engines
    assert [engine.limits.slots for engine in engines] == slots
    assert all(engine.limits.chunk_rows <= engine.limits.slots for engine in engines)


def test_one_thread_runs_one_engine(folder: Path, loaded: list[Repository]) -> None:
    assert len(load(loaded, folder).find("letters", 0, "text-generation").engine) == 1


# Changes while serving.


async def serving(
    loaded: list[Repository], folder: Path, metrics: Metrics | None = None, **changes: Any
) -> Repository:
    return await asyncio.to_thread(load, loaded, folder, metrics, **changes)


def put(exported: Path, folder: Path, version: int) -> None:
    shutil.copytree(exported / "letters" / str(version), folder / "letters" / str(version))


def take_away(folder: Path, *versions: int) -> None:
    for version in versions:
        shutil.rmtree(folder / "letters" / str(version))


async def known_after_drain(repository: Repository) -> dict[tuple[str, int], Status]:
    async with asyncio.timeout(10):
        await repository.drained()
    return statuses(repository)


async def test_newer_version_takes_over_and_the_older_one_is_forgotten(
    exported: Path, folder: Path, loaded: list[Repository]
) -> None:
    take_away(folder, 3)
    metrics = Metrics(CollectorRegistry())
    repository = await serving(loaded, folder, metrics)
    put(exported, folder, 3)
    entry = await repository.load("letters", 0)
    assert (entry.version, entry.status) == (3, Status.READY)
    assert repository.find("letters", 0, "text-generation").spec.version == 3
    assert ("letters", 2) not in await known_after_drain(repository)
    assert isinstance(error_of(repository, "letters", 2), NotFound)
    shown = {
        sample.labels["version"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "seqserve_model_slots"
    }
    assert shown == {"3", "1"}


async def test_replaced_version_drains_while_it_is_used(
    exported: Path, folder: Path, loaded: list[Repository]
) -> None:
    take_away(folder, 3)
    repository = await serving(loaded, folder)
    old = repository.find("letters", 0, "text-generation")
    put(exported, folder, 3)
    with old.uses:
        await repository.load("letters", 3)
        assert repository.get("letters", 2).status is Status.DRAINING
        assert isinstance(error_of(repository, "letters", 2), NotFound)
        assert old.engine.engines[0]._thread.is_alive()  # type: ignore[union-attr]
    assert ("letters", 2) not in await known_after_drain(repository)
    assert not old.engine.engines[0]._thread.is_alive()  # type: ignore[union-attr]


async def test_bad_version_is_refused_and_the_old_one_goes_on(
    folder: Path, loaded: list[Repository], exported: Path
) -> None:
    take_away(folder, 3)
    metrics = Metrics(CollectorRegistry())
    repository = await serving(loaded, folder, metrics)
    put(exported, folder, 3)
    spoil(folder / "letters" / "3")
    with pytest.raises(NotServed, match=r"model letters version 3 was refused: sha256 of model\.onnx"):
        await repository.load("letters", 3)
    assert repository.get("letters", 3).status is Status.FAILED
    assert repository.find("letters", 0, "text-generation").spec.version == 2
    assert metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "spec"}) == 1


@pytest.mark.parametrize(
    ("name", "version"), [("letters", 9), ("none", 0), ("none", 1), ("../letters", 1), ("", 0)]
)
async def test_what_is_not_on_disk_cannot_be_loaded(
    folder: Path, loaded: list[Repository], name: str, version: int
) -> None:
    repository = await serving(loaded, folder)
    with pytest.raises(NotFound, match="on disk"):
        await repository.load(name, version)


async def test_version_that_serves_is_not_loaded_anew(folder: Path, loaded: list[Repository]) -> None:
    repository = await serving(loaded, folder)
    before = repository.get("letters", 3)
    assert await repository.load("letters", 3) is before


async def test_changed_version_of_the_same_number_replaces_the_old(
    folder: Path, loaded: list[Repository]
) -> None:
    repository = await serving(loaded, folder)
    old = repository.find("letters", 3, "text-generation")
    spec_of(folder / "letters" / "3", metrics={"held_out_loss": 2.0})
    with old.uses:
        entry = await repository.load("letters", 3)
        assert entry.served is not None
        assert entry.served.spec.metrics == {"held_out_loss": 2.0}
    assert repository.find("letters", 0, "text-generation") is entry.served


async def test_changed_version_that_is_bad_leaves_the_old_of_its_number(
    folder: Path, loaded: list[Repository]
) -> None:
    repository = await serving(loaded, folder)
    old = repository.find("letters", 3, "text-generation")
    spec_of(folder / "letters" / "3", hidden=7)
    with pytest.raises(NotServed):
        await repository.load("letters", 3)
    assert repository.find("letters", 3, "text-generation") is old
    assert "what is on disk now was refused: model.json" in repository.get("letters", 3).message


async def test_older_version_that_is_asked_for_serves_beside_the_newer(
    folder: Path, loaded: list[Repository]
) -> None:
    repository = await serving(loaded, folder)
    await repository.load("letters", 1)
    assert repository.find("letters", 0, "text-generation").spec.version == 3
    await repository.unload("letters", 3)
    assert repository.find("letters", 0, "text-generation").spec.version == 1


async def test_unload_ends_when_nothing_is_in_flight(folder: Path, loaded: list[Repository]) -> None:
    repository = await serving(loaded, folder, versions=2)
    old = repository.find("letters", 0, "text-generation")
    with old.uses:
        unloading = asyncio.create_task(repository.unload("letters", 0))
        await asyncio.sleep(0)  # it is given to the worker
        # Which takes changes one after the other: when this one is over, that one has begun.
        await repository.load("moods", 1)
        assert repository.get("letters", 3).status is Status.DRAINING
        assert not unloading.done()
    await unloading
    assert ("letters", 3) not in statuses(repository)
    assert repository.find("letters", 0, "text-generation").spec.version == 2


async def test_unload_of_what_does_not_serve_is_not_found(folder: Path, loaded: list[Repository]) -> None:
    repository = await serving(loaded, folder)
    with pytest.raises(NotFound):
        await repository.unload("letters", 2)


async def test_version_whose_folder_is_gone_is_replaced_by_the_next_older(
    folder: Path, loaded: list[Repository]
) -> None:
    repository = await serving(loaded, folder)
    take_away(folder, 3)
    await repository.remove("letters", 3)
    assert statuses(repository) == {("letters", 2): Status.READY, ("moods", 1): Status.READY}


async def test_counts_of_a_model_outlive_its_versions(
    exported: Path, folder: Path, loaded: list[Repository]
) -> None:
    take_away(folder, 3)
    metrics = Metrics(CollectorRegistry())
    repository = await serving(loaded, folder, metrics)
    repository.find("letters", 0, "text-generation").counts[0].tokens_generated.inc(5)
    put(exported, folder, 3)
    await repository.load("letters", 0)
    assert ("letters", 2) not in await known_after_drain(repository)
    assert metrics.registry.get_sample_value("seqserve_tokens_generated_total", {"model": "letters"}) == 5


async def test_changes_of_one_model_come_one_after_the_other(
    exported: Path, folder: Path, loaded: list[Repository]
) -> None:
    take_away(folder, 3)
    repository = await serving(loaded, folder)
    put(exported, folder, 3)
    first, second, _ = await asyncio.gather(
        repository.load("letters", 3), repository.load("letters", 3), repository.unload("letters", 3)
    )
    assert first is second
    assert ("letters", 3) not in await known_after_drain(repository)
