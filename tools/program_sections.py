"""Write the sections of example programs into the pages that show them: `python -m tools.program_sections`.

A page marks the place of a block, and the block is the named section of a file under examples/:

    <!-- begin: clients/node/client.mjs unary, written by tools/program_sections.py -->
    <!-- end: unary -->

A section of a program stands between two comments of a line each, `// [unary]` and `// [end]` (or `# [unary]`
and `# [end]`), at any indentation, which the page leaves out.
"""

import re
import textwrap
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (ROOT / "docs" / "clients.md", ROOT / "docs" / "bulk.md")
EXAMPLES: Final = ROOT / "examples"
# By the ending of a file's name, the language that a block is marked with.
LANGUAGES: Final = {
    ".mjs": "js",
    ".go": "go",
    ".cpp": "cpp",
    ".java": "java",
    ".py": "python",
    ".txt": "cmake",
}

_BLOCK: Final = re.compile(
    r"<!-- begin: (?P<file>\S+) (?P<section>[\w-]+), written by tools/program_sections\.py -->\n"
    r".*?<!-- end: (?P=section) -->",
    re.DOTALL,
)


class SectionMissing(Exception):
    """A page names a file or a section that does not exist."""


def section_of(file: str, name: str) -> str:
    """Return the lines of a section without its comments and without common indentation.

    Args:
        file: path of the program from examples/.
        name: name of the section.

    Raises:
        SectionMissing: the file does not have the section exactly once.
    """
    path = EXAMPLES / file
    text = path.read_text() if path.is_file() else ""
    pattern = rf"^[ \t]*(?://|#) \[{re.escape(name)}\]\n(.*?)^[ \t]*(?://|#) \[end\]$"
    found: list[str] = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        raise SectionMissing(f"examples/{file}: expected one section [{name}], found {len(found)}")
    return textwrap.dedent(found[0]).strip("\n") + "\n"


def with_sections(text: str) -> str:
    """Return a page with each of its blocks written anew.

    Raises:
        SectionMissing: the page names a section that does not exist.
    """
    return _BLOCK.sub(_written, text)


def sections_in(text: str) -> list[tuple[str, str]]:
    """Return the file and the name of each section that a page shows."""
    return [(found["file"], found["section"]) for found in _BLOCK.finditer(text)]


def _written(found: re.Match[str]) -> str:
    file, section = found["file"], found["section"]
    return (
        f"<!-- begin: {file} {section}, written by tools/program_sections.py -->\n"
        f"```{LANGUAGES[Path(file).suffix]}\n{section_of(file, section)}```\n<!-- end: {section} -->"
    )


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        page.write_text(with_sections(page.read_text()))


if __name__ == "__main__":
    main()
