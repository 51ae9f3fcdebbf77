"""The commands by task: a file in, a model of its name out."""

import json
from pathlib import Path

import pytest

from tests.training.conftest import Command

SMALL = ("--hidden", 8, "--layers", 1, "--epochs", 1)


def model_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "model.json").read_bytes()))


def test_generate_makes_the_model_that_the_recipe_makes(
    command: Command, text_file: Path, tmp_path: Path
) -> None:
    assert command("generate", text_file, *SMALL) == 0
    assert command("charlm", "--text", text_file, "--name", "by-recipe", *SMALL) == 0
    by_task, by_recipe = (
        tmp_path / "exported" / name / "1" / "model.onnx" for name in (text_file.stem, "by-recipe")
    )
    assert by_task.read_bytes() == by_recipe.read_bytes()


def test_classify_makes_a_model_of_the_files_name(
    command: Command, reviews_file: Path, tmp_path: Path
) -> None:
    columns = ("--text-column", "review", "--label-column", "verdict")
    assert command("classify", reviews_file, *columns, *SMALL) == 0
    made = model_of(tmp_path / "exported" / reviews_file.stem / "1")
    assert (made["name"], made["task"]) == (reviews_file.stem, "text-classification")


def test_forecast_takes_the_target_alone_where_no_columns_are_named(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "load (2024).csv"
    file.write_text("load\n" + "".join(f"{100 + 10 * (n % 7) + n % 3}\n" for n in range(200)))
    assert command("forecast", file, "--target", "load", "--date-column", "", *SMALL) == 0
    [folder] = (tmp_path / "exported").iterdir()
    assert folder.name == "load-2024-"
    assert "seqserve forecast --model load-2024-" in capsys.readouterr().out


def test_second_run_of_a_file_is_the_next_version(command: Command, text_file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("generate", text_file, *SMALL) == 0
    assert sorted(one.name for one in (tmp_path / "exported" / text_file.stem).iterdir()) == ["1", "2"]


def test_name_of_another_models_file_is_refused(
    command: Command, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("charlm", "--text", text_file, "--name", "mine", *SMALL) == 0
    other = tmp_path / "mine.txt"
    other.write_text(text_file.read_text())
    assert command("generate", other, *SMALL) == 2
    assert "--name: expected one, since exported/mine was made of other data than mine.txt" in (
        capsys.readouterr().err
    )
    assert [one.name for one in (tmp_path / "exported" / "mine").iterdir()] == ["1"]
