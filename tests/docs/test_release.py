"""Every place that names the version of a release has that of the project, and a release sets them all."""

import shutil
from pathlib import Path

import pytest

import seqserve
from tests.integration.process import ROOT
from tools import release

VERSION = seqserve.__version__
NEXT = "9.8.7"
# What names a version must still do so, or the pattern no longer finds it.
NAMING = (
    "pyproject.toml",
    "seqserve/version.py",
    "docs/image.md",
    "docs/kubernetes.md",
    "docs/install.md",
    "deploy/kserve/serving-runtime.yaml",
    "deploy/kubernetes/base/deployment.yaml",
    "deploy/kubernetes/overlays/cuda/kustomization.yaml",
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that name a version, and the changelog, in a folder of the test's own."""
    for path in [*release.files(ROOT), ROOT / release.CHANGELOG]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / release.CHANGELOG).write_text(
        f"# Changelog\n\n## Unreleased\n\n### Added\n- One.\n\n## {VERSION}\n"
    )
    return tmp_path


def texts(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in release.files(root)}


@pytest.mark.parametrize("path", release.files(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_version_in_a_file_is_the_projects(path: Path) -> None:
    found = release.mentions(path.read_text())
    assert set(found) <= {VERSION}
    if str(path.relative_to(ROOT)) in NAMING:
        assert found


def test_release_sets_every_mention_and_changes_nothing_else(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = texts(copy)
    assert release.main([NEXT], copy) == 0
    after = texts(copy)
    assert {name: text.replace(NEXT, VERSION) for name, text in after.items()} == before
    changed = {name for name, text in after.items() if text != before[name]}
    assert changed >= set(NAMING)
    assert set(capsys.readouterr().out.split()) == changed | {release.CHANGELOG}
    assert {found for text in after.values() for found in release.mentions(text)} == {NEXT}


def test_release_puts_the_unreleased_changes_under_its_heading(copy: Path) -> None:
    release.set_version(copy, NEXT, "2026-01-02")
    changelog = (copy / release.CHANGELOG).read_text()
    assert changelog == (
        f"# Changelog\n\n## Unreleased\n\n## {NEXT}\n2026-01-02.\n\n### Added\n- One.\n\n## {VERSION}\n"
    )
    with pytest.raises(release.ReleaseRefused, match="expected changes under '## Unreleased', found none"):
        release.set_version(copy, "9.8.8", "2026-01-03")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1.2.3", "expected a version such as 1.2.3 or 1.2.3rc1, found 'v1.2.3'"),
        ("1.2", "expected a version such as 1.2.3 or 1.2.3rc1, found '1.2'"),
        (VERSION, f"expected a version after {VERSION}, found {VERSION}"),
        (f"{VERSION}rc1", f"expected a version after {VERSION}, found {VERSION}rc1"),
        ("0.0.9", f"expected a version after {VERSION}, found 0.0.9"),
    ],
)
def test_version_that_is_none_or_not_newer_changes_nothing(
    copy: Path, capsys: pytest.CaptureFixture[str], version: str, expected: str
) -> None:
    before = texts(copy)
    assert release.main([version], copy) == 2
    assert capsys.readouterr().err == f"error: {expected}\n"
    assert texts(copy) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image: seqserve:1.2.3", ["1.2.3"]),
        ("registry.example/seqserve:1.2.3-cuda", ["1.2.3"]),
        ("dist/seqserve-1.2.3rc1-py3-none-any.whl", ["1.2.3rc1"]),
        ("newTag: 1.2.3\nnewTag: '1.2.4-cuda'", ["1.2.3", "1.2.4"]),
        ('"name": "seqserve",\n"version": "1.2.3",', ["1.2.3"]),
        ("the image tag `1.2.3-cuda`", ["1.2.3"]),
        ("other:1.2.3, pip install build==1.2.3, an.seqserve:1.2.3", []),
    ],
)
def test_versions_of_ours_are_told_by_what_is_before_them(text: str, expected: list[str]) -> None:
    assert release.mentions(text) == expected


def test_page_of_the_release_has_every_step() -> None:
    page = (ROOT / "docs/release.md").read_text()
    steps = (
        "make lint",
        "make test",
        "tools.release",
        "make docs",
        "make wheel",
        "make image-test",
        "git tag",
    )
    assert [step for step in steps if step not in page] == []
