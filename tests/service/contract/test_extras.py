"""service.contract.extras, and the programs that call it."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.contract import extras

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def distributions(extra: str) -> set[str]:
    """What an extra installs, extras of our own followed, with what the package itself asks for."""
    found: set[str] = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for line in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(line)
        found.add(canonicalize_name(requirement.name))
        for inner in requirement.extras if requirement.name == PROJECT["name"] else ():
            found |= distributions(inner)
    return found


@pytest.mark.parametrize("extra", extras.MODULES)
def test_modules_are_those_that_the_extra_installs(extra: extras.Extra) -> None:
    owners = importlib.metadata.packages_distributions()
    for module in extras.MODULES[extra]:
        assert {canonicalize_name(name) for name in owners[module]} & distributions(extra), module


@pytest.mark.parametrize("extra", extras.TARGETS)
def test_command_that_installs_the_extra_is_a_target(extra: extras.Extra) -> None:
    assert f"\n{extras.TARGETS[extra].removeprefix('make ')}: " in MAKEFILE


@pytest.mark.parametrize(
    ("program", "missing", "target"),
    [
        ("service", ["pydantic"], "make install"),
        ("service", ["tokenizers", "onnxruntime"], "make install"),
        ("training", ["torch"], "make train-env"),
        ("training", ["typer", "torch"], "make train-env"),
        ("training.evaluate.ablate", ["torch"], "make train-env"),
        ("benchmarks", ["torch", "uvloop"], "make train-env"),
        ("benchmarks.capacity", ["matplotlib"], "make train-env"),
        ("benchmarks.ledger", ["torch"], "make train-env"),
        ("tests.chaos", ["trustme"], "make install-dev"),
    ],
    ids=lambda each: each if isinstance(each, str) else "+".join(each),
)
def test_program_without_its_packages_says_what_to_run(program: str, missing: list[str], target: str) -> None:
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in missing)
    code = f"import runpy, sys; {blocked}runpy.run_module({program!r}, run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: python -m {program} needs {', '.join(sorted(missing))}, which {sys.executable} does not "
        f"have: run '{target}', then .venv/bin/python -m {program}\n"
    )


def test_program_with_its_packages_goes_on() -> None:
    extras.require("python -m training", "train")
