"""A run's folder belongs to one run at a time."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import Command
from training.errors import TrainingError
from training.loop.run_lock import LOCK_FILE, locked
from training.recipes import charlm

ROOT = Path(__file__).parents[3]
HOLDER = """
import fcntl, os, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(os.getpid(), file=file, flush=True)
print("held", flush=True)
sys.stdin.readline()
"""
CONTENDER = """
import sys
from pathlib import Path
from training.errors import TrainingError
from training.loop.run_lock import locked
print("ready", flush=True)
sys.stdin.readline()
try:
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except TrainingError as error:
    print(error, flush=True)
"""


def start(script: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline()


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_one_of_several_processes_holds_a_folder(tmp_path: Path) -> None:
    processes = [start(CONTENDER, tmp_path / "mine") for _ in range(3)]
    assert [line_of(one) for one in processes] == ["ready\n"] * 3
    for one in processes:
        tell(one)
    answers = [line_of(one) for one in processes]
    assert answers.count("held\n") == 1
    refused = [one for one in answers if one != "held\n"]
    assert all("mine: expected no other run of this name, found one" in one for one in refused)
    for one in processes:
        one.communicate("\n")


def test_second_run_of_a_name_is_refused_before_it_trains_or_touches_anything(
    command: Command,
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"of the other run")
    other = start(HOLDER, folder / LOCK_FILE)
    assert line_of(other) == "held\n"
    train = ("charlm", "--text", text_file, "--name", "mine", "--hidden", 8, "--layers", 1, "--epochs", 1)
    with monkeypatch.context() as patch:
        patch.setattr(charlm, "train", None)
        assert command(*train) == 2
    assert capsys.readouterr().err == (
        f"error: runs/mine: expected no other run of this name, found one, process {other.pid}: "
        "give this one a --name of its own, or wait until that one has ended\n"
    )
    assert (folder / "checkpoint.pt").read_bytes() == b"of the other run"
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert command(*train) == 0, "the lock of a killed process is free"


def test_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(TrainingError, match="of the recipe"), locked(tmp_path / "mine"):
            raise TrainingError("of the recipe")
    assert int((tmp_path / "mine" / LOCK_FILE).read_text()) == os.getpid()


def test_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: int, _operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "mine") as note:
        assert note.endswith(
            "mine: cannot be locked here (Operation not supported): "
            "see to it that no other run of this name is started while this one trains"
        )
