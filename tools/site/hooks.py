"""Hooks of mkdocs: add pages from outside docs/, and make the links of plain Markdown fit the site.

This file runs in the environment of mkdocs and imports nothing of this repository. The pages of docs/ are
also read as plain Markdown beside the code, so they link to files such as `../service/settings.py`. Each file
that a page links to becomes a page of the site, in `source/`. A link that shows a file name, such as
`[settings.md](settings.md)`, shows the page's title on the site.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from mkdocs.config.defaults import MkDocsConfig  # type: ignore[import-not-found]
from mkdocs.exceptions import PluginError  # type: ignore[import-not-found]
from mkdocs.structure.files import File, Files, InclusionLevel  # type: ignore[import-not-found]
from mkdocs.structure.pages import Page  # type: ignore[import-not-found]

ROOT: Final = Path(__file__).parents[2]
_LINK: Final = re.compile(r"(?P<open>\]\()(?P<path>[^)#\s:]+)(?P<rest>(?:#[^)\s]*)?\))")
_NAMED_LINK: Final = re.compile(r"\[(?P<name>[\w-]+\.md)\](?=\((?P<path>[^)#\s:]+))")
_FENCE: Final = "`" * 8
_NOT_FOUND: Final = "---\nsearch: {exclude: true}\n---\n"
# Pages from outside docs/ that the navigation names, by their path in the repository.
_PAGES: Final = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/results/results.md": "results.md",
}
# What a link to these leads to on the site.
_PLACES: Final = {
    **_PAGES,
    "README.md": "README.md",
    "protos": "reference/protos/index.md",
    "protos/seqserve/v1": "reference/protos/index.md",
}
_ORIGINS: Final = {page: path for path, page in _PAGES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, those from outside docs/, and one for each file that a page links to."""
    generated = ROOT / config.extra["generated"]
    if not generated.is_dir():
        raise PluginError(f"expected the generated pages in {generated}, found no such folder: run make site")
    for path in sorted(generated.rglob("*.md")):
        files.append(File.generated(config, path.relative_to(generated).as_posix(), abs_src_path=str(path)))
    for source, page in _PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for source in sorted(_linked_sources(files)):
        page = File.generated(
            config, site_path(source), content=source_page(source), inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Return the page's text with links that lead to pages of the site and show their titles."""
    titles = {file.src_uri: file.page.title for file in files.documentation_pages() if file.page is not None}
    return with_titles(with_site_links(markdown, page.file.src_uri), page.file.src_uri, titles)


def with_titles(markdown: str, page: str, titles: Mapping[str, str | None]) -> str:
    """Return a page's text with titles in place of the file names that links show.

    Args:
        markdown: text of the page, with site links.
        page: its path in the site.
        titles: titles of pages by their paths; those without one keep the file name.
    """

    def replaced(link: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(page).parent / link["path"])
        return f"[{titles.get(target) or link['name']}]"

    return _NAMED_LINK.sub(replaced, markdown)


def with_site_links(markdown: str, page: str) -> str:
    """Return a page's text with site links.

    Args:
        markdown: text of the page.
        page: its path in the site.
    """

    def replaced(link: re.Match[str]) -> str:
        target = _target(link["path"], page)
        if target is None:
            return link[0]
        relative = os.path.relpath(site_path(target), PurePosixPath(page).parent)
        return f"{link['open']}{relative}{link['rest']}"

    return _LINK.sub(replaced, markdown)


def site_path(path: str) -> str:
    """Return the path in the site of a file or folder of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return _PLACES.get(path, f"source/{path}.md")


def source_page(path: str) -> str:
    """Return the page that shows a file as it is, or the names in a folder; the search does not find it."""
    if (ROOT / path).is_dir():
        names = (one.name + "/" * one.is_dir() for one in sorted((ROOT / path).iterdir()))
        listed = "\n".join(f"- `{name}`" for name in names if not name.startswith((".", "__")))
        return f"{_NOT_FOUND}# {path}/\n\n{listed}\n"
    language = {".py": "python", ".conf": "nginx", ".yaml": "yaml"}.get(PurePosixPath(path).suffix, "text")
    return f"{_NOT_FOUND}# {path}\n\n{_FENCE}{language}\n{(ROOT / path).read_text()}\n{_FENCE}\n"


def _linked_sources(files: Files) -> set[str]:
    """Return the files of the repository that pages link to and that are no pages of the site."""
    found = set()
    for file in files.documentation_pages():
        targets = (_target(link["path"], file.src_uri) for link in _LINK.finditer(file.content_string))
        found |= {one for one in targets if one is not None and site_path(one).startswith("source/")}
    return found


def _target(link: str, page: str) -> str | None:
    """Return the path in the repository that a link leads to, if the link must change on the site.

    None: the link works as it stands, or leads to nothing, which mkdocs then reports.
    """
    origin = _ORIGINS.get(page, f"docs/{page}")
    path = os.path.normpath(PurePosixPath(origin).parent / link)
    stands = path.startswith("docs/") and page not in _ORIGINS
    return None if stands or not (ROOT / path).exists() else path
