"""The choice of what a model reads as plain characters, and that the service reads it as training does."""

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from service.models.checks import check_preprocessing
from tests.training.conftest import Command
from tests.training.letters import write_letters
from training.data.normalization import TYPOGRAPHIC, choose, typeset

Out = pytest.CaptureFixture[str]
PLAIN = "\n !\"',-." + "abcdefghijklmnopqrstuvwxyz"
SMALL = ("--layers", 1, "--hidden", 4, "--epochs", 1, "--no-int8")


def _section(model: spec.ModelSpec) -> spec.Characters | spec.TokenizerFile:
    section = model.generation or model.classification
    assert section is not None
    return section.text


def _check(folder: Path) -> spec.ModelSpec:
    """Check a version's golden texts as the service does, and return its spec."""
    model, _, files = spec.read_version(folder)
    tokenizer = files.get("tokenizer.json")
    check_preprocessing(model, Tokenizer.from_str(tokenizer.decode()) if tokenizer else None)
    return model


def test_every_typographic_character_becomes_plain_ascii() -> None:
    rules = choose(kept=())
    assert rules.characters == TYPOGRAPHIC
    for character in TYPOGRAPHIC:
        assert len(character) == 1
        assert Normalizer(rules).normalized(f"a{character}b").isascii()


@pytest.mark.parametrize(
    "name",
    [
        "LEFT SINGLE QUOTATION MARK",
        "RIGHT SINGLE QUOTATION MARK",
        "LEFT DOUBLE QUOTATION MARK",
        "RIGHT DOUBLE QUOTATION MARK",
        "EN DASH",
        "EM DASH",
        "HORIZONTAL ELLIPSIS",
        "NO-BREAK SPACE",
        "NARROW NO-BREAK SPACE",
        "SOFT HYPHEN",
        "ZERO WIDTH SPACE",
        "ZERO WIDTH JOINER",
        "ZERO WIDTH NO-BREAK SPACE",
        "LATIN SMALL LIGATURE FI",
        "FULLWIDTH LATIN CAPITAL LETTER A",
    ],
)
def test_what_people_type_is_read_as_plain(name: str) -> None:
    assert unicodedata.lookup(name) in TYPOGRAPHIC


def test_characters_that_a_model_knows_stay_and_others_become_what_it_knows() -> None:
    rules = choose(PLAIN + "\u2014", PLAIN + "\u2014")
    normalized = Normalizer(rules).normalized
    assert normalized("\u2019\u2014\u2026\ufb01\r\n\uff41") == "'\u2014...fi\na"
    assert normalized("\uff21") == "\uff21", "a capital is not among the model's characters"


@pytest.mark.parametrize("text", ['it\'s so -- "well-made"...', "", "\n", "no marks"])
def test_typeset_text_is_read_as_the_plain_one(text: str) -> None:
    rules = choose(kept=())
    typed = typeset(text, rules)
    assert typed != text
    assert Normalizer(rules).normalized(typed) == text


def test_a_trained_generator_reads_what_people_type(
    command: Command, tmp_path: Path, text_file: Path
) -> None:
    text_file.write_text(unicodedata.normalize("NFD", text_file.read_text().replace("wise", "w\u00eese")))
    assert command("charlm", "--text", text_file, "--name", "own", *SMALL) == 0
    model = _check(tmp_path / "exported" / "own" / "1")
    section = _section(model)
    assert isinstance(section, spec.Characters)
    assert "\u00ee" in section.vocabulary, "an accent of the training text is composed"
    assert "\u0302" not in section.vocabulary
    assert section.normalization is not None
    assert "\u2014" not in section.normalization.characters, "a dash of the training text stays"
    assert section.normalization.characters["\u00a0"] == " "
    assert all(golden.text for golden in model.golden)


def test_a_trained_classifier_reads_what_people_type(
    command: Command, tmp_path: Path, reviews_file: Path
) -> None:
    reviews_file.write_text(reviews_file.read_text().replace("A lovely", "Can\u2019t be"))
    columns = ("--text-column", "review", "--label-column", "verdict")
    assert command("sentiment", "--csv", reviews_file, *columns, "--name", "own", *SMALL) == 0
    folder = tmp_path / "exported" / "own" / "1"
    model = _check(folder)
    assert all(golden.text for golden in model.golden)
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert "'" in words, "training reads a curved apostrophe as the service does"
    assert "\u2019" not in words


def test_next_version_has_the_same_weights_and_reads_what_people_type(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path
) -> None:
    folder = write_letters(tmp_path / "exported", text_file)
    assert command("normalize", "letters@1", "--text", text_file) == 0
    first, second = spec.read_spec(folder)[0], _check(folder.parent / "2")
    assert second.files == first.files
    assert [golden.outputs for golden in second.golden] == [golden.outputs for golden in first.golden]
    assert "| with spaces that do not break | " in (folder.parent / "2" / "README.md").read_text()
    capsys.readouterr()
    assert command("normalize", "letters@2", "--text", text_file) == 2
    assert "expected a text model without a normalization" in capsys.readouterr().err


@pytest.mark.parametrize(
    "folder", sorted(Path("exported").resolve().glob("[cs]*[mt]/*")), ids=lambda path: path.parent.name
)
def test_shipped_versions_read_their_golden_texts_as_training_did(folder: Path) -> None:
    model = _check(folder)
    assert all(golden.text for golden in model.golden)
    assert {"\u2019", "\u00a0", "\ufeff", "\u2014"} <= (
        _section(model).normalization or spec.Normalization()
    ).characters.keys()
