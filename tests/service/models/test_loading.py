"""service.models.loading: what a version is served with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.engine.driver import LoopDriver, ThreadDriver
from service.models.interface import accept_any
from service.models.loading import Loader, Served
from service.models.tuning import Tuning, tune
from service.observability.metrics import Metrics
from tests import tiny
from tests.service.builders import TrialHere, loop_here, settings_of
from tests.service.models.conftest import Load


def ignore_failure(name: str, version: int) -> None:
    """Take the news that a version's engine has failed and do nothing."""


def served_of(folder: Path, name: str = "moods", **changes: Any) -> Served:
    """Load version 1 of a model; its drivers are not started."""
    settings = settings_of(folder, **changes)
    metrics = Metrics(CollectorRegistry())
    loader = Loader(settings, metrics, loop_here(), ignore_failure, TrialHere(settings))
    return loader.load(folder / name / "1", accept_any)


# Variant and promise.


def test_variant_that_a_model_lacks_falls_back_to_fp32(models: Path) -> None:
    assert served_of(models, variant="int8").variant == "fp32"


def test_rnn_does_not_promise_the_same_bits(tmp_path: Path) -> None:
    tiny.export_generator(tmp_path, "plain", "rnn")
    tiny.export_generator(tmp_path, "gated", "gru")
    assert [served_of(tmp_path, name).batch_invariant for name in ("plain", "gated")] == [False, True]


# Engines.


@pytest.mark.parametrize(
    ("changes", "slots"),
    [
        ({"engines": 1, "slots": 5}, [5]),
        ({"engines": 2, "slots": 5}, [2, 3]),
        ({"engines": 4, "slots": 2}, [1, 1]),
    ],
)
def test_slots_that_are_set_are_shared_by_the_engines(
    models: Path, changes: dict[str, Any], slots: list[int]
) -> None:
    engines = served_of(models, **changes).engine.engines
    assert [engine.limits.slots for engine in engines] == slots
    assert all(engine.limits.chunk_rows <= engine.limits.slots for engine in engines)


def test_one_thread_runs_one_engine(models: Path) -> None:
    assert len(served_of(models).engine) == 1


def test_every_engine_has_a_driver_and_counts_of_its_own(models: Path) -> None:
    served = served_of(models, engines=3, slots=6)
    assert (len(served.engine), len(served.drivers), len(served.counts)) == (3, 3, 4)
    assert [engine.facts.number for engine in served.engine.engines] == [0, 1, 2]


def test_reader_may_fall_back_as_far_as_is_set(models: Path, load: Load) -> None:
    task: Any = load(models, stream_buffer=7).table.find("letters", 0, "text-generation").task
    assert task.limits.backlog == 7


# Drivers.


def measure(monkeypatch: pytest.MonkeyPatch, hand_over_s: float, max_engines: int = 1) -> None:
    """Have the warm-up find what a hand-over between threads costs, and how many engines pay off."""

    def tuned(*arguments: Any) -> Tuning:
        return replace(tune(*arguments), max_engines=max_engines)

    monkeypatch.setattr("service.models.preparing.hand_over_s", lambda: hand_over_s)
    monkeypatch.setattr("service.models.kinds.tune", tuned)


@pytest.mark.parametrize(
    ("hand_over_s", "max_engines", "kind"), [(10.0, 1, "loop"), (0.0, 1, "thread"), (10.0, 2, "thread")]
)
def test_model_runs_in_the_event_loop_where_a_thread_brings_nothing(
    models: Path, monkeypatch: pytest.MonkeyPatch, hand_over_s: float, max_engines: int, kind: str
) -> None:
    measure(monkeypatch, hand_over_s, max_engines)
    served = served_of(models)
    assert [driver.kind for driver in served.drivers] == [kind]
    assert served.tuning.driver == kind


def test_event_loop_runs_one_engine_alone(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, hand_over_s=10.0)
    assert [driver.kind for driver in served_of(models, engines=2, slots=4).drivers] == ["thread"] * 2


@pytest.mark.parametrize(("kind", "driver"), [("thread", ThreadDriver), ("loop", LoopDriver)])
def test_driver_that_is_set_is_not_measured(
    models: Path, monkeypatch: pytest.MonkeyPatch, kind: str, driver: type[object]
) -> None:
    def refuse() -> float:
        raise AssertionError("nobody asked")

    monkeypatch.setattr("service.models.preparing.hand_over_s", refuse)
    [found] = served_of(models, engine_driver=kind).drivers
    assert isinstance(found, driver)
    assert found.kind == kind


def test_chunk_ticks_of_the_event_loop_are_cut_short(models: Path) -> None:
    served = served_of(models, engine_driver="loop")
    [engine] = served.engine.engines
    assert engine.limits.chunk_steps == served.tuning.chunk_steps >= 1
    assert served_of(models, engine_driver="thread").tuning.chunk_steps == 0
