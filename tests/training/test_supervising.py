"""training.supervising: a command whose process dies says so, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLY = """
import os
import signal
import tempfile

def build():
    tempfile.NamedTemporaryFile(delete=False).close()
    os.kill(os.getpid(), signal.{name})
"""
SLOW = """
import sys
import time

def build():
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)
"""


def command(network: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "training", "convert", network, "--name", "mine", *options]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_conversion_that_dies_is_a_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    folder, repository = tmp_path / "temporary", tmp_path / "models"
    folder.mkdir()
    (tmp_path / "deadly.py").write_text(DEADLY.format(name=name))
    ran = subprocess.run(
        command("deadly:build", "--repository", str(repository)),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert f"refused: the conversion ended by {name}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list(folder.iterdir())
    assert not list(repository.glob("**/*.onnx"))


def test_status_of_the_child_is_that_of_the_command(tmp_path: Path) -> None:
    ran = subprocess.run(
        command("none.onnx"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("refused: ")


def test_signal_is_passed_on_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen(
        command("slow:build"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("begun" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()
