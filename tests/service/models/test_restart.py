"""service.models.repository: a version whose engine has failed is loaded anew, a few times.

The model is a real one, and so are its engine, its driver and its trial. What fails is the engine's turn.
"""

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry

from service.engine.driver import Kind, ThreadDriver
from service.engine.request import ANYONE
from service.errors import ModelFailure
from service.models import repository as module
from service.models.loading import Served
from service.models.repository import MAX_RESTARTS, Repository
from service.models.table import Status
from service.observability.metrics import Metrics
from service.tasks.classification import ClassificationTask, Classified
from service.tasks.generation import GenerationTask
from tests.service.builders import repository_of
from tests.service.models.conftest import Load

TEXTS = ["a good film", "not very bad"]
PATIENCE_S = 60.0


class Moods:
    """A repository that serves the model moods, whose engines a test makes fail."""

    def __init__(self, repository: Repository, metrics: Metrics) -> None:
        self.repository = repository
        self.metrics = metrics

    @property
    def served(self) -> Served:
        return self.repository.table.find("moods", 0, "text-classification")

    @property
    def can_answer(self) -> bool:
        return self.repository.table.get("moods", 0).can_answer

    @property
    def restarts(self) -> float:
        """Restarts counted."""
        found = self.metrics.registry.get_sample_value("seqserve_engine_restarts_total", {"model": "moods"})
        return found or 0.0

    async def classify(self) -> list[Classified]:
        task = self.served.task
        assert isinstance(task, ClassificationTask)
        return await task.classify(TEXTS, ANYONE)

    async def fail(self) -> Served:
        """Have a request in a turn that fails; return the version whose engine it was."""
        served = self.served
        for engine in served.engine.engines:
            engine.run_turn = _explode  # type: ignore[method-assign]
        with pytest.raises(ModelFailure, match="its engine has stopped on an error"):
            await self.classify()
        return served

    async def worked(self) -> None:
        """Wait until the repository's worker has done what it was given so far."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wrap_future(self.repository._worker.submit(int))

    async def settle(self) -> None:
        """Wait until the worker has done what it was given so far, and until nothing drains."""
        await self.worked()
        async with asyncio.timeout(PATIENCE_S):
            await self.repository.drained()


def _explode() -> NoReturn:
    raise ZeroDivisionError("a fault of the engine")


@pytest.fixture(params=["thread", "loop"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def moods_of(load: Load, folder: Path, kind: Kind = "thread", engines: int = 1) -> Moods:
    metrics = Metrics(CollectorRegistry())
    return Moods(load(folder, metrics, engine_driver=kind, engines=engines, slots=4), metrics)


async def test_model_whose_engine_failed_answers_again_by_itself(
    load: Load, models: Path, kind: Kind
) -> None:
    moods = moods_of(load, models, kind)
    before = await moods.classify()
    failed = await moods.fail()
    await moods.settle()
    assert moods.served is not failed
    assert await moods.classify() == before
    assert moods.restarts == 1


async def test_calls_in_between_fail_as_the_model_did_or_are_answered(
    load: Load, models: Path, kind: Kind
) -> None:
    moods = moods_of(load, models, kind)
    right = await moods.classify()
    await moods.fail()
    failures = 0
    async with asyncio.timeout(PATIENCE_S):
        while not moods.can_answer:
            with pytest.raises(ModelFailure, match="the server's log has the trace"):
                await moods.classify()
            failures += 1
            await asyncio.sleep(0.01)
        assert await moods.classify() == right
    assert failures > 0


async def test_requests_that_wait_fail_with_the_engine_and_none_is_left_waiting(
    load: Load, models: Path, kind: Kind
) -> None:
    moods = moods_of(load, models, kind)
    [engine] = moods.served.engine.engines
    engine.run_turn = _explode  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*(moods.classify() for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in found} == {ModelFailure}


async def test_other_models_go_on_meanwhile(load: Load, models: Path, kind: Kind) -> None:
    moods = moods_of(load, models, kind)
    letters = moods.repository.table.find("letters", 0, "text-generation")
    await moods.fail()
    await moods.settle()
    assert moods.repository.table.find("letters", 0, "text-generation") is letters


async def test_repository_is_alive_while_the_model_is_loaded_anew(
    load: Load, models: Path, kind: Kind
) -> None:
    moods = moods_of(load, models, kind)
    await moods.fail()
    assert not moods.can_answer
    assert moods.repository.is_alive()
    await moods.settle()
    assert moods.can_answer
    assert moods.repository.is_alive()


async def test_engine_that_fails_too_often_stays_stopped(load: Load, models: Path, kind: Kind) -> None:
    moods = moods_of(load, models, kind)
    for _ in range(MAX_RESTARTS):
        await moods.fail()
        await moods.settle()
    assert moods.can_answer
    last = await moods.fail()
    await moods.settle()
    assert moods.served is last
    assert not moods.can_answer
    assert not moods.repository.is_alive()
    assert moods.restarts == MAX_RESTARTS
    with pytest.raises(ModelFailure):
        await moods.classify()


async def test_restarts_of_long_ago_do_not_count(
    load: Load, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RESTARTS", 1)
    monkeypatch.setattr(module, "RESTART_WINDOW_S", 0.0)
    moods = moods_of(load, models)
    for count in (1, 2):
        await moods.fail()
        await moods.settle()
        assert (moods.can_answer, moods.restarts) == (True, count)


async def test_engines_of_one_version_that_fail_together_are_one_failure(
    load: Load, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RESTARTS", 2)
    moods = moods_of(load, models, engines=2)
    for count in (1, 2):
        failed = moods.served
        for engine in failed.engine.engines:
            engine.run_turn = _explode  # type: ignore[method-assign]
        # Two texts of one call are dealt to two engines.
        with pytest.raises(ModelFailure):
            await moods.classify()
        await moods.settle()
        await moods.settle()  # what the second engine has asked for
        assert all(engine.facts.has_failed for engine in failed.engine.engines)
        assert (moods.can_answer, moods.restarts) == (True, count)


async def test_failed_version_is_let_go_when_nothing_needs_it(load: Load, models: Path) -> None:
    moods = moods_of(load, models)
    with moods.served.leases:
        failed = await moods.fail()
        await moods.worked()
        assert moods.can_answer
        assert is_driven(failed)
    await moods.settle()
    assert not is_driven(failed)


def is_driven(served: Served) -> bool:
    [driver] = served.drivers
    assert isinstance(driver, ThreadDriver)
    return driver._thread.is_alive()


async def test_version_that_is_refused_when_it_is_loaded_anew_stays_failed(load: Load, folder: Path) -> None:
    moods = moods_of(load, folder)
    (folder / "moods" / "1" / "model.onnx").write_bytes(b"spoilt")
    failed = await moods.fail()
    await moods.settle()
    assert moods.served is failed
    assert moods.repository.table.get("moods", 1).status is Status.READY
    assert not moods.repository.is_alive()
    assert moods.restarts == 0


async def test_version_that_was_unloaded_meanwhile_is_not_loaded_anew(load: Load, models: Path) -> None:
    moods = moods_of(load, models)
    served = moods.served
    task = served.task
    assert isinstance(task, ClassificationTask)
    with served.leases:
        unloading = asyncio.create_task(moods.repository.unload("moods", 1))
        await asyncio.sleep(0)
        for engine in served.engine.engines:
            engine.run_turn = _explode  # type: ignore[method-assign]
        with pytest.raises(ModelFailure):
            await task.classify(TEXTS, ANYONE)
    await unloading
    await moods.settle()
    assert "moods" not in {entry.name for entry in moods.repository.table.entries()}
    assert moods.restarts == 0
    assert moods.repository.is_alive()


async def test_failure_and_restart_are_told(models: Path, stopped: list[Repository]) -> None:
    told: list[bool] = []
    metrics = Metrics(CollectorRegistry())
    stopped.append(repository := repository_of(models, metrics, engine_driver="thread"))
    moods = Moods(repository, metrics)
    repository.load_all(lambda: told.append(moods.can_answer))
    told.clear()
    await moods.fail()
    await moods.settle()
    assert told == [False, True]


async def test_failure_of_an_engine_while_the_server_stops_restarts_nothing(load: Load, models: Path) -> None:
    moods = moods_of(load, models)
    moods.repository._worker.shutdown()
    failed = await moods.fail()
    assert moods.served is failed
    assert not moods.repository.is_alive()


async def test_restart_displaces_no_older_version_that_serves_beside(load: Load, folder: Path) -> None:
    repository = load(folder, engine_driver="thread")
    await repository.load("letters", 1)
    failed = repository.table.find("letters", 3, "text-generation")
    for engine in failed.engine.engines:
        engine.run_turn = _explode  # type: ignore[method-assign]
    task = failed.task
    assert isinstance(task, GenerationTask)
    with pytest.raises(ModelFailure):
        await task.score(await task.encode_texts(["abc"], ANYONE), ANYONE)
    await Moods(repository, Metrics(CollectorRegistry())).settle()
    assert [entry.version for entry in repository.table.serving("letters")] == [3, 1]
    assert repository.table.find("letters", 3, "text-generation") is not failed
