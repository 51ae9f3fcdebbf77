"""Language models over tokens and over characters, compared on the characters of one held-out text."""

import json
from pathlib import Path

import pytest

from service.contract import spec
from tests.training.conftest import Command
from training.evaluate.scorer import Own
from training.evaluate.scoring import held_out, score
from training.evaluate.version import Version, find_version

SMALL = ("--layers", 1, "--hidden", 8, "--epochs", 1, "--no-int8")
LINES = "Der Bär saß müde am Fluß.\n熊很累 坐在河边。\nWas tut er? Er ruht.\n"
KINDS = ("characters", "bytes", "bpe", "word")


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "own.txt"
    path.write_text(LINES * 40, encoding="utf-8")
    return path


def _trained(command: Command, file: Path, kind: str, folder: str = "exported") -> Version:
    arguments = ("--tokenizer", kind, "--name", "own", "--repository", folder)
    assert command("generate", file, *arguments, *SMALL) == 0
    return find_version(str(max((file.parent / folder / "own").iterdir())), file.parent)


def test_models_of_all_tokenizers_are_scored_on_the_same_characters(command: Command, own_file: Path) -> None:
    own = Own(text=own_file)
    for kind in KINDS:
        version = _trained(command, own_file, kind, kind)
        part = held_out(version, own)
        assert part.sha256 == held_out(version, own).sha256
        assert str(part) == f"{round(len(LINES) * 40 * 0.1)} characters"
        [loss] = score(version, part)
        assert len(loss.values) == round(len(LINES) * 40 * 0.1) - 1
        # The score of what is served is what the run has found.
        assert float(loss.values.mean()) == pytest.approx(version.model.metrics["held_out_loss"], abs=1e-4)


def test_model_over_tokens_is_compared_with_one_over_characters(
    command: Command, own_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _trained(command, own_file, "characters")
    _trained(command, own_file, "bpe")
    capsys.readouterr()
    assert command("compare", "own@1", "own@2", "--text", own_file, "--json") == 0
    [loss] = json.loads(capsys.readouterr().out)["differences"]
    assert loss["title"] == "loss, nats a character"
    assert loss["low"] < loss["second"] - loss["first"] < loss["high"]


def test_model_over_tokens_is_promoted_beside_one_over_characters(
    command: Command, own_file: Path, tmp_path: Path
) -> None:
    _trained(command, own_file, "bytes", "served")
    version = _trained(command, own_file, "bytes", "new")
    assert command("promote", version.folder, "--to", tmp_path / "served", "--text", own_file) == 0
    assert sorted(path.name for path in (tmp_path / "served" / "own").iterdir()) == ["1", "2"]


def test_character_that_is_read_as_others_costs_what_they_cost(command: Command, own_file: Path) -> None:
    """Losses stay in step with the text as it is typed, whatever normalization makes of it."""
    version = _trained(command, own_file, "bytes")
    section = version.model.generation
    assert section is not None
    rules = spec.Normalization(form="NFC", characters={"?": "...", "R": ""})
    text = section.text.model_copy(update={"normalization": rules})
    model = version.model.model_copy(update={"generation": section.model_copy(update={"text": text})})
    part = held_out(version, Own(text=own_file))
    [plain] = score(version, part)
    [found] = score(Version(version.folder, model, version.files), part)
    assert len(found.values) == len(plain.values)
    typed = LINES * 40
    place = typed[-len(plain.values) :].index("?")
    assert found.values[:place] == pytest.approx(plain.values[:place], abs=1e-6)
    assert found.values[place] > plain.values[place]
