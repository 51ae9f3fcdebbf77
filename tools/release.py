"""Set the version of a release wherever it stands: `python -m tools.release VERSION`.

It writes pyproject.toml, seqserve/version.py, the tag of the image in manifests and on pages, and a heading
in CHANGELOG.md above what was `Unreleased`. Nothing is committed; docs/release.md has the steps around it.
"""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from packaging.version import Version

ROOT: Final = Path(__file__).parents[1]
CHANGELOG: Final = "CHANGELOG.md"
_UNRELEASED: Final = "## Unreleased\n"
_FORM: Final = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
# Each place where a version of ours stands is told by what is before it.
_MENTION: Final = re.compile(
    r"""(?P<before>
        ^version\ =\ "                   # pyproject.toml
        | ^__version__:\ Final\ =\ "     # seqserve/version.py
        | (?<![\w.])seqserve[:-](?=\d)   # the image, and the files of the package
        | \bnewTag:\ ["']?               # kustomizations
        | \btag\ `                       # a tag alone, on a page
        | "version":\ "                  # the answer of ServerMetadata
    )(?P<version>\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)""",
    re.MULTILINE | re.VERBOSE,
)


class ReleaseRefused(Exception):
    """The version cannot be set; the text says why and what was expected."""


def files(root: Path) -> list[Path]:
    """Return the files in which a version of ours may stand."""
    return [
        root / "pyproject.toml",
        root / "seqserve/version.py",
        root / "README.md",
        *sorted((root / "docs").glob("**/*.md")),
        *sorted((root / "deploy").glob("**/*.yaml")),
    ]


def mentions(text: str) -> list[str]:
    """Return the versions of ours that a file names, in their order."""
    return [found["version"] for found in _MENTION.finditer(text)]


def with_version(text: str, version: str) -> str:
    """Return the text of a file with every version of ours replaced."""
    return _MENTION.sub(lambda found: found["before"] + version, text)


def released(changelog: str, version: str, day: str) -> str:
    """Return the changelog with its unreleased changes under the heading of a version.

    Raises:
        ReleaseRefused: Nothing stands under `Unreleased`, or there is no such heading.
    """
    before, heading, after = changelog.partition(_UNRELEASED)
    changes = after.partition("\n## ")[0].strip()
    if not heading or not changes:
        raise ReleaseRefused(f"{CHANGELOG}: expected changes under '{_UNRELEASED.strip()}', found none")
    return f"{before}{_UNRELEASED}\n## {version}\n{day}.\n{after}"


def check(version: str, current: str) -> None:
    """Check the version of a release.

    Raises:
        ReleaseRefused: It is not of the form 1.2.3 or 1.2.3rc1, or not newer than the current one.
    """
    if _FORM.fullmatch(version) is None:
        raise ReleaseRefused(f"expected a version such as 1.2.3 or 1.2.3rc1, found {version!r}")
    if Version(version) <= Version(current):
        raise ReleaseRefused(f"expected a version after {current}, found {version}")


def set_version(root: Path, version: str, day: str) -> list[Path]:
    """Write a version wherever it stands.

    Args:
        root: The repository.
        version: The new version.
        day: Of the release, as YYYY-MM-DD.

    Returns:
        The files that were changed.

    Raises:
        ReleaseRefused: The version or the changelog will not do; nothing is written then.
    """
    texts = {path: path.read_text() for path in files(root)}
    check(version, mentions(texts[root / "pyproject.toml"])[0])
    changed = {path: with_version(text, version) for path, text in texts.items()}
    changelog = root / CHANGELOG
    texts[changelog] = changelog.read_text()
    changed[changelog] = released(texts[changelog], version, day)
    written = [path for path, text in changed.items() if text != texts[path]]
    for path in written:
        path.write_text(changed[path])
    return written


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Set the version given and list the files that were changed; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tools.release VERSION, such as 1.2.3", file=sys.stderr)
        return 2
    try:
        written = set_version(root, arguments[0], datetime.now(UTC).date().isoformat())
    except ReleaseRefused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    for path in written:
        print(path.relative_to(root))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
