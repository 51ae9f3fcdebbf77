"""service.models.bounded: a preparation that hangs in the server after it has passed its trial."""

import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

from service.contract import spec
from service.errors import ModelRefused
from service.models.bounded import BoundedPreparation
from service.models.choices import Choices
from service.models.preparing import Preparation
from service.models.tried import Tried
from tests.service.builders import edit_graph, settings_of
from tests.service.models.slow_graphs import loop_above


@pytest.fixture
def version(folder: Path) -> Path:
    return folder / "letters" / "3"


def bounded(seconds: float) -> BoundedPreparation:
    return BoundedPreparation(Choices.of(settings_of(Path())), seconds)


def tried(version: Path) -> Tried:
    return Tried(spec.hash_of((version / spec.SPEC_FILE).read_text()), is_batch_invariant=True)


def wait_for_end(name: str) -> None:
    """Wait until no thread of that name runs."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(10)
            assert not thread.is_alive()


def test_good_version_is_prepared(version: Path) -> None:
    assert bounded(60).run(version, tried(version)).spec.version == 3


def test_error_of_the_preparation_is_raised(version: Path) -> None:
    with pytest.raises(spec.SpecError, match="as it was tried"):
        bounded(60).run(version, Tried("0" * 64, is_batch_invariant=True))


def test_graph_that_loops_is_given_up_and_its_run_ends(version: Path) -> None:
    edit_graph(version, loop_above(40))
    with pytest.raises(ModelRefused, match=r"check 'warm-up' failed: .* within 1 s, found no end within"):
        bounded(1).run(version, tried(version))
    wait_for_end("preparing")


def test_work_that_cannot_be_ended_is_left_behind(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(Preparation, "run", lambda *_: release.wait(30))
    preparing = bounded(0.1)
    with pytest.raises(ModelRefused, match="no end within that time"):
        preparing.run(version, tried(version))
    release.set()
    wait_for_end("preparing")
    monkeypatch.undo()
    preparing = bounded(60)
    assert preparing.run(version, tried(version)).spec.version == 3


def test_stop_ends_a_preparation_at_once_and_lets_none_begin(version: Path) -> None:
    edit_graph(version, loop_above(40))
    preparing = bounded(60)
    timer = threading.Timer(0.5, preparing.stop)
    timer.start()
    started = time.monotonic()
    with pytest.raises(ModelRefused, match="a server that is being stopped"):
        preparing.run(version, tried(version))
    assert time.monotonic() - started < 20
    timer.join()
    wait_for_end("preparing")
    with pytest.raises(ModelRefused, match="a server that is being stopped"):
        preparing.run(version, tried(version))


def test_thread_that_cannot_be_started_is_refused(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("service.models.bounded.threading.Thread.start", fail)
    with pytest.raises(ModelRefused, match=r"expected a thread .*, found can't start new thread"):
        bounded(60).run(version, tried(version))
