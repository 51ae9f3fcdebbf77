"""The training loop: repeatable, resumable, and strict about what a checkpoint belongs to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from torch import Tensor

from training.errors import TrainingError
from training.loop.checkpoint import CHECKPOINT_FILE, read_history
from training.loop.fit import build_network, fit
from training.loop.precision import Precision, chosen
from training.loop.progress import counting
from training.loop.schedule import Schedule
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

CONFIG = NetworkConfig("lstm", 2, 8, 3, features=2, dropout=0.3)
SCHEDULE = Schedule(epochs=4, learning_rate=1e-2)
DATA = {"sha256": "0"}


class _Toy:
    """Random inputs every epoch; may be stopped in the middle of one."""

    steps_per_epoch = 3

    def __init__(self, network: RecurrentNetwork, stops_in: int | None = None) -> None:
        self.network = network
        self.stops_in = stops_in

    def losses(self, epoch: int) -> Iterator[Tensor]:
        for step in range(self.steps_per_epoch):
            if epoch == self.stops_in and step == 1:
                raise KeyboardInterrupt
            yield self._loss(torch.randn(4, 5, 2))

    def develop(self) -> float:
        return float(self._loss(torch.linspace(-1, 1, 40).view(4, 5, 2)))

    def _loss(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.network(inputs)
        return (self.network.outputs_of(hidden[:, -1]) - inputs.sum(1)[:, :1]).square().mean()


def _weights(folder: Path, stops_in: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    schedule = replace(SCHEDULE, seed=seed)
    if stops_in is not None:
        with pytest.raises(KeyboardInterrupt):
            fit(_Toy(build_network(CONFIG, seed, "cpu"), stops_in), schedule, folder, False, DATA)
    network = build_network(CONFIG, seed, "cpu")
    fit(_Toy(network), schedule, folder, stops_in is not None, DATA)
    return network.state_dict()


def _are_equal(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(some[name], others[name]) for name in some)


@pytest.mark.parametrize("stops_in", [0, 1, 3])
def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, stops_in: int) -> None:
    assert _are_equal(_weights(tmp_path / "whole"), _weights(tmp_path / "cut", stops_in))


def test_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    first = _weights(tmp_path / "a")
    assert _are_equal(first, _weights(tmp_path / "b"))
    assert not _are_equal(first, _weights(tmp_path / "c", seed=1))


def test_finished_run_resumed_keeps_its_weights_without_training(tmp_path: Path) -> None:
    first = _weights(tmp_path)
    network = build_network(CONFIG, 0, "cpu")
    history = fit(_Toy(network, stops_in=0), SCHEDULE, tmp_path, True, DATA)
    assert len(history) == SCHEDULE.epochs
    assert _are_equal(first, network.state_dict())


def test_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    network = build_network(CONFIG, 0, "cpu")
    toy = _Toy(network)
    history = fit(toy, SCHEDULE, tmp_path, False, DATA)
    with torch.no_grad():
        assert toy.develop() == min(epoch.develop for epoch in history)


@pytest.mark.parametrize(
    ("config", "schedule", "data", "message"),
    [
        (replace(CONFIG, hidden=9), SCHEDULE, DATA, "network hidden=8, this run asks for hidden=9"),
        (CONFIG, replace(SCHEDULE, epochs=5), DATA, "schedule epochs=4, this run asks for epochs=5"),
        (CONFIG, replace(SCHEDULE, batch=5), DATA, "schedule batch=None, this run asks for batch=5"),
        (
            CONFIG,
            replace(SCHEDULE, class_weights="balanced"),
            DATA,
            "schedule class_weights=None, this run asks for class_weights=balanced",
        ),
        (CONFIG, SCHEDULE, {"sha256": "1"}, "data sha256=0, this run asks for sha256=1"),
    ],
    ids=["network", "epochs", "batch", "class weights", "data"],
)
def test_checkpoint_of_another_run_is_refused(
    tmp_path: Path, config: NetworkConfig, schedule: Schedule, data: dict[str, str], message: str
) -> None:
    _weights(tmp_path)
    with pytest.raises(TrainingError, match=message):
        fit(_Toy(build_network(config, 0, "cpu")), schedule, tmp_path, True, data)


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"half a file")
    with pytest.raises(TrainingError, match="no whole checkpoint"):
        fit(_Toy(build_network(CONFIG, 0, "cpu")), SCHEDULE, tmp_path, True, DATA)


def test_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    network = build_network(CONFIG, 0, "cpu")
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="loss became nan in epoch 1, step 1"):
        fit(_Toy(network), SCHEDULE, tmp_path, False, DATA)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bits_learn_about_what_thirty_two_do(
    tmp_path: Path, cell: Cell, precision: Precision
) -> None:
    config = replace(CONFIG, cell=cell, dropout=0.0)
    whole, half = (
        fit(
            _Toy(build_network(config, 0, "cpu")),
            replace(SCHEDULE, precision=one),
            tmp_path / one,
            False,
            DATA,
        )
        for one in ("fp32", precision)
    )
    assert [epoch.train for epoch in half] == pytest.approx([epoch.train for epoch in whole], rel=0.05)
    assert half != whole


def test_run_in_sixteen_bits_is_resumed_in_either(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, precision="fp16")
    with pytest.raises(KeyboardInterrupt):
        fit(_Toy(build_network(CONFIG, 0, "cpu"), 2), schedule, tmp_path, False, DATA)
    cases: list[tuple[str, Precision]] = [("same", "fp16"), ("other", "fp32")]
    for name, precision in cases:
        copytree(tmp_path, tmp_path.with_name(name))
        history = fit(
            _Toy(build_network(CONFIG, 0, "cpu")),
            replace(schedule, precision=precision),
            tmp_path.with_name(name),
            True,
            DATA,
        )
        assert len(history) == SCHEDULE.epochs


def test_automatic_precision_on_a_cpu_is_thirty_two_bits() -> None:
    assert [chosen("auto", "cpu"), chosen("bf16", "cpu")] == ["fp32", "bf16"]


def test_history_counts_the_time_steps_that_were_trained_on(tmp_path: Path) -> None:
    history = fit(_Toy(build_network(CONFIG, 0, "cpu")), SCHEDULE, tmp_path, False, DATA)
    assert [epoch.time_steps for epoch in history] == [3 * 4 * 5] * SCHEDULE.epochs
    assert all(epoch.rate > 0 for epoch in history)
    assert read_history(tmp_path / CHECKPOINT_FILE) == history


def test_padding_is_not_counted() -> None:
    network = build_network(CONFIG, 0, "cpu")
    with counting(network) as counter:
        network(torch.randn(3, 7, 2), torch.tensor([7, 1, 3]))
        network(torch.randn(2, 4, 2), lengths=torch.tensor([1, 4]))
        assert counter.take() == 16
        network(torch.randn(2, 4, 2))
        assert counter.take() == 8
    network(torch.randn(2, 4, 2))
    assert counter.take() == 0


@pytest.mark.parametrize(
    ("device", "message"), [("tpu", "expected cpu, cuda"), ("cuda:64", "--device cpu works")]
)
def test_device_that_is_not_there_is_refused(device: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build_network(CONFIG, 0, device)
