"""The recipe of rows of features: its file, its parts, its windows, and the run from end to end."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Command
from training.data.feature_rows import RowsChoice, read_feature_sequences, rows_source
from training.data.sources import own_data
from training.data.windows import Cut, Windows
from training.errors import TrainingError
from training.recipes import series
from training.recipes.window_baselines import statistics

SMALL = ("--target", "label", "--hidden", 8)


def waves(path: Path, *, count: int = 40, length: int = 24) -> Path:
    """Write slow and fast waves, told apart by their frequency alone, in alternating columns."""
    generator = np.random.default_rng(0)
    lines = ["sequence,a,b,label"]
    for index in range(count):
        label, speed = (("slow", 0.3), ("fast", 1.2))[index % 2]
        phase = generator.uniform(0, 6) + speed * np.arange(length + index % 5)
        lines += [f"s{index},{100 + 5 * np.sin(one)},{np.cos(one)},{label}" for one in phase]
    path.write_text("\n".join(lines) + "\n")
    return path


def choice(path: Path, **more: object) -> series.SeriesChoice:
    rows = RowsChoice(own_data(path), "sequence", ("label",))
    return series.SeriesChoice(rows, **more)  # type: ignore[arg-type]


def parts(windows: Windows) -> list[set[int]]:
    found = (windows.train, windows.develop, windows.held_out)
    return [{one.sequence for one in part} for part in found]


def test_no_sequence_is_in_two_parts(tmp_path: Path) -> None:
    windows = series.read_windows(choice(waves(tmp_path / "w.csv"), cut=Cut(10, 5)), seed=1)
    train, develop, held_out = parts(windows)
    assert (len(train), len(develop), len(held_out)) == (32, 4, 4)
    assert not (train | held_out) & develop
    assert not train & held_out
    assert {len(one.values) for one in windows.train} == {10}


def test_each_part_has_every_class(tmp_path: Path) -> None:
    windows = series.read_windows(choice(waves(tmp_path / "w.csv")), seed=2)
    for part in (windows.train, windows.develop, windows.held_out):
        assert {int(one.target) for one in part} == {0, 1}


def test_last_window_ends_with_its_sequence() -> None:
    assert Cut(10, 4).starts(25) == [0, 4, 8, 12, 15]
    assert Cut(10).starts(20) == [0, 10]
    assert Cut(10).starts(7) == [0] == Cut().starts(1000)


def test_scales_are_those_of_the_training_part(tmp_path: Path) -> None:
    windows = series.read_windows(choice(waves(tmp_path / "w.csv")), seed=0)
    rows = np.concatenate([one.values for one in windows.train])
    section = series.section_of(windows)
    assert [one.mean for one in section.columns or ()] == pytest.approx(rows.mean(0).tolist())
    assert [one.scale for one in section.columns or ()] == pytest.approx(rows.std(0).tolist())


def test_numpy_file_gives_the_rows_of_the_csv_file(tmp_path: Path) -> None:
    found = read_feature_sequences(choice(waves(tmp_path / "w.csv")).rows)
    np.savez(
        tmp_path / "w.npz",
        values=np.concatenate([one.values for one in found.sequences]),
        sequence=np.concatenate([[one.name] * len(one.values) for one in found.sequences]),
        target=np.concatenate([[cell for (cell,) in one.targets] for one in found.sequences]),
        columns=np.array(found.columns),
    )
    source = own_data(tmp_path / "w.csv")
    again = read_feature_sequences(
        RowsChoice(type(source)(tmp_path / "w.npz", "", ""), "sequence", ("label",))
    )
    assert again.columns == found.columns
    for one, other in zip(found.sequences, again.sequences, strict=True):
        assert (one.name, one.targets) == (other.name, other.targets)
        np.testing.assert_array_equal(one.values, other.values)


def test_slope_is_that_of_the_line_through_the_rows() -> None:
    rows = np.stack([3 * np.arange(8.0) + 1, np.ones(8)], axis=1)
    assert statistics(rows)[-2:] == pytest.approx([3, 0])
    assert statistics(rows[:1])[-2:].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("s1,", "s0,", "from its row 25 on 'fast'", id="two classes in a sequence"),
        pytest.param("s3,", "s1,", "expected the rows of a sequence together", id="rows apart"),
        pytest.param("a,b,label", "a,b,kind", "no such column", id="unknown target"),
        pytest.param(
            "label\n", "label\ns0,nan,1,slow\n", "line 2: column a: expected", id="a cell that is no number"
        ),
        pytest.param(",slow", ",slow,7", "expected 4 cells, found 5", id="a ragged row"),
    ],
)
def test_faulty_file_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "w.csv"
    text = waves(path).read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TrainingError) as error:
        series.read_windows(choice(path), seed=0)
    assert said in str(error.value)


def test_too_few_sequences_and_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at least 20 sequences"):
        series.read_windows(choice(waves(tmp_path / "few.csv", count=8)), seed=0)
    path = waves(tmp_path / "one.csv")
    path.write_text(path.read_text().replace("slow", "fast"))
    with pytest.raises(TrainingError, match="expected two or more classes, found 'fast'"):
        series.read_windows(choice(path), seed=0)


def test_stride_that_leaves_rows_out_is_refused() -> None:
    with pytest.raises(TrainingError, match="at most the 10 rows of --window"):
        Cut(10, 11)
    with pytest.raises(TrainingError, match="with --window alone"):
        Cut(0, 3)


def test_parquet_names_the_package_that_it_needs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "w.parquet").write_bytes(b"PAR1")
    assert command("series", tmp_path / "w.parquet", *SMALL) == 2
    assert "Parquet needs the package pyarrow" in capsys.readouterr().err


def test_parquet_file_gives_the_rows_of_the_csv_file(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, no part of the extra")
    csv = importlib.import_module("pyarrow.csv")
    parquet.write_table(csv.read_csv(waves(tmp_path / "w.csv")), tmp_path / "w.parquet")
    found = read_feature_sequences(choice(tmp_path / "w.csv").rows)
    source = rows_source(tmp_path / "w.parquet", "utf-8", "", lambda *_: pytest.fail("read as text"))
    again = read_feature_sequences(RowsChoice(source, "sequence", ("label",)))
    assert again.columns == found.columns
    for one, other in zip(found.sequences, again.sequences, strict=True):
        assert (one.name, one.targets) == (other.name, other.targets)
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_command_learns_what_statistics_cannot_see(command: Command, tmp_path: Path, direction: str) -> None:
    file = waves(tmp_path / "waves.csv", count=60)
    assert command("series", file, *SMALL, "--epochs", 12, "--direction", direction) == 0
    folder = tmp_path / "exported" / "waves" / "1"
    model = json.loads((folder / "model.json").read_bytes())
    assert model["metrics"]["held_out_accuracy"] == 100
    assert model["task"] == "sequences"
    assert all(golden["values"] for golden in model["golden"])
    for name in ("README.md", "card.json", "labels.png", "training.png"):
        assert (folder / name).stat().st_size
    before = (folder / "README.md").read_bytes()
    assert command("card", folder) == 0
    assert (folder / "README.md").read_bytes() == before


def test_numbers_come_in_their_own_unit(command: Command, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = ["id,x,sum,twice"]
    for index in range(60):
        rows = generator.normal(50, 10, 8)
        lines += [f"{index},{one},{rows.sum()},{2 * rows.sum()}" for one in rows]
    file = tmp_path / "sums.csv"
    file.write_text("\n".join(lines) + "\n")
    options = ("--target", "sum,twice", "--sequence", "id", "--hidden", 16, "--epochs", 30)
    assert command("series", file, *options) == 0
    model = json.loads((tmp_path / "exported" / "sums" / "1" / "model.json").read_bytes())
    assert [one["name"] for one in model["sequences"]["output"]["columns"]] == ["sum", "twice"]
    assert model["metrics"]["held_out_rmse"] < 0.5 * model["metrics"]["baseline_mean_rmse"]


def test_class_a_time_step_is_learnt_with_steps_every(command: Command, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = ["sequence,x,label"]
    for index in range(30):
        lines += [f"{index},{one},{'up' if one > 0 else 'down'}" for one in generator.normal(size=12)]
    file = tmp_path / "signs.csv"
    file.write_text("\n".join(lines) + "\n")
    assert command("series", file, *SMALL, "--epochs", 40, "--steps", "every") == 0
    model = json.loads((tmp_path / "exported" / "signs" / "1" / "model.json").read_bytes())
    assert model["sequences"]["output"]["steps"] == "every"
    assert model["metrics"]["held_out_accuracy"] > 95


def test_resumed_run_ends_with_the_same_weights(command: Command, tmp_path: Path) -> None:
    file = waves(tmp_path / "waves.csv")
    assert command("series", file, *SMALL, "--epochs", 2, "--name", "whole") == 0
    assert command("series", file, *SMALL, "--epochs", 2, "--name", "whole", "--resume") == 0
    made = [
        json.loads((tmp_path / "exported" / "whole" / number / "model.json").read_bytes()) for number in "12"
    ]
    assert made[0]["provenance"]["weights_sha256"] == made[1]["provenance"]["weights_sha256"]


def random_rows(path: Path) -> Path:
    """Write noise with classes that nothing tells apart, one of them rare."""
    generator = np.random.default_rng(0)
    lines = ["sequence,x,label"]
    for index in range(60):
        lines += [
            f"{index},{one},{'rare' if index % 5 == 0 else 'often'}" for one in generator.normal(size=6)
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_model_that_loses_is_exported_as_such_or_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = random_rows(tmp_path / "noise.csv")
    assert command("series", file, *SMALL, "--epochs", 1) == 0
    folder = tmp_path / "exported" / "noise" / "1"
    assert "verdict: Does not beat its baselines" in capsys.readouterr().out
    model = json.loads((folder / "model.json").read_bytes())
    assert model["metrics"]["beats_baselines"] == 0
    card = (folder / "README.md").read_text()
    assert "## Verdict\n**Does not beat its baselines" in card
    assert "**It does not beat the simple baselines" in card
    assert command("series", file, *SMALL, "--epochs", 1, "--require-better") == 1
    assert "--require-better: expected a model that beats its baselines" in capsys.readouterr().err
    assert not (folder.parent / "2").exists()


def test_mean_recall_decides_where_classes_are_weighed(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = random_rows(tmp_path / "noise.csv")
    assert command("series", file, *SMALL, "--epochs", 1, "--class-weights", "balanced") == 0
    assert "found, mean of classes, %" in capsys.readouterr().out.partition("verdict:")[2]


def test_version_says_what_its_run_was_told(command: Command, tmp_path: Path) -> None:
    file = waves(tmp_path / "waves.csv", count=60)
    assert command("series", file, *SMALL, "--epochs", 12, "--window", 20, "--require-better") == 0
    model = json.loads((tmp_path / "exported" / "waves" / "1" / "model.json").read_bytes())
    assert model["metrics"]["beats_baselines"] == 1
    choices = model["provenance"]["choices"]
    assert choices["recipe"] == "series"
    assert (choices["source"], choices["file"]) == ("own", "waves.csv")
    assert (choices["targets"], choices["window"], choices["stride"]) == ("label", "20", "0")
