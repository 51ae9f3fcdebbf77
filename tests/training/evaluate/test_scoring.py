"""The held-out part is found by the choices in provenance; of older versions, by their command line."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.training.conftest import Command
from training.data.sources import GOOG, PLAYS, REVIEWS
from training.errors import TrainingError
from training.evaluate import old_recipes
from training.evaluate.scorer import Own
from training.evaluate.scoring import choices_of, evidence, held_out, score, source_of
from training.evaluate.version import Version, find_version

ROOT = Path(__file__).parents[3]
SMALL = ("--hidden", 2, "--epochs", 1, "--no-int8", "--name", "mine")


def without_recipe(folder: Path) -> Version:
    """A version whose command line says nothing."""
    version = find_version(str(folder), folder)
    made = version.model.provenance.model_copy(update={"recipe": "a script"})
    return Version(version.folder, version.model.model_copy(update={"provenance": made}), version.files)


def test_choices_of_a_table_are_carried_without_its_folder(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "secret place" / "days.csv"
    file.parent.mkdir()
    rows = [f"{day:%d.%m.%Y};{7 + day.day % 5}.{day.month}" for day in _days(150)]
    file.write_text("Tag;Wert\n" + "\n".join(rows), encoding="cp1252")
    own = ("--csv", file, "--columns", "wert", "--target", "Wert", "--date-column", "tag")
    assert command("stock", *own, "--encoding", "cp1252", "--delimiter", ";", *SMALL) == 0
    version = without_recipe(tmp_path / "exported" / "mine" / "1")
    assert choices_of(version) == {
        "recipe": "stock",
        "source": "own",
        "file": "days.csv",
        "more": "",
        "encoding": "cp1252",
        "delimiter": ";",
        "columns": "wert",
        "target": "wert",
        "prices": "wert",
        "dates": "tag",
        "date_format": "",
        "gaps": "refuse",
        "held_out_from": "",
    }
    assert "secret place" not in json.dumps(version.model.model_dump(mode="json"))
    part = held_out(version, Own(csv=file))
    assert str(part) == "45 steps"
    assert all(len(loss.values) for loss in score(version, part))
    assert evidence(version, part) is not None
    with pytest.raises(TrainingError, match=r"a file of the user's, days\.csv: name it with --csv FILE"):
        held_out(version, Own())


def _days(count: int) -> list[date]:
    return [date(2001, 1, 1) + timedelta(days=day) for day in range(count)]


def test_choices_of_labelled_texts_are_carried(command: Command, tmp_path: Path, reviews_file: Path) -> None:
    own = (reviews_file, "--text-column", "Review", "--label-column", "verdict")
    assert command("classify", *own, *SMALL) == 0
    version = without_recipe(tmp_path / "exported" / "mine" / "1")
    assert str(held_out(version, Own(csv=reviews_file))) == "9 texts"


def test_choices_of_a_text_are_carried(command: Command, tmp_path: Path, text_file: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("A wise man.\n" * 20)
    assert command("generate", text_file, "--more", more, *SMALL) == 0
    version = without_recipe(tmp_path / "exported" / "mine" / "1")
    with pytest.raises(TrainingError, match=r"was trained on more\.txt, too: name it with --more FILE"):
        held_out(version, Own(text=text_file))
    assert str(held_out(version, Own(text=text_file, more=more))) == "200 characters"


@pytest.mark.parametrize(
    ("name", "source", "part"),
    [
        ("charlm/3", PLAYS, "113,195 characters"),
        ("sentiment/4", REVIEWS, "1,057 texts"),
        ("stock/2", GOOG, "645 steps"),
    ],
)
@pytest.mark.parametrize("has_choices", [True, False])
def test_shipped_versions_are_understood_with_and_without_choices(
    name: str, source: object, part: str, has_choices: bool
) -> None:
    version = find_version(str(ROOT / "exported" / name), ROOT)
    if not has_choices:
        made = version.model.provenance.model_copy(update={"choices": None})
        version = Version(
            version.folder, version.model.model_copy(update={"provenance": made}), version.files
        )
    assert source_of(version, Own()) == source
    assert str(held_out(version, Own())) == part


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python -m training forecast a.csv --target load", {"recipe": "stock", "columns": "load"}),
        ("python -m training stock --columns=a,b --target b", {"source": "shipped", "columns": "a,b"}),
        ("python -m training generate a.txt --more b", {"recipe": "charlm", "file": "a.txt", "more": "b"}),
        ("python -m training sentiment --csv a --delimiter tab", {"delimiter": "\t", "source": "own"}),
    ],
)
def test_command_lines_of_older_versions_are_read(line: str, expected: dict[str, str]) -> None:
    found = old_recipes.choices_of(line)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("line", ["", "python train.py", "python -m training"])
@pytest.mark.parametrize("ask", [source_of, held_out])
def test_version_of_another_program_is_refused(line: str, ask: Callable[..., object]) -> None:
    version = find_version(str(ROOT / "exported" / "stock" / "2"), ROOT)
    made = version.model.provenance.model_copy(update={"recipe": line, "choices": None})
    other = Version(version.folder, version.model.model_copy(update={"provenance": made}), version.files)
    message = r"expected a version made by charlm, tokenlm, .*, series or label, found"
    with pytest.raises(TrainingError, match=message):
        ask(other, Own())
