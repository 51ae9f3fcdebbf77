"""service.__main__, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEQSERVE_")}
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(
        command,
        env=inherited | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_wrong_setting_ends_with_status_two_and_its_line() -> None:
    ran = run("--slots=0", SEQSERVE_CHUNK="x")
    assert ran.returncode == 2
    assert sorted(line.split(":")[0] for line in ran.stderr.splitlines()) == [
        "SEQSERVE_CHUNK",
        "SEQSERVE_SLOTS",
    ]
    assert ran.stdout == ""


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_change_no_status(closed: str) -> None:
    """The start ended on an error without a word, and descriptor 2 would have been a socket's."""
    command = ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-m", "service", "--slots=0"]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 2


def test_repository_without_a_model_ends_with_status_one(tmp_path: Path) -> None:
    ran = run(f"--repository={tmp_path}", "--grpc-address=127.0.0.1:0", "--http-address=127.0.0.1:0")
    assert ran.returncode == 1
    assert (
        ran.stderr.splitlines()[-1] == f"no model could be served from {tmp_path}: no model was found there"
    )


def test_help_ends_with_status_zero() -> None:
    ran = run("--help")
    assert ran.returncode == 0
    assert "--grpc-address" in ran.stdout


def test_preparation_that_cannot_be_ended_does_not_abort_the_exit() -> None:
    program = (
        "import threading; from service.program import leave; from service.models.choices import PREPARING; "
        "threading.Thread(target=threading.Event().wait, name=PREPARING).start(); leave(0)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert (ran.returncode, ran.stderr) == (0, "")
