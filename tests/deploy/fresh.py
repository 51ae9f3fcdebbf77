"""Environments that hold a package of ours, what it asks for, and nothing else; made without the network."""

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LIMIT_S = 120


def run(
    command: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with PATH and the variables given as its whole environment."""
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def must_run(
    command: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as `run` does, and fail the test if its status is not 0."""
    done = run(command, folder, environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment without pip.

    Attributes:
        folder: where it is.
    """

    folder: Path

    @property
    def python(self) -> str:
        """The path of its interpreter."""
        return str(self.folder / "bin/python")

    @property
    def command(self) -> str:
        """The path of its command seqserve."""
        return str(self.folder / "bin/seqserve")

    @property
    def packages(self) -> Path:
        """Where its packages are."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))

    def pip(self, *arguments: str) -> str:
        """Run the pip of the tests on this environment, without an index; return what it prints."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]
        return must_run([*command, *arguments], self.folder, {"PIP_NO_INDEX": "1"}).stdout


def make_environment(folder: Path) -> Environment:
    """Make an environment in a folder that does not exist yet."""
    must_run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    return Environment(folder)


def link(names: set[str], packages: Path) -> None:
    """Link the files of distributions that are installed here into a folder of packages."""
    for name in sorted(names):
        found = distribution(name)
        for file in found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)


def dependencies(wheel: Distribution, extras: frozenset[str] = frozenset()) -> set[str]:
    """Return the names of all distributions that a wheel asks for with these extras, directly or not."""
    found: set[str] = set()
    waiting = _asked(wheel, extras)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name not in found:
            found.add(name)
            waiting += _asked(distribution(name), frozenset(one.extras))
    return found


def _asked(of: Distribution, extras: frozenset[str]) -> list[Requirement]:
    asked = [Requirement(line) for line in of.requires or ()]
    return [
        one
        for one in asked
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]
