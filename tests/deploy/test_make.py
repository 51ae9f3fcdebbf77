"""The Makefile, as somebody meets it who has just cloned the repository; nothing is installed here."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.deploy.render import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
# A python that says how it was called, and makes an environment without pip that can be called likewise.
PYTHON = """#!/bin/sh
echo "python $*" >&2
case "$1 $2" in
    "-m venv")
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
        echo "command = $0 -m venv $PWD/$3" > "$3/pyvenv.cfg" ;;
esac
"""
OLD_PYTHON = """#!/bin/sh
exec python3 -c 'import sys; sys.version_info = (3, 9); exec(sys.argv[1])' "$2"
"""
Run = subprocess.CompletedProcess[str]


def make(folder: Path, *arguments: str) -> Run:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def calls(made: Run) -> list[str]:
    return [line for line in made.stderr.splitlines() if line.startswith("python ")]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    return folder


def test_make_alone_lists_every_target(clone: Path) -> None:
    listed = [line.split()[0] for line in make(clone).stdout.splitlines()]
    declared = next(line for line in MAKEFILE.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert sorted(listed) == sorted({*declared} - {"FORCE", "check-protos"})


@pytest.mark.parametrize(
    ("target", "extras"),
    [
        ("install", "serve,cli"),
        ("train-env", "train"),
        ("install-dev", "dev"),
        ("train", "train"),
        ("wheel", "wheel"),
        ("playground", "serve,playground"),
    ],
)
def test_target_installs_its_extras_once(clone: Path, target: str, extras: str) -> None:
    first = calls(make(clone, "-j4", target, "PYTHON=./python"))
    assert [line for line in first if "pip install" in line and line.endswith(f"--editable .[{extras}]")]
    again = calls(make(clone, target, "PYTHON=./python"))
    assert not [line for line in again if "venv" in line or "pip" in line]


def test_clone_that_was_moved_is_installed_anew(clone: Path) -> None:
    make(clone, "install", "PYTHON=./python")
    moved = clone.rename(clone.with_name("moved clone"))
    assert [line for line in calls(make(moved, "install", "PYTHON=./python")) if "pip install" in line]
    assert str(moved) in (moved / ".venv/pyvenv.cfg").read_text()


def _refuse(condition: str, text: str) -> str:
    return PYTHON.replace("\necho", f'\ncase "$*" in {condition}) echo "{text}" >&2; exit 1 ;; esac\necho', 1)


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        (OLD_PYTHON, "3.11 or newer"),
        (_refuse("*venv*", "No module named venv"), "apt-get install python3-venv"),
        (_refuse("*pip*", "no such host"), "the network to pypi.org, or PIP_INDEX_URL"),
    ],
    ids=["old python", "no venv module", "no network"],
)
def test_what_is_missing_is_named(clone: Path, python: str, expected: str) -> None:
    (clone / "python").write_text(python)
    made = make(clone, "install", "PYTHON=./python")
    assert made.returncode == 2
    assert expected in made.stderr
    assert not (clone / ".venv/serve.stamp").exists()


def test_every_folder_of_tests_is_run() -> None:
    [listed] = [line.split(":=")[1].split() for line in MAKEFILE.splitlines() if line.startswith("TESTS :=")]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(listed) == sorted(settings["tool"]["pytest"]["ini_options"]["testpaths"])


def test_files_that_run_alone_are_there() -> None:
    """A file that is left out of the run of two at a time, and has another name, would not be run."""
    [line] = [line for line in MAKEFILE.splitlines() if line.startswith("ALONE :=")]
    names = line.split(".py,")[1].rstrip(")").split()
    assert names
    assert [name for name in names if not (ROOT / f"tests/integration/test_{name}.py").is_file()] == []
