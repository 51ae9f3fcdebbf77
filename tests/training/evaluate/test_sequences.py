"""Versions of the recipes series and label are scored, compared, promoted and described."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Command
from tests.training.recipes.test_label import sentences, write
from tests.training.recipes.test_series import waves
from training.data.feature_rows import RowsChoice, read_feature_sequences
from training.data.sources import own_data
from training.errors import TrainingError
from training.evaluate.scorer import Own
from training.evaluate.scoring import evidence, held_out, score
from training.evaluate.version import find_version
from training.export.card import read_facts
from training.export.pictures import LabelledParts

SERIES = ("--target", "label", "--hidden", 4, "--epochs", 2)


def metrics(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "model.json").read_bytes())["metrics"]
    return found


def _assert_same(found: object, expected: object) -> None:
    """Check the same counts, and confidences within the rounding of onnxruntime."""
    assert isinstance(found, LabelledParts)
    assert isinstance(expected, LabelledParts)
    assert (found.labels, found.counts, found.parts) == (expected.labels, expected.counts, expected.parts)
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-4)


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("steps", ["last", "every"])
def test_version_of_series_scores_what_its_run_measured(
    command: Command, tmp_path: Path, direction: str, steps: str
) -> None:
    file = waves(tmp_path / "w.csv", count=60)
    assert command("series", file, *SERIES, "--window", 9, "--direction", direction, "--steps", steps) == 0
    folder = tmp_path / "exported" / "w" / "1"
    version = find_version(str(folder), folder)
    part = held_out(version, Own(csv=file))
    wrong, log_loss = score(version, part)
    assert 100 - wrong.values.mean() == pytest.approx(metrics(folder)["held_out_accuracy"])
    assert log_loss.values.mean() == pytest.approx(metrics(folder)["held_out_log_loss"], abs=1e-4)
    facts = read_facts({"card.json": (folder / "card.json").read_bytes()})
    _assert_same(evidence(version, part), facts.evidence)


def test_version_of_numbers_scores_what_its_run_measured(command: Command, tmp_path: Path) -> None:
    file = waves(tmp_path / "w.csv")
    # The column a becomes the target, a number a row.
    options = ("--target", "a", "--columns", "b", "--steps", "every", "--hidden", 4, "--epochs", 2)
    assert command("series", file, *options) == 0
    folder = tmp_path / "exported" / "w" / "1"
    version = find_version(str(folder), folder)
    (error,) = score(version, held_out(version, Own(csv=file)))
    assert error.values.mean() == pytest.approx(metrics(folder)["held_out_scaled_error"], rel=1e-3)


def test_rows_that_are_no_text_are_found_again(command: Command, tmp_path: Path) -> None:
    csv = waves(tmp_path / "w.csv", count=60)
    found = read_feature_sequences(RowsChoice(own_data(csv), "sequence", ("label",)))
    file = tmp_path / "rows.npz"
    np.savez(
        file,
        values=np.concatenate([one.values for one in found.sequences]),
        sequence=np.concatenate([[one.name] * len(one.values) for one in found.sequences]),
        target=np.concatenate([[cell for (cell,) in one.targets] for one in found.sequences]),
    )
    assert command("series", file, *SERIES) == 0
    folder = tmp_path / "exported" / "rows" / "1"
    version = find_version(str(folder), folder)
    assert str(held_out(version, Own(csv=file))) == "6 sequences, 6 windows"
    with pytest.raises(TrainingError, match=r"rows\.npz: name it with --csv FILE"):
        held_out(version, Own())


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_version_of_label_scores_what_its_run_measured(
    command: Command, tmp_path: Path, direction: str
) -> None:
    file = write(tmp_path / "tags.tsv", sentences(160))
    assert command("label", file, "--hidden", 8, "--epochs", 2, "--direction", direction) == 0
    folder = tmp_path / "exported" / "tags" / "1"
    version = find_version(str(folder), folder)
    part = held_out(version, Own(text=file))
    assert str(part) == "16 sentences, 96 words"
    wrong, log_loss = score(version, part)
    assert 100 - wrong.values.mean() == pytest.approx(metrics(folder)["held_out_accuracy"])
    assert np.isfinite(log_loss.values).all()
    facts = read_facts({"card.json": (folder / "card.json").read_bytes()})
    _assert_same(evidence(version, part), facts.evidence)


def test_better_network_that_looks_both_ways_is_compared_and_promoted(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "tags.tsv", sentences(160))
    small = ("--hidden", 8, "--repository", "served", "--name", "tags")
    assert command("label", file, *small, "--epochs", 1) == 0
    assert command("label", file, *small, "--epochs", 12, "--repository", "tried") == 0
    own = ("--text", file)
    capsys.readouterr()
    assert command("compare", "served/tags/1", "tried/tags/1", *own, "--json") == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["part"] == "16 sentences, 96 words"
    assert [one["verdict"] for one in compared["differences"]] == ["better", "better"]
    assert command("promote", "tried/tags/1", "--to", "served", *own) == 0
    card = (tmp_path / "served" / "tags" / "2" / "README.md").read_text()
    assert "| network | whole: lstm, 1 x 8" in card
    assert "## Compared with the version before\nWith tags@1" in card
    assert (tmp_path / "served" / "tags" / "2" / "labels.png").stat().st_size
    # The earlier one is worse now.
    assert command("promote", "served/tags/1", "--to", "served", *own) == 1


def test_card_of_a_version_without_evidence_is_drawn_from_its_data(command: Command, tmp_path: Path) -> None:
    file = waves(tmp_path / "w.csv", count=60)
    assert command("series", file, *SERIES) == 0
    folder = tmp_path / "exported" / "w" / "1"
    before = (folder / "card.json").read_bytes()
    facts = json.loads(before) | {"evidence": None}
    (folder / "card.json").write_text(json.dumps(facts))
    assert command("card", folder, "--csv", file) == 0
    after = (folder / "card.json").read_bytes()
    _assert_same(read_facts({"card.json": after}).evidence, read_facts({"card.json": before}).evidence)
