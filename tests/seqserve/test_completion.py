"""Completion of the command in shells, and its version."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import seqserve
from seqserve.cli.app import app

ROOT = Path(__file__).parents[2]
SHELLS = ("bash", "zsh", "fish")
WAIT_S = 60


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command `seqserve` of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "seqserve"
    program = "from seqserve.cli import main; main()"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -c "{program}" "$@"\n')
    command.chmod(0o755)
    return folder


def run(binaries: Path, shell: str, script: str) -> str:
    """Run a script with the command in PATH, and nothing else of the environment; return what it prints."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}: apt-get install {shell}")
    environment = {"PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin", "HOME": str(binaries)}
    options = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [program, *options, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    return done.stdout


def test_bash_completes_commands_values_and_options(binaries: Path) -> None:
    lines = ("seqserve ge", "seqserve bench classify", "seqserve models --ser")
    script = [
        'eval "$(_SEQSERVE_COMPLETE=source_bash seqserve)"',
        *(
            f"COMP_WORDS=({line}); COMP_CWORD={line.count(' ')}; _seqserve_completion seqserve\n"
            'echo "${COMPREPLY[@]}"'
            for line in lines
        ),
        "complete -p seqserve",
    ]
    assert run(binaries, "bash", "\n".join(script)).splitlines() == [
        "generate",
        "classify classify-stream",
        "--server",
        "complete -o default -F _seqserve_completion seqserve",
    ]


def test_fish_completes_commands(binaries: Path) -> None:
    script = "_SEQSERVE_COMPLETE=source_fish seqserve | source; complete --do-complete 'seqserve ge'"
    assert [line.split("\t")[0] for line in run(binaries, "fish", script).splitlines()] == ["generate"]


def test_zsh_takes_the_script(binaries: Path) -> None:
    script = (
        "autoload -U compinit; compinit -u -D\n"
        'eval "$(_SEQSERVE_COMPLETE=source_zsh seqserve)"\n'
        'print -r -- "${_comps[seqserve]}"\n'
    )
    assert run(binaries, "zsh", script).strip() == "_seqserve_completion"


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_installed_in_the_users_own_files_alone(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, shell))
    result = CliRunner().invoke(app, ["--install-completion"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"{shell} completion installed in {tmp_path}" in result.stdout.replace("\n", "")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(f"_SEQSERVE_COMPLETE=complete_{shell}" in text for text in written)


def test_version_is_the_packages_and_ends_before_a_command_is_asked_for() -> None:
    result = CliRunner().invoke(app, ["--version"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (0, f"seqserve {seqserve.__version__}\n")


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert seqserve.__version__ == project["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", seqserve.__version__)
