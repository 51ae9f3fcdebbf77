"""service.models.repository."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.engine.driver import ThreadDriver
from service.errors import NotFound, NotServed, Withdrawn
from service.models.draining import MAX_DRAINING
from service.models.loading import Served
from service.models.repository import Repository
from service.models.table import Status
from service.models.trial import Trial
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.service.builders import ignore_change, repository_of, spec_of
from tests.service.models.conftest import Load


def spoil(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"spoilt")


def statuses(repository: Repository) -> dict[tuple[str, int], Status]:
    return {(entry.name, entry.version): entry.status for entry in repository.table.entries()}


# Loading.


def test_newest_version_alone_is_served(folder: Path, load: Load) -> None:
    assert statuses(load(folder)) == {("letters", 3): Status.READY, ("moods", 1): Status.READY}


def test_versions_setting_serves_several(folder: Path, load: Load) -> None:
    repository = load(folder, versions=2)
    assert statuses(repository) == {
        ("letters", 3): Status.READY,
        ("letters", 2): Status.READY,
        ("moods", 1): Status.READY,
    }


def test_bad_newest_version_leaves_the_next_older_one_serving(folder: Path, load: Load) -> None:
    spoil(folder / "letters" / "3")
    repository = load(folder)
    assert statuses(repository) == {
        ("letters", 3): Status.FAILED,
        ("letters", 2): Status.READY,
        ("moods", 1): Status.READY,
    }
    assert repository.table.find("letters", 0, "text-generation").spec.version == 2


def test_bad_versions_do_not_count_towards_the_versions_setting(folder: Path, load: Load) -> None:
    spoil(folder / "letters" / "3")
    found = statuses(load(folder, versions=2))
    assert [found["letters", version] for version in (3, 2, 1)] == [Status.FAILED, Status.READY, Status.READY]


def test_model_without_a_good_version_leaves_others_serving(folder: Path, load: Load) -> None:
    for version in ("1", "2", "3"):
        spoil(folder / "letters" / version)
    repository = load(folder)
    assert repository.table.find("moods", 0, "text-classification").spec.name == "moods"
    assert repository.table.get("letters", 0).version == 3


def test_error_that_nobody_foresaw_leaves_others_serving(
    folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("service.models.preparing.read_tokenizer", explode)
    repository = load(folder)
    assert (
        repository.table.get("moods", 0).message == "check 'unexpected' failed: ZeroDivisionError: surprise"
    )
    assert repository.table.get("letters", 0).status is Status.READY


def test_newest_version_of_every_model_is_tried_before_any_older_one(
    folder: Path, stopped: list[Repository]
) -> None:
    """Each bad version may take the whole time of a trial, and one model's delayed all others' start."""
    for version in ("2", "3"):
        spoil(folder / "letters" / version)
    stopped.append(repository := repository_of(folder, versions=2))
    told: list[tuple[str, int]] = []

    def note_the_loading() -> None:
        told.extend(one for one, status in statuses(repository).items() if status is Status.LOADING)

    repository.load_all(note_the_loading)
    assert list(dict.fromkeys(told[2:])) == [("letters", 3), ("moods", 1), ("letters", 2), ("letters", 1)]
    assert told[-1] == ("letters", 1)
    assert statuses(repository)["letters", 1] is Status.READY


def test_empty_folder_serves_nothing(tmp_path: Path, load: Load) -> None:
    assert load(tmp_path).table.entries() == []


def test_newest_version_of_every_model_is_loading_before_anything_is_loaded(folder: Path) -> None:
    assert statuses(repository_of(folder)) == {("letters", 3): Status.LOADING, ("moods", 1): Status.LOADING}


def test_every_change_is_told_when_it_has_been_made(folder: Path, stopped: list[Repository]) -> None:
    spoil(folder / "letters" / "3")
    told: list[dict[int, Status]] = []
    stopped.append(repository := repository_of(folder))
    repository.load_all(
        lambda: told.append(
            {version: one for (name, version), one in statuses(repository).items() if name == "letters"}
        )
    )
    assert told == [
        {3: Status.LOADING},  # as it was made
        {3: Status.LOADING},
        {3: Status.FAILED},
        {3: Status.FAILED},  # the changes of another model
        {3: Status.FAILED},
        {3: Status.FAILED, 2: Status.LOADING},
        {3: Status.FAILED, 2: Status.READY},
    ]


def test_refused_version_tells_the_reason(folder: Path, load: Load) -> None:
    spoil(folder / "letters" / "3")
    with pytest.raises(
        NotServed, match=r"model letters version 3 was refused: sha256 of model\.onnx: expected"
    ):
        load(folder).table.find("letters", 3, "text-generation")


def test_metrics_show_what_serves_and_what_failed(folder: Path, load: Load) -> None:
    spoil(folder / "letters" / "3")
    metrics = Metrics(CollectorRegistry())
    load(folder, metrics)
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


def test_repository_is_alive_until_an_engine_has_failed(folder: Path, load: Load) -> None:
    repository = load(folder)
    assert repository.is_alive()
    repository.table.find("letters", 0, "text-generation").engine.engines[0].facts.has_failed = True
    assert not repository.is_alive()


# Changes while serving.


def put(letters_and_moods: Path, folder: Path, version: int) -> None:
    shutil.copytree(letters_and_moods / "letters" / str(version), folder / "letters" / str(version))


def take_away(folder: Path, *versions: int) -> None:
    for version in versions:
        shutil.rmtree(folder / "letters" / str(version))


def assert_not_found(repository: Repository, name: str, version: int) -> None:
    with pytest.raises(NotFound):
        repository.table.find(name, version, "text-generation")


def is_driven(served: Served) -> bool:
    """Return whether the thread of a version's one engine runs."""
    [driver] = served.drivers
    assert isinstance(driver, ThreadDriver)
    return driver._thread.is_alive()


async def known_after_drain(repository: Repository) -> dict[tuple[str, int], Status]:
    async with asyncio.timeout(10):
        await repository.drained()
    return statuses(repository)


async def test_newer_version_takes_over_and_the_older_one_is_forgotten(
    letters_and_moods: Path, folder: Path, load: Load
) -> None:
    take_away(folder, 3)
    metrics = Metrics(CollectorRegistry())
    repository = load(folder, metrics)
    put(letters_and_moods, folder, 3)
    entry = await repository.load("letters", 0)
    assert (entry.version, entry.status) == (3, Status.READY)
    assert repository.table.find("letters", 0, "text-generation").spec.version == 3
    assert ("letters", 2) not in await known_after_drain(repository)
    assert_not_found(repository, "letters", 2)
    shown = {
        sample.labels["version"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "seqserve_model_slots"
    }
    assert shown == {"3", "1"}


async def test_replaced_version_drains_while_it_is_used(
    letters_and_moods: Path, folder: Path, load: Load
) -> None:
    take_away(folder, 3)
    repository = load(folder, engine_driver="thread")
    old = repository.table.find("letters", 0, "text-generation")
    put(letters_and_moods, folder, 3)
    with old.leases:
        await repository.load("letters", 3)
        assert repository.table.get("letters", 2).status is Status.DRAINING
        assert_not_found(repository, "letters", 2)
        assert is_driven(old)
    assert ("letters", 2) not in await known_after_drain(repository)
    assert not is_driven(old)


async def test_bad_version_is_refused_and_the_old_one_goes_on(
    folder: Path, load: Load, letters_and_moods: Path
) -> None:
    take_away(folder, 3)
    metrics = Metrics(CollectorRegistry())
    repository = load(folder, metrics)
    put(letters_and_moods, folder, 3)
    spoil(folder / "letters" / "3")
    with pytest.raises(NotServed, match=r"model letters version 3 was refused: sha256 of model\.onnx"):
        await repository.load("letters", 3)
    assert repository.table.get("letters", 3).status is Status.FAILED
    assert repository.table.find("letters", 0, "text-generation").spec.version == 2
    assert metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "spec"}) == 1


@pytest.mark.parametrize(
    ("name", "version"), [("letters", 9), ("none", 0), ("none", 1), ("../letters", 1), ("", 0)]
)
async def test_what_is_not_on_disk_cannot_be_loaded(
    folder: Path, load: Load, name: str, version: int
) -> None:
    repository = load(folder)
    with pytest.raises(NotFound, match="on disk"):
        await repository.load(name, version)


async def test_version_that_serves_is_not_loaded_anew(folder: Path, load: Load) -> None:
    repository = load(folder)
    before = repository.table.get("letters", 3)
    assert await repository.load("letters", 3) is before


async def test_changed_version_of_the_same_number_replaces_the_old(folder: Path, load: Load) -> None:
    repository = load(folder)
    old = repository.table.find("letters", 3, "text-generation")
    spec_of(folder / "letters" / "3", metrics={"held_out_loss": 2.0})
    with old.leases:
        entry = await repository.load("letters", 3)
        assert entry.served is not None
        assert entry.served.spec.metrics == {"held_out_loss": 2.0}
    assert repository.table.find("letters", 0, "text-generation") is entry.served


async def test_changed_version_that_is_bad_leaves_the_old_of_its_number(folder: Path, load: Load) -> None:
    repository = load(folder)
    old = repository.table.find("letters", 3, "text-generation")
    spec_of(folder / "letters" / "3", hidden=7)
    with pytest.raises(NotServed):
        await repository.load("letters", 3)
    assert repository.table.find("letters", 3, "text-generation") is old
    assert "what is on disk now was refused: model.json" in repository.table.get("letters", 3).message


async def test_older_version_that_is_asked_for_serves_beside_the_newer(folder: Path, load: Load) -> None:
    repository = load(folder)
    await repository.load("letters", 1)
    assert repository.table.find("letters", 0, "text-generation").spec.version == 3
    await repository.unload("letters", 3)
    assert repository.table.find("letters", 0, "text-generation").spec.version == 1


async def test_unload_ends_when_nothing_is_in_flight(folder: Path, load: Load) -> None:
    repository = load(folder, versions=2)
    old = repository.table.find("letters", 0, "text-generation")
    with old.leases:
        unloading = asyncio.create_task(repository.unload("letters", 0))
        await asyncio.sleep(0)  # it is given to the worker
        # Which takes changes one after the other: when this one is over, that one has begun.
        await repository.load("moods", 1)
        assert repository.table.get("letters", 3).status is Status.DRAINING
        assert not unloading.done()
    await unloading
    assert ("letters", 3) not in statuses(repository)
    assert repository.table.find("letters", 0, "text-generation").spec.version == 2


async def test_unload_of_what_does_not_serve_is_not_found(folder: Path, load: Load) -> None:
    repository = load(folder)
    with pytest.raises(NotFound):
        await repository.unload("letters", 2)


async def test_version_whose_folder_is_gone_is_replaced_by_the_next_older(folder: Path, load: Load) -> None:
    repository = load(folder)
    take_away(folder, 3)
    await repository.remove("letters", 3)
    assert statuses(repository) == {("letters", 2): Status.READY, ("moods", 1): Status.READY}


async def test_counts_of_a_model_outlive_its_versions(
    letters_and_moods: Path, folder: Path, load: Load
) -> None:
    take_away(folder, 3)
    metrics = Metrics(CollectorRegistry())
    repository = load(folder, metrics)
    repository.table.find("letters", 0, "text-generation").counts[0].tokens_generated.inc(5)
    put(letters_and_moods, folder, 3)
    await repository.load("letters", 0)
    assert ("letters", 2) not in await known_after_drain(repository)
    assert metrics.registry.get_sample_value("seqserve_tokens_generated_total", {"model": "letters"}) == 5


async def test_changes_of_one_model_come_one_after_the_other(
    letters_and_moods: Path, folder: Path, load: Load
) -> None:
    take_away(folder, 3)
    repository = load(folder)
    put(letters_and_moods, folder, 3)
    first, second, _ = await asyncio.gather(
        repository.load("letters", 3), repository.load("letters", 3), repository.unload("letters", 3)
    )
    assert first is second
    assert ("letters", 3) not in await known_after_drain(repository)


class HangingTrial(Trial):
    """Trials that last until they are stopped."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.begun, self.ended = threading.Event(), threading.Event()

    def _ask(self, *folders: Path) -> dict[str, str]:  # noqa: ARG002  # that of the class
        self.begun.set()
        assert self.ended.wait(10)
        raise self._refusal("its process ended by SIGKILL")

    def stop(self) -> None:
        super().stop()
        self.ended.set()


async def test_load_that_the_stop_ends_is_no_failure_of_the_version(folder: Path) -> None:
    """It was logged as an error and counted, so that each stop during a load raised an alert."""
    metrics = Metrics(CollectorRegistry())
    repository = repository_of(folder, metrics, HangingTrial)
    trial = repository._admission._loader._trial
    assert isinstance(trial, HangingTrial)
    with capture_logs() as logs:
        loading = asyncio.create_task(asyncio.to_thread(repository.load_all, ignore_change))
        await asyncio.to_thread(trial.begun.wait, 10)
        await asyncio.to_thread(repository.stop)
        await loading
    assert set(statuses(repository).values()) == {Status.FAILED}
    assert [one for one in logs if one["log_level"] == "error"] == []
    counted = metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "trial"})
    assert counted is None


async def test_calls_of_the_oldest_of_many_draining_versions_are_withdrawn(folder: Path, load: Load) -> None:
    """A caller who never reads kept each replaced version, with its memory and threads, for good."""
    repository = load(folder)
    held: list[asyncio.Task[None]] = []

    async def hold(served: Served, begun: asyncio.Event) -> None:
        with served.leases:
            begun.set()
            await asyncio.Event().wait()

    for count in range(MAX_DRAINING + 2):
        begun = asyncio.Event()
        served = repository.table.find("letters", 0, "text-generation")
        held.append(asyncio.create_task(hold(served, begun)))
        await begun.wait()
        spec_of(folder / "letters" / "3", metrics={"count": float(count)})
        await repository.load("letters", 3)
    withdrawn, others = held[:-MAX_DRAINING], held[-MAX_DRAINING:]
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*withdrawn, return_exceptions=True)
    assert [type(error) for error in ended] == [Withdrawn] * 2
    assert not any(task.done() for task in others)
    for task in others:
        task.cancel()
    await known_after_drain(repository)
