"""The same command gives the same weights in another process, and a model says where it was made."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from service.contract import spec
from tests.training.conftest import Command
from training.loop.environment import deterministic, environment

ROOT = Path(__file__).parents[3]
SMALL = ("--hidden", "8", "--layers", "1", "--epochs", "1", "--no-int8")
# All recipes in one process: what takes long is to import PyTorch.
PROGRAM = """
import json, sys
from training.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["training", *arguments]
    assert main() == 0
"""


@pytest.mark.timeout(400)
def test_each_recipe_gives_the_same_weights_in_another_process(
    command: Command, text_file: Path, reviews_file: Path, prices_file: Path, tmp_path: Path
) -> None:
    recipes = {
        "charlm": ["--text", str(text_file)],
        "sentiment": ["--csv", str(reviews_file), "--text-column", "review", "--label-column", "verdict"],
        "stock": ["--csv", str(prices_file)],
    }
    commands = [[name, *options, *SMALL] for name, options in recipes.items()]
    other = tmp_path / "other"
    other.mkdir()
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=other,
        env=settings,
        check=True,
        capture_output=True,
        timeout=300,
    )
    for arguments in commands:
        assert command(*arguments) == 0
    for name in recipes:
        here, there = (folder / "exported" / name / "1" for folder in (tmp_path, other))
        assert _provenance(here)["weights_sha256"] == _provenance(there)["weights_sha256"]
        assert (here / "model.onnx").read_bytes() == (there / "model.onnx").read_bytes()
        assert _provenance(here)["environment"] == environment() | {
            "device": "cpu",
            "precision": "fp32",
            "deterministic_algorithms": "yes",
        }


def test_another_seed_gives_other_weights(command: Command, prices_file: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        assert command("stock", "--csv", prices_file, "--seed", seed, *SMALL) == 0
    first, second = (
        _provenance(tmp_path / "exported" / "stock" / version)["weights_sha256"] for version in ("1", "2")
    )
    assert first != second


def test_model_that_does_not_say_where_it_was_made_is_still_read(
    command: Command, prices_file: Path, tmp_path: Path
) -> None:
    assert command("stock", "--csv", prices_file, *SMALL) == 0
    path = tmp_path / "exported" / "stock" / "1" / spec.SPEC_FILE
    described = json.loads(path.read_text())
    for name in ("weights_sha256", "environment"):
        del described["provenance"][name]
    found = spec.parse_spec(json.dumps(described)).provenance
    assert (found.weights_sha256, found.environment) == (None, {})


def test_deterministic_algorithms_are_asked_for_in_a_run_alone() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic("cpu"):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def _provenance(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / spec.SPEC_FILE).read_text())["provenance"]
    return made
