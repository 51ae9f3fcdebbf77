"""Two versions side by side, on one held-out part or not at all."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Command, random_walk, write_prices
from tests.training.letters import write_letters
from training.data.sources import Source
from training.evaluate import held_text
from training.evaluate.compare import Difference, difference
from training.evaluate.scorer import Loss
from training.recipes import chance
from training.recipes.chance import bootstrap

Out = pytest.CaptureFixture[str]


def test_table_shows_losses_speed_claims_and_what_they_are_made_of(
    command: Command, capsys: Out, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text_file: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first, second = (write_letters(tmp_path / "exported", text_file, trust=trust) for trust in (1.0, 0.0))
    assert command("compare", "letters@1", second, "--text", text_file) == 0
    shown = capsys.readouterr().out
    for text in (
        "letters@1",
        "letters@2",
        "loss, nats a character",
        "worse",
        "rows",
        "held_out_loss",
        "fp32, bytes",
        "the same",
        "data sha256",
    ):
        assert text in shown
    assert "NOTE" not in shown
    assert first != second


def test_json_holds_what_the_tables_hold(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path
) -> None:
    for trust in (0.0, 1.0):
        write_letters(tmp_path / "exported", text_file, trust=trust)
    assert command("compare", "letters@1", "letters@2", "--text", text_file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (loss,) = found["differences"]
    assert loss["verdict"] == "better"
    assert loss["low"] < loss["second"] - loss["first"] < loss["high"] < 0
    assert loss["first"] == pytest.approx(np.log(len(set(text_file.read_text(encoding="utf-8")))), abs=1e-5)
    assert [speed["rows"] for speed in found["speeds"]] == [1, 64]
    assert all(speed["first"] > 0 and speed["second"] > 0 for speed in found["speeds"])
    assert found["claims"]["held_out_loss"] == [1.5, 1.5]


def test_file_of_the_users_has_to_be_named(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path
) -> None:
    write_letters(tmp_path / "exported", text_file)
    assert command("compare", "letters@1", "letters@1") == 2
    assert "was trained on a file of the user's, own.txt: name it with --text FILE" in capsys.readouterr().err


def test_other_file_than_the_one_trained_on_is_refused(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path
) -> None:
    write_letters(tmp_path / "exported", text_file)
    text_file.write_text(text_file.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    assert command("compare", "letters@1", "letters@1", "--text", text_file) == 2
    assert "what is held out from that may have been trained on" in capsys.readouterr().err


def test_more_data_beside_the_same_held_out_part_is_said_first(
    command: Command, capsys: Out, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text_file: Path
) -> None:
    """As with the other plays, which a later charlm was trained on, too."""
    more = tmp_path / "more.txt"
    more.write_text("And so on.\n", encoding="utf-8")
    monkeypatch.setattr(held_text, "PLAYS", Source(text_file, "a text", "none", more))
    both = sha256(text_file.read_bytes() + more.read_bytes()).hexdigest()
    for data in ("", both, "0" * 64):
        write_letters(tmp_path / "exported", text_file, data=data, recipe="python -m training charlm")
    assert command("compare", "letters@1", "letters@2") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("NOTE trained on different data: sha256 ")
    assert "what is held out, 200 characters, is the same" in shown
    assert command("compare", "letters@2", "letters@3") == 2
    assert "letters@3: expected the data that it was trained on, sha256 000" in capsys.readouterr().err


def test_forecasters_are_compared_with_those_of_the_same_task_columns_and_series(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path, prices_file: Path
) -> None:
    write_letters(tmp_path / "exported", text_file)
    for more in ((), ("--columns", "close")):
        assert (
            command(
                "stock",
                "--csv",
                prices_file,
                "--name",
                "prices",
                "--hidden",
                2,
                "--epochs",
                1,
                "--no-int8",
                *more,
            )
            == 0
        )
    capsys.readouterr()

    assert command("compare", "prices@1", "prices@1", "--csv", prices_file, "--json") == 0
    titles = [one["title"] for one in json.loads(capsys.readouterr().out)["differences"]]
    assert titles == ["pinball loss, last 7", "pinball loss, last 64"]

    assert command("compare", "letters@1", "prices@1", "--text", text_file, "--csv", prices_file) == 2
    assert (
        "expected versions of one task, found letters@1 for text-generation and prices@1 for forecasting"
        in capsys.readouterr().err
    )
    assert command("compare", "prices@1", "prices@2", "--csv", prices_file) == 2
    assert "expected versions with the same columns" in capsys.readouterr().err
    assert (
        command(
            "compare",
            "prices@1",
            "prices@1",
            "--csv",
            write_prices(tmp_path / "longer.csv", random_walk(160)),
        )
        == 2
    )
    assert "expected the data that it was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("none@1", "none@1: expected a version's folder"), ("own.txt", "own.txt: expected a version's folder")],
)
def test_version_that_is_not_there_is_one_line(
    command: Command, capsys: Out, text_file: Path, wanted: str, message: str
) -> None:
    assert command("compare", wanted, wanted) == 2
    assert message in capsys.readouterr().err


def test_interval_rarely_misses_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 samples without a difference, about 5 are judged to have one; with neighbours that move
    together, hardly more.
    """
    monkeypatch.setattr(chance, "RESAMPLES", 200)
    generator = np.random.default_rng(0)

    def misses(block: int) -> int:
        count = 0
        for _ in range(100):
            noise = np.convolve(generator.normal(size=400 + block - 1), np.ones(block) / block, "valid")
            low, high = bootstrap(noise, 2 * block)
            count += not low <= 0 <= high
        return count

    assert misses(1) <= 11
    assert misses(10) <= 20


def test_paired_difference_is_seen_where_units_differ_more_than_versions() -> None:
    hard = np.random.default_rng(0).normal(10, 5, 300)
    found = difference(Loss("loss", hard, 1, ".3f"), Loss("loss", hard + 0.1, 1, ".3f"))
    assert found.is_worse
    assert found.second - found.first == pytest.approx(0.1)


def test_difference_that_is_sure_but_negligible_does_not_count() -> None:
    values = np.random.default_rng(0).normal(10, 5, 300)
    for change in (0.001, -0.001):
        found = difference(Loss("loss", values, 1, ".3f"), Loss("loss", values + change, 1, ".3f"))
        assert found.low * found.high > 0
        assert not found.is_worse
        assert not found.is_better


def test_losses_that_are_no_numbers_are_worse() -> None:
    found = Difference("loss", 1.0, np.nan, np.nan, np.nan, 9, ".3f")
    assert found.is_worse
    assert not found.is_better
