"""Links between the pages lead to files and headings that exist, as a code host shows them."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import pages
from tests.integration.process import ROOT

PAGES: Final = [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"]
_FENCED: Final = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE: Final = re.compile(r"`[^`\n]*`")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ANCHOR: Final = re.compile(r'<a id="([^"]+)">')


def links_of(text: str) -> list[str]:
    """The targets of links outside of code."""
    return _LINK.findall(_CODE.sub("", _FENCED.sub("", text)))


def anchors_of(text: str) -> set[str]:
    """The anchors of a page: those of its headings as GitHub and the site make them, and those by hand."""
    headings = (
        re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_FENCED.sub("", text))
    )
    return {heading.strip().replace(" ", "-") for heading in headings} | set(_ANCHOR.findall(text))


def problem_of(link: str, page: Path) -> str | None:
    """Why a link leads nowhere; None if it does not, or leads to another host."""
    if re.match(r"[a-z]+:", link):
        return None
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"{link}: no such file"
    if anchor and anchor not in anchors_of(target.read_text()):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda one: one.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert [why for link in links_of(page.read_text()) if (why := problem_of(link, page))] == []


def test_links_are_found() -> None:
    """The test above would pass if no link were read."""
    assert sum(len(links_of(page.read_text())) for page in PAGES) > 100


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("settings.md", None),
        ("settings.md#addresses", None),
        ("https://example.com/x", None),
        ("settings.md#nowhere", "settings.md#nowhere: no such heading"),
        ("nothing.md", "nothing.md: no such file"),
        ("../../outside.md", "../../outside.md: no such file"),
    ],
)
def test_broken_links_are_told(link: str, expected: str | None) -> None:
    assert problem_of(link, ROOT / "docs/README.md") == expected


def test_links_in_code_and_examples_do_not_count() -> None:
    assert links_of("[a](b.md) `[c](d.md)`\n```\n[e](f.md)\n```\n") == ["b.md"]


def test_anchors_are_those_of_headings() -> None:
    text = '# One `x`: two\n```\n# none\n```\n<a id="three"></a>'
    assert anchors_of(text) == {"one-x-two", "three"}
