"""The options of every recipe reach the run, and a checkpoint is bound to those that change its weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import Command

SMALL = ("--hidden", 4, "--layers", 1, "--no-int8", "--epochs", 2)
TUNING = ("--learning-rate", 0.004, "--dropout", 0.2, "--patience", 3, "--time-limit", "5m")


def _run_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(Path("runs") / name / "checkpoint.pt", weights_only=True)
    return found


@pytest.mark.parametrize("recipe", ["generate", "classify", "forecast"])
def test_options_reach_the_run_of_every_recipe(
    command: Command, text_file: Path, reviews_file: Path, prices_file: Path, recipe: str
) -> None:
    task = {
        "generate": (text_file,),
        "classify": (reviews_file, "--text-column", "review", "--label-column", "verdict"),
        "forecast": (prices_file, "--target", "close"),
    }[recipe]
    assert command(recipe, *task, *SMALL, "--name", "it", "--batch", 3, *TUNING) == 0
    made = _run_of("it")
    assert made["schedule"]["learning_rate"] == 0.004
    assert made["schedule"]["batch"] == 3
    assert made["config"]["dropout"] == 0.2
    assert command(recipe, *task, *SMALL, "--name", "it", "--resume", "--batch", 2, *TUNING) == 2


def test_resumed_run_says_which_option_differs_but_for_those_that_end_it(
    command: Command, capsys: pytest.CaptureFixture[str], text_file: Path
) -> None:
    train = ("generate", text_file, *SMALL, "--name", "it", "--resume")
    assert command(*train) == 0
    assert command(*train, "--patience", 1, "--time-limit", "1h") == 0
    assert command(*train, "--learning-rate", 0.5) == 2
    assert "schedule learning_rate=0.005, this run asks for learning_rate=0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--learning-rate", "-1", "--learning-rate: expected a number above 0 and at most 1, found -1.0"),
        ("--batch", "0", "--batch: expected 1 row a step or more, found 0"),
        ("--batch", "1000", "--batch: expected at most 6, the rows there are to train on, found 1,000"),
        ("--dropout", "1", "--dropout: expected a number from 0 to below 1, found 1.0"),
        ("--patience", "-2", "--patience: expected a number of epochs, or 0 for no end, found -2"),
        ("--time-limit", "10", "--time-limit: expected a duration such as 90s, 10m or 1h30m, found '10'"),
        ("--class-weights", "balanced", "No such option"),
    ],
)
def test_wrong_option_is_refused_by_name(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    text_file: Path,
    option: str,
    value: str,
    message: str,
) -> None:
    assert command("generate", text_file, *SMALL, option, value) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_class_weights_of_a_label_that_is_not_there_are_refused(
    command: Command, capsys: pytest.CaptureFixture[str], reviews_file: Path
) -> None:
    columns = ("--text-column", "review", "--label-column", "verdict")
    assert command("classify", reviews_file, *columns, *SMALL, "--class-weights", "great=2") == 2
    assert (
        "--class-weights: expected labels among 'bad', 'good', 'so-so', found 'great'"
        in capsys.readouterr().err
    )
