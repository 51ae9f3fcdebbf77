"""The command: options, errors of one line, interruption and resumption."""

import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seqserve.cli import output
from tests.training.conftest import Command
from training.recipes import charlm
from training.recipes.text_objective import NextTokenObjective

SMALL = ("--hidden", 8, "--layers", 1, "--epochs", 3)


def test_command_without_arguments_prints_help(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(recipe in shown.out for recipe in ("Usage", "charlm", "sentiment", "stock"))


@pytest.mark.parametrize("recipe", ["charlm", "sentiment", "stock"])
def test_every_recipe_has_the_common_options(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert command(recipe, "--help") == 0
    shown = capsys.readouterr().out
    for option in (
        "--name",
        "--repository",
        "--cell",
        "--layers",
        "--hidden",
        "--epochs",
        "--seed",
        "--device",
        "--resume",
        "--int8",
        "--no-int8",
    ):
        assert option in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("charlm", "--text", "none.txt"), "none.txt: cannot be read: No such file or directory"),
        (("charlm", "--more", "none.txt"), "--more: expected with --text alone"),
        (("charlm", "--device", "cuda:64"), "--device cuda:64: PyTorch"),
        (("charlm", "--cell", "transformer"), "'transformer' is not one of 'rnn', 'lstm', 'gru'"),
        (("charlm", "--hidden", "0"), "Invalid value for '--hidden'"),
        (("charlm", "--colour", "red"), "No such option"),
        (("dance",), "No such command 'dance'"),
        (("stock", "--name", "../up"), "--name: expected up to 64 letters"),
        (("stock", "--target", "weather"), "--target: expected one of --columns"),
        (("sentiment", "--csv", "none.csv"), "none.csv: cannot be read: No such file or directory"),
        (
            ("sentiment", "--text-column", "review"),
            "--text-column and --label-column: expected with --csv alone",
        ),
    ],
)
def test_wrong_option_is_one_line_and_status_two(
    command: Command, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert command(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


def test_interrupted_run_says_how_to_resume_and_ends_like_an_uninterrupted_one(
    command: Command,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = ("charlm", "--text", text_file, "--name", "whole", *SMALL)
    cut = ("charlm", "--text", text_file, "--name", "cut", *SMALL)
    assert command(*whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(charlm, "NextTokenObjective", _Interrupted)
        assert command(*cut) == 130
    assert (
        f"go on with: python -m training charlm --text {text_file} "
        "--name cut --hidden 8 --layers 1 --epochs 3 --resume"
    ) in capsys.readouterr().err
    assert command(*cut, "--resume") == 0
    assert "1 of 3 epochs found" in capsys.readouterr().out
    first, second = (
        (tmp_path / "exported" / name / "1" / "model.onnx").read_bytes() for name in ("whole", "cut")
    )
    assert first == second


class _Interrupted(NextTokenObjective):
    """Ctrl-C in the second epoch."""

    epochs_done = 0

    def develop(self) -> float:
        self.epochs_done += 1
        if self.epochs_done == 2:
            raise KeyboardInterrupt
        return super().develop()


def test_interruption_before_the_first_checkpoint_says_that_nothing_was_saved(
    command: Command, text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(charlm, "read_corpus", interrupt)
    assert command("charlm", "--text", text_file, *SMALL) == 130
    assert "nothing was saved" in capsys.readouterr().err


def test_resume_on_other_data_is_refused(
    command: Command, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("charlm", "--text", text_file, *SMALL) == 0
    text_file.write_text(text_file.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    assert command("charlm", "--text", text_file, *SMALL, "--resume") == 2
    assert "was made with data sha256=" in capsys.readouterr().err


def test_run_as_a_program_writes_nothing_but_its_results(reviews_file: Path, tmp_path: Path) -> None:
    """Warnings of libraries, also those printed when git is asked for the commit, would stand on standard
    error.
    """
    own = ("--csv", reviews_file, "--text-column", "review", "--label-column", "verdict")
    repository = ("--repository", tmp_path / "models", "--epochs", "1", "--name", "as-a-program")
    command = [sys.executable, "-m", "training", "sentiment", *map(str, (*own, *repository))]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        # matplotlib complains about a home that it cannot write into, which not every user has.
        env={"PYTHONPATH": str(Path(charlm.__file__).parents[2]), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "serve it" in done.stdout
    assert not list(tmp_path.glob(".cache/Microsoft"))


@pytest.mark.parametrize("program", ["training", "benchmarks"])
def test_program_has_the_streams_of_the_command(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do where output cannot be written is tested with the command."""
    entered = []

    @contextmanager
    def streams() -> Iterator[None]:
        entered.append(program)
        yield

    monkeypatch.setattr(output, "standard_streams", streams)
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(Path(charlm.__file__).parents[2] / program / "__main__.py"), run_name="__main__")
    assert entered == [program]
