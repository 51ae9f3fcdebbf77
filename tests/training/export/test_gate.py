"""What passes the gates of int8, and what a recipe does with weights that do not."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.contract import spec
from tests.training.conftest import Command
from training.export.gate import Gate
from training.export.quantize import quantize
from training.networks.network import RecurrentNetwork
from training.recipes import run, sentiment, stock, text_losses

FILES = {"model.json", "model.onnx", "README.md", "card.json"}


@pytest.mark.parametrize(
    ("gate", "is_met"),
    [
        (Gate("loss", 0.01, 0.01), True),
        (Gate("loss", 0.01, -0.5), True),
        (Gate("loss", 0.01, 0.0101), False),
        (Gate("loss", 0.01, math.nan), False),
        (Gate("agreement", 99.5, 99.5, is_least=True), True),
        (Gate("agreement", 99.5, 99.49, is_least=True), False),
        (Gate("agreement", 99.5, math.nan, is_least=True), False),
    ],
)
def test_gate_is_met_up_to_its_limit_and_never_by_nan(gate: Gate, is_met: bool) -> None:
    assert gate.is_met is is_met


def test_gate_says_limit_and_what_was_found() -> None:
    assert str(Gate("loss", 0.01, 0.25)) == "loss: expected at most 0.01, found 0.25"
    assert (
        str(Gate("agreement, %", 99.5, 90, is_least=True)) == "agreement, %: expected at least 99.5, found 90"
    )


PINBALL = {"held_out_7_pinball": 2.0, "held_out_64_pinball": 4.0}


@pytest.mark.parametrize(
    ("gate_of", "metrics", "is_met"),
    [
        pytest.param(
            text_losses.int8_gate,
            {"held_out_loss": 1.4, "held_out_int8_loss": 1.409},
            True,
            id="loss 0.009 more",
        ),
        pytest.param(
            text_losses.int8_gate,
            {"held_out_loss": 1.4, "held_out_int8_loss": 1.411},
            False,
            id="loss 0.011 more",
        ),
        pytest.param(
            text_losses.int8_gate,
            {"held_out_loss": 1.4, "held_out_int8_loss": math.nan},
            False,
            id="loss NaN",
        ),
        pytest.param(
            sentiment.int8_gate, {"held_out_int8_agreement": 99.6}, True, id="4 of 1,000 labels differ"
        ),
        pytest.param(
            sentiment.int8_gate, {"held_out_int8_agreement": 99.4}, False, id="6 of 1,000 labels differ"
        ),
        pytest.param(
            stock.int8_gate,
            PINBALL | {"held_out_int8_7_pinball": 2.01, "held_out_int8_64_pinball": 4.03},
            True,
            id="pinball under 1 % more",
        ),
        pytest.param(
            stock.int8_gate,
            PINBALL | {"held_out_int8_7_pinball": 2.0, "held_out_int8_64_pinball": 4.05},
            False,
            id="long windows worse",
        ),
        pytest.param(
            stock.int8_gate,
            PINBALL | {"held_out_int8_7_pinball": 2.05, "held_out_int8_64_pinball": 4.0},
            False,
            id="short windows worse",
        ),
        pytest.param(
            stock.int8_gate,
            PINBALL | {"held_out_int8_7_pinball": 1.0, "held_out_int8_64_pinball": math.nan},
            False,
            id="pinball NaN",
        ),
    ],
)
def test_each_task_has_its_limit(
    gate_of: Callable[[Mapping[str, float]], Gate], metrics: Mapping[str, float], is_met: bool
) -> None:
    assert gate_of(metrics).is_met is is_met


def _spoiled(network: RecurrentNetwork) -> bytes:
    """Int8 weights that always prefer the last output: by their shapes nothing is wrong with them."""
    made = onnx.load_from_string(quantize(network))
    [bias] = [tensor for tensor in made.graph.initializer if tensor.name == "head.bias"]
    bias.CopyFrom(numpy_helper.from_array(10 * np.arange(bias.dims[0], dtype=np.float32), bias.name))
    return made.SerializeToString()


@pytest.fixture
def recipes(text_file: Path, reviews_file: Path, prices_file: Path) -> dict[str, tuple[str, ...]]:
    """The command's arguments for a model of each task that learns its few data in seconds."""
    columns = ("--text-column", "review", "--label-column", "verdict")
    return {
        "charlm": (
            "charlm",
            "--text",
            str(text_file),
            "--hidden",
            "16",
            "--no-mix",  # an n-gram alone would answer for spoiled weights
            "--epochs",
            "6",
            "--cell",
            "lstm",
            "--name",
            "own",
        ),
        "sentiment": (
            "sentiment",
            "--csv",
            str(reviews_file),
            *columns,
            "--hidden",
            "16",
            "--epochs",
            "20",
            "--cell",
            "lstm",
            "--name",
            "own",
        ),
        "stock": (
            "stock",
            "--csv",
            str(prices_file),
            "--hidden",
            "8",
            "--epochs",
            "2",
            "--cell",
            "lstm",
            "--name",
            "own",
        ),
    }


@pytest.mark.parametrize(
    ("recipe", "metric"),
    [
        ("charlm", "held_out_int8_loss"),
        ("sentiment", "held_out_int8_agreement"),
        ("stock", "held_out_int8_64_pinball"),
    ],
)
def test_int8_that_passes_is_exported_measured_and_on_the_card(
    command: Command,
    recipes: dict[str, tuple[str, ...]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recipe: str,
    metric: str,
) -> None:
    assert command(*recipes[recipe]) == 0
    folder = tmp_path / "exported" / "own" / "1"
    model, _ = spec.read_spec(folder)
    assert model.variants["int8"].file == "model.int8.onnx"
    assert metric in model.metrics
    assert "int8: passed: held-out " in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    assert "| variants | fp32, int8 |" in card
    assert "int8 weights passed their gate (held-out " in card


@pytest.mark.parametrize("recipe", ["charlm", "sentiment", "stock"])
def test_int8_that_computes_something_else_is_left_out_and_fp32_exported(
    command: Command,
    recipes: dict[str, tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: str,
) -> None:
    monkeypatch.setattr(run, "quantize", _spoiled)
    assert command(*recipes[recipe]) == 0
    folder = tmp_path / "exported" / "own" / "1"
    _assert_fp32_alone(folder)
    assert "int8: left out: held-out " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipe", "module", "limit"), [("charlm", text_losses, "INT8_COST"), ("stock", stock, "INT8_COST")]
)
def test_gate_of_a_recipe_decides(
    command: Command,
    recipes: dict[str, tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    module: ModuleType,
    limit: str,
) -> None:
    monkeypatch.setattr(module, limit, -50.0)
    assert command(*recipes[recipe]) == 0
    _assert_fp32_alone(tmp_path / "exported" / "own" / "1")


def test_no_int8_is_exported_where_nobody_wants_it(
    command: Command, recipes: dict[str, tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*recipes["stock"], "--no-int8") == 0
    _assert_fp32_alone(tmp_path / "exported" / "own" / "1")
    assert "int8" not in capsys.readouterr().out


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_other_cells_have_no_int8_and_one_line_says_so(
    command: Command,
    recipes: dict[str, tuple[str, ...]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cell: str,
) -> None:
    assert command(*recipes["stock"], "--cell", cell) == 0
    _assert_fp32_alone(tmp_path / "exported" / "own" / "1")
    said = [line for line in capsys.readouterr().out.splitlines() if "int8" in line]
    assert said == [f"int8: left out: onnxruntime quantizes lstm alone, this network is {cell}"]


def _assert_fp32_alone(folder: Path) -> None:
    """Of files, variants, numbers and card."""
    depend = {"tokenizer.json", "generation.onnx"}  # of a classifier, and of a model that generates
    assert {path.name for path in folder.iterdir() if path.suffix != ".png"} - depend == FILES
    described = json.loads((folder / "model.json").read_text())
    assert list(described["variants"]) == ["fp32"]
    assert not [name for name in described["metrics"] if "int8" in name]
    card = (folder / "README.md").read_text()
    assert "| variants | fp32 |" in card
    assert "int8 weights" not in card
