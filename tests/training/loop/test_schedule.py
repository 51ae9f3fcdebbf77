"""The schedule: the learning rate by steps and by time, and when training ends."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.loop import fit as loop
from training.loop.checkpoint import CHECKPOINT_FILE, read_history
from training.loop.course import read_course
from training.loop.fit import build_network, fit
from training.loop.schedule import Schedule, Spent, best_epoch, ending, rate_at, rate_now
from training.networks.network import NetworkConfig, RecurrentNetwork

CONFIG = NetworkConfig("gru", 1, 4, 1, features=1)
LOSSES = st.lists(st.floats(0, 10), max_size=12)


class _Told:
    """Objective whose development losses are given."""

    steps_per_epoch = 4

    def __init__(self, develop: list[float]) -> None:
        self.network: RecurrentNetwork = build_network(CONFIG, 0, "cpu")
        self._develop = iter(develop)

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002
        for _ in range(self.steps_per_epoch):
            hidden, _state = self.network(torch.randn(2, 3, 1))
            yield self.network.outputs_of(hidden).square().mean()

    def develop(self) -> float:
        return next(self._develop)


def _ending_of(folder: Path) -> str | None:
    course = read_course(folder)
    assert course is not None
    return course.ending


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by a second whenever it is read."""
    ticks = count(0.0)
    monkeypatch.setattr(loop, "monotonic", lambda: next(ticks))


def test_learning_rate_rises_then_falls_to_a_fiftieth() -> None:
    rates = [rate_at(step, 1000, 1.0) for step in range(1000)]
    peak = rates.index(max(rates))
    assert max(rates) == 1.0
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


@given(st.lists(st.floats(0, 200), min_size=2, max_size=20).map(sorted))
def test_learning_rate_comes_down_by_the_time_limit_however_few_steps_are_done(times: list[float]) -> None:
    schedule = Schedule(epochs=10, learning_rate=1.0, time_limit_s=100.0)
    rates = [rate_now(schedule, Spent(step, seconds), 10**6) for step, seconds in enumerate(times, 40_000)]
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert rate_now(schedule, Spent(3, 100.0), 10**6) == pytest.approx(0.02)


def test_learning_rate_follows_the_steps_where_they_are_done_before_the_time() -> None:
    schedule = Schedule(epochs=10, learning_rate=1.0)
    limited = replace(schedule, time_limit_s=1e9)
    assert [rate_now(limited, Spent(step, step / 10), 1000) for step in range(1000)] == [
        rate_now(schedule, Spent(step, step / 10), 1000) for step in range(1000)
    ]


@given(LOSSES)
def test_kept_epoch_is_the_first_with_the_least_loss(develop: list[float]) -> None:
    assert best_epoch(develop) == (develop.index(min(develop)) + 1 if develop else 0)


@given(LOSSES, st.integers(0, 4))
def test_training_ends_by_patience_once_the_best_loss_is_that_many_epochs_ago(
    develop: list[float], patience: int
) -> None:
    found = ending(Schedule(20, 1e-3, patience=patience), develop, 0.0)
    assert found == ("patience" if patience and len(develop) - best_epoch(develop) >= patience else None)


def test_early_end_keeps_the_best_weights_and_is_noted_in_the_checkpoint(tmp_path: Path) -> None:
    losses = [3.0, 2.0, 2.5, 2.0, 1.0]
    history = fit(_Told(losses), Schedule(5, 1e-2, patience=2), tmp_path, False, {})
    assert [epoch.develop for epoch in history] == losses[:4]
    assert _ending_of(tmp_path) == "patience"
    kept = _Told([])
    fit(kept, Schedule(5, 1e-2, patience=2), tmp_path, True, {})
    best = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)["best"]
    assert all(torch.equal(best[name], value) for name, value in kept.network.state_dict().items())


def test_run_that_ended_early_goes_on_with_more_patience(tmp_path: Path) -> None:
    fit(_Told([1.0, 2.0, 2.0]), Schedule(5, 1e-2, patience=2), tmp_path, False, {})
    history = fit(_Told([0.5, 0.6]), Schedule(5, 1e-2, patience=0), tmp_path, True, {})
    assert [epoch.develop for epoch in history] == [1.0, 2.0, 2.0, 0.5, 0.6]
    assert _ending_of(tmp_path) == "epochs"


@pytest.mark.usefixtures("clock")
def test_time_limit_ends_training_within_an_epoch_and_measures_what_is_there(tmp_path: Path) -> None:
    schedule = Schedule(1000, 1e-2, time_limit_s=30.0)
    history = fit(_Told([1.0] * 1000), schedule, tmp_path, False, {})
    assert 1 < len(history) < 30
    assert _ending_of(tmp_path) == "time"
    assert read_history(tmp_path / CHECKPOINT_FILE) == history
    resumed = fit(_Told([]), schedule, tmp_path, True, {})
    assert resumed == history


@pytest.mark.usefixtures("clock")
def test_shortest_time_limit_still_leaves_one_step(tmp_path: Path) -> None:
    history = fit(_Told([1.0]), Schedule(9, 1e-2, time_limit_s=0.001), tmp_path, False, {})
    assert [epoch.time_steps for epoch in history] == [6]
