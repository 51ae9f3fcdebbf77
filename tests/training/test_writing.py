"""Files are written whole or not at all; a disk that refuses is one sentence and exit status 1."""

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import Command
from training.data.streaming import Section, store, survey
from training.errors import TrainingError
from training.failures import exit_status
from training.loop.checkpoint import read_history
from training.recipes import charlm, text_corpus
from training.recipes.text_objective import NextTokenObjective
from training.writing import WriteError, check_writable, replaced, write_whole

SENTENCE = re.compile(
    r"(?P<path>\S+): cannot be written: (?P<reason>[A-Z][a-z ]+), [\d,]+ MiB free there: "
    r"(free some space|let it be written), or name another folder .*"
)
TRAIN = ("charlm", "--text", "own.txt", "--hidden", 8, "--layers", 1, "--epochs", 1, "--no-int8")


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full: the error differs by its number alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, b"old")
    with _largest_file(100), pytest.raises(WriteError) as caught:
        write_whole(path, bytes(1000))
    found = SENTENCE.fullmatch(str(caught.value))
    assert found
    assert (found["path"], found["reason"]) == (str(path), "File too large")
    assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [("file", b"old")]


def test_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with replaced(tmp_path / "file") as beside:
            beside.touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_folder_is_checked_without_making_it(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/a: cannot be written: Not a directory"):
        check_writable(tmp_path / "file" / "a")
    with _largest_file(0), pytest.raises(WriteError, match="cannot be written: File too large"):
        check_writable(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_ids_that_do_not_fit_on_the_disk_are_an_error_and_no_signal(tmp_path: Path) -> None:
    pieces = ["abc" * 1000]
    sections = [(lambda: pieces, [Section(0, 3000, 0)])]
    with _largest_file(1000), pytest.raises(WriteError, match=r"tokens\.bin: cannot be written"):
        store(survey(lambda: pieces), sections, tmp_path / "tokens.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "second", ["", "abc", "abca" * 3, "abz"], ids=["empty", "shorter", "longer", "other"]
)
def test_text_that_is_another_at_its_second_reading_is_refused(tmp_path: Path, second: str) -> None:
    readings = iter([["abcabc"], [second]])
    alphabet = survey(lambda: next(readings))
    with pytest.raises(
        TrainingError, match="expected the text of 6 characters that was read before, found another"
    ):
        store(alphabet, [(lambda: next(readings), [Section(0, 6, 0)])], tmp_path / "tokens.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("folder", "option"), [("runs", ()), ("models", ("--repository", "models"))])
def test_folder_that_cannot_be_written_is_said_before_training(
    command: Command,
    tmp_path: Path,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    option: tuple[str, ...],
) -> None:
    (tmp_path / folder).touch()
    monkeypatch.setattr(charlm, "train", None)
    assert command(*TRAIN, *option) == 1
    assert SENTENCE.fullmatch(capsys.readouterr().err.removeprefix("error: ").rstrip("\n"))


@pytest.mark.parametrize("place", ["survey", "start_token", "evaluate"])
def test_disk_that_fills_up_ends_a_run_with_one_sentence_and_no_half_file(
    command: Command,
    tmp_path: Path,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """Before the ids, the checkpoint and the export."""
    module = text_corpus if place == "survey" else charlm
    function = getattr(module, place)
    with _largest_file(resource.getrlimit(resource.RLIMIT_FSIZE)[0]):

        def then_full(*arguments: object) -> object:
            result = function(*arguments)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
            return result

        monkeypatch.setattr(module, place, then_full)
        assert command(*TRAIN, "--name", "own") == 1
    error = capsys.readouterr().err
    named = {"survey": "tokens.bin", "start_token": "checkpoint.pt", "evaluate": "exported/own/1"}[place]
    found = SENTENCE.fullmatch(error.removeprefix("error: ").rstrip("\n"))
    assert found
    assert found["path"].endswith(named)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"own.txt", "tokens.bin", "checkpoint.pt", "lock"}
    assert named not in left
    assert not (tmp_path / "exported" / "own").exists()


def test_run_whose_export_found_no_space_is_exported_by_its_checkpoint_without_training(
    command: Command,
    tmp_path: Path,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluate = charlm.evaluate

    def then_full(*arguments: Any) -> Any:
        results = evaluate(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return results

    with _largest_file(resource.getrlimit(resource.RLIMIT_FSIZE)[0]), monkeypatch.context() as patch:
        patch.setattr(charlm, "evaluate", then_full)
        assert command(*TRAIN, "--name", "own") == 1
    again = f"python -m training {' '.join(map(str, TRAIN))} --name own --resume"
    assert capsys.readouterr().err.endswith(f"nothing is trained again that it holds: {again}\n")
    monkeypatch.setattr(NextTokenObjective, "losses", None)  # no step is made
    assert command(*again.split()[3:]) == 0
    assert (tmp_path / "exported" / "own" / "1" / "model.json").is_file()


def test_disk_that_is_full_at_a_later_epoch_keeps_the_checkpoint_before(
    command: Command,
    tmp_path: Path,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    develop = NextTokenObjective.develop
    measured = []

    def then_full(self: NextTokenObjective) -> float:
        measured.append(develop(self))
        if len(measured) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return measured[-1]

    train = (*TRAIN[:-2], 2, TRAIN[-1], "--name", "own")
    with _largest_file(resource.getrlimit(resource.RLIMIT_FSIZE)[0]), monkeypatch.context() as patch:
        patch.setattr(NextTokenObjective, "develop", then_full)
        assert command(*train) == 1
    assert len(measured) == 2
    assert "checkpoint.pt: cannot be written: File too large" in capsys.readouterr().err
    assert len(read_history(tmp_path / "runs" / "own" / "checkpoint.pt")) == 1
    assert command(*train, "--resume") == 0
    assert "1 of 2 epochs found" in capsys.readouterr().out


def test_errors_of_another_kind_keep_their_trace() -> None:
    def fail() -> None:
        raise OSError(os.strerror(11))

    with pytest.raises(OSError, match="unavailable"):
        exit_status(fail)
