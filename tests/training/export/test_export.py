"""A version folder: whole and by the contract, or not there at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import spec
from tests.training.parity import CELLS
from training.errors import TrainingError
from training.export import export as exporting
from training.export.card import CardFacts
from training.export.chunks import ChunkCell
from training.export.export import (
    EXPORT_TOLERANCE,
    EXPORT_TOLERANCE_SHARE,
    Package,
    export,
    largest_error,
    provenance,
    seeded_examples,
)
from training.export.graph import build_graph
from training.export.quantize import quantize
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork
from training.writing import WriteError


def _package(cell: Cell = "lstm") -> Package:
    torch.manual_seed(0)
    return Package(
        name="letters",
        network=RecurrentNetwork(NetworkConfig(cell, 2, 6, 4, vocabulary=4, embedding=3)),
        section=spec.Generation(
            text=spec.Characters(kind="characters", vocabulary="\nab☃"), start_token=0, max_tokens=9
        ),
        examples=[torch.randint(4, (length,)) for length in (1, 5, 12)],
        metrics={"held_out_loss": 1.5},
        provenance=provenance("nothing", "none", "0" * 64, seed=7),
        card=CardFacts("Summary.", "Split.", "| table |", "Limits."),
    )


@pytest.mark.parametrize("cell", CELLS)
def test_exported_version_is_accepted_by_the_contract(tmp_path: Path, cell: Cell) -> None:
    folder = export(_package(cell), tmp_path)
    model, _ = spec.read_spec(folder)
    assert folder == tmp_path / "letters" / "1"
    assert {path.name for path in folder.iterdir()} == {
        "model.json",
        "model.onnx",
        "generation.onnx",
        "README.md",
        "card.json",
    }
    assert model.variants["fp32"].generation == "generation.onnx"
    assert [golden.length for golden in model.golden] == [1, 5, 12]
    assert model.provenance.seed == 7
    assert model.variants["fp32"].batch_invariant == (cell != "rnn")
    assert "# letters, version 1" in (folder / "README.md").read_text()


def test_int8_weights_are_a_variant_with_a_tolerance_of_their_own(tmp_path: Path) -> None:
    package = _package()
    graph = quantize(package.network)
    folder = export(replace(package, int8=graph), tmp_path)
    model, _ = spec.read_spec(folder)
    assert (folder / "model.int8.onnx").read_bytes() == graph
    assert model.variants["int8"].file == "model.int8.onnx"
    assert model.variants["int8"].batch_invariant is False
    error = largest_error(ChunkCell(graph), package.network, package.examples)
    assert model.variants["fp32"].tolerance < error < model.variants["int8"].tolerance < 10 * error


def test_share_of_an_outputs_size_is_taken_off_its_difference() -> None:
    """A difference of rounding at a large output is no wrong graph."""
    package = _package()
    with torch.no_grad():
        package.network.head.get_parameter("bias").fill_(20.0)
    graph = ChunkCell(build_graph(package.network).SerializeToString())
    with torch.no_grad():
        package.network.head.get_parameter("bias").add_(1.5e-5)
    plain = largest_error(graph, package.network, package.examples)
    assert plain > EXPORT_TOLERANCE
    assert largest_error(graph, package.network, package.examples, EXPORT_TOLERANCE_SHARE) < EXPORT_TOLERANCE
    with torch.no_grad():
        package.network.head.get_parameter("bias").add_(1e-4)
    assert largest_error(graph, package.network, package.examples, EXPORT_TOLERANCE_SHARE) > EXPORT_TOLERANCE


def test_largest_error_does_not_pass_over_nan() -> None:
    package = _package()
    with torch.no_grad():
        package.network.head.get_parameter("bias")[0] = torch.nan
    assert np.isnan(
        largest_error(
            ChunkCell(build_graph(package.network).SerializeToString()), package.network, package.examples
        )
    )


def test_each_export_gets_the_next_version(tmp_path: Path) -> None:
    assert [export(_package(), tmp_path).name for _ in range(3)] == ["1", "2", "3"]
    (tmp_path / "letters" / "41").mkdir()
    assert export(_package(), tmp_path).name == "42"


def test_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (export(_package(), tmp_path / name) / "model.onnx" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_graph_that_differs_from_pytorch_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _package("gru")
    other = build_graph(RecurrentNetwork(package.network.config))
    monkeypatch.setattr(exporting, "build_graph", lambda _: other)
    with pytest.raises(TrainingError, match="expected outputs within 1e-05"):
        export(package, tmp_path)
    assert not list(tmp_path.iterdir())


def test_spec_that_breaks_the_contract_leaves_nothing_behind(tmp_path: Path) -> None:
    section = spec.Generation(
        text=spec.Characters(kind="characters", vocabulary="ab"), start_token=0, max_tokens=9
    )
    with pytest.raises(spec.SpecError, match=r"input\.size must be 2, found 4"):
        export(replace(_package(), section=section), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("earlier", [0, 1])
def test_disk_that_fills_up_leaves_only_earlier_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int
) -> None:
    for _ in range(earlier):
        export(_package(), tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def fail(path: Path, _: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(WriteError, match="No space left"):
            export(_package(), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_repository_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/letters/1: cannot be written: "):
        export(_package(), tmp_path / "file")


def test_recipe_names_the_command_but_no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "training",
        "charlm",
        "--text",
        "/home/ann/my text.txt",
        "--repository=/srv/models",
        "--name",
        "a",
        "--csv",
        "../x/y.csv",
        "--resume",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    recipe = provenance("", "", "0" * 64, 0).recipe
    assert recipe == "python -m training charlm --text 'my text.txt' --repository=models --name a --csv y.csv"


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 99))
def test_examples_rise_in_length_from_shortest_to_longest(lengths: list[int], count: int, seed: int) -> None:
    examples = [torch.zeros(length) for length in lengths]
    chosen = [lengths[index] for index in seeded_examples(examples, count, seed)]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (min(lengths), max(lengths))
    assert len(chosen) <= max(2, count)
