"""What a run remembers of its epochs, for the model card."""

from pathlib import Path

import torch

from tests.training.conftest import Command
from training.loop.checkpoint import read_history
from training.loop.fit import build_network
from training.networks.network import NetworkConfig
from training.recipes.charlm import SAMPLE_LENGTH, sample_text

CONFIG = NetworkConfig("lstm", 1, 8, 3, vocabulary=3, embedding=4)


def test_sample_is_the_same_for_the_same_weights_and_leaves_the_generator_alone() -> None:
    network = build_network(CONFIG, 0, "cpu").eval()
    before = torch.get_rng_state()
    first, second = (sample_text(network, "\nab", 0, "cpu") for _ in range(2))
    assert first == second
    assert len(first) == SAMPLE_LENGTH
    assert torch.equal(torch.get_rng_state(), before)


def test_history_holds_losses_time_and_text_of_each_epoch_over_all_resumed_runs(
    command: Command, text_file: Path
) -> None:
    arguments = ("charlm", "--text", text_file, "--name", "a", "--hidden", 8, "--layers", 1, "--epochs", 2)
    assert command(*arguments) == 0
    checkpoint = Path("runs/a/checkpoint.pt")
    history = read_history(checkpoint)
    assert [len(epoch.sample) for epoch in history] == [SAMPLE_LENGTH] * 2
    assert all(epoch.cpu_seconds > 0 for epoch in history)
    assert command(*arguments, "--resume") == 0
    assert read_history(checkpoint) == history


def test_history_of_another_network_or_of_no_run_is_empty(command: Command, text_file: Path) -> None:
    assert (
        command("charlm", "--text", text_file, "--name", "a", "--hidden", 8, "--layers", 1, "--epochs", 1)
        == 0
    )
    assert read_history(Path("runs/a/checkpoint.pt"), CONFIG) == []
    assert read_history(Path("runs/b/checkpoint.pt")) == []
