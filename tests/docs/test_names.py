"""Pages name flags, files and pages that exist: in running text and tables, where no command is executed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.docs.pages import pages
from tests.docs.test_help import APPS, commands
from tests.integration.process import ROOT

# Flags of programs whose parsers are not read, as the pages name them.
FOREIGN = {
    "--constraint": "pip",
    "--editable": "pip",
    "--label": "podman build",
    "--read-only": "podman run",
    "--read-only-tmpfs": "podman run",
    "--cap-drop": "podman run",
    "--security-opt": "podman run",
    "--pids-limit": "podman run",
    "--cpus": "podman run",
    "--memory": "podman run",
    "--publish": "podman run",
    "--time": "podman stop",
    "--streaming": "perf_analyzer",
    "--library-path": "ld.so",
    "--address": "examples/ray/classify.py",
}
_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_FLAG = re.compile(r"(?<![\w-])--[a-z](?:[a-z0-9-]*[a-z0-9])?(?![\w-])")
_FILE = re.compile(
    r"((?:benchmarks|deploy|docs|exported|protos|seqserve|service|tests|tools|training)/[\w./-]+)(?::\S+)?"
)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")
# Where a file that is named may be: the protos are named as their imports are.
_ROOTS = (ROOT, ROOT / "protos")


def own_flags() -> set[str]:
    """Return every flag of our commands and of the server."""
    parameters = [
        parameter for app in APPS.values() for _, command in commands(app) for parameter in command.params
    ]
    named = {flag for one in parameters for flag in (*one.opts, *one.secondary_opts)}
    return named | {"--" + name.replace("_", "-") for name in Settings.model_fields} | {"--help"}


def spans(text: str) -> Iterator[str]:
    """Yield what stands as code in running text and tables."""
    yield from _CODE.findall(_BLOCK.sub("", text))


def flags(text: str) -> set[str]:
    """Return the flags that a page names in running text and tables."""
    return {flag for span in spans(text) for flag in _FLAG.findall(span)}


def missing_files(text: str) -> list[str]:
    """Return the files and folders of the repository that a page names and that do not exist."""
    named = [found[1] for span in spans(text) if (found := _FILE.fullmatch(span)) is not None]
    return [name for name in named if not any((root / name).exists() for root in _ROOTS)]


def broken_links(folder: Path, text: str) -> list[str]:
    """Return the targets of links of a page in a folder that do not exist."""
    targets = [target for target in _LINK.findall(_BLOCK.sub("", text)) if "://" not in target]
    return [target for target in targets if not (folder / target).exists()]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_page_names_what_exists(page: Path) -> None:
    text = page.read_text()
    assert sorted(flags(text) - own_flags() - set(FOREIGN)) == []
    assert missing_files(text) == []
    assert broken_links(page.parent, text) == []


def test_flag_of_another_program_is_on_a_page_and_none_of_ours() -> None:
    named = {flag for page in pages() for flag in flags(page.read_text())}
    assert set(FOREIGN) <= named
    assert own_flags().isdisjoint(FOREIGN)


def test_what_does_not_exist_is_found() -> None:
    text = (
        "`seqserve generate --sed 1`, `--server`, `service/nothing.py:f` and [one](no-page.md#part), "
        "not `a--b`, [web](https://host/no) or\n```sh\nseqserve --nothing\n```\n"
    )
    assert flags(text) - own_flags() == {"--sed"}
    assert missing_files(text) == ["service/nothing.py"]
    assert broken_links(ROOT / "docs", text) == ["no-page.md"]
