"""docs/clients.md and docs/bulk.md show programs as they are; what is seen of those without their tools."""

import json
import re
from pathlib import Path

import pytest

from service.parts import MIN_PING_INTERVAL_MS
from tests.clients.programs import FOLDER, PROGRAMS, Program, sections
from tests.docs.pages import commands
from tests.integration.process import ROOT
from tools import program_sections
from tools.program_sections import SectionMissing, section_of, sections_in, with_sections

SHOWN = ("connect", "unary", "streaming", "two-way", "cancel", "errors", "deadline", "retry")
SOURCES = {
    "node": "client.mjs",
    "connect-node": "client.mjs",
    "go": "main.go",
    "cpp": "client.cpp",
    "java": "SeqserveClient.java",
}
# How each language says so many milliseconds or seconds between pings.
PING = re.compile(
    r"(?:keepalive_time_ms\": |pingIntervalMs: |KEEPALIVE_TIME_MS, |ClientParameters\{Time: |keepAliveTime\()"
    r"([\d_]+)(?: \* time\.(Second)|, TimeUnit\.(SECONDS))?"
)

each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.name)


def source_of(program: Program) -> str:
    return (program.folder / SOURCES[program.name]).read_text()


@pytest.mark.parametrize("page", program_sections.PAGES, ids=lambda one: one.name)
def test_page_shows_the_programs_as_they_are(page: Path) -> None:
    text = page.read_text()
    assert with_sections(text) == text, f"{page.name} is not current: run 'make docs'"


@each_program
def test_page_shows_every_kind_of_call_of_a_program(program: Program) -> None:
    file = f"clients/{program.name}/{SOURCES[program.name]}"
    found = sections_in((ROOT / "docs/clients.md").read_text())
    assert tuple(name for shown, name in found if shown == file) == SHOWN


@each_program
def test_program_pings_no_more_often_than_the_server_takes(program: Program) -> None:
    [(number, *seconds)] = PING.findall(source_of(program))
    interval_ms = int(number.replace("_", "")) * (1000 if any(seconds) else 1)
    assert interval_ms >= MIN_PING_INTERVAL_MS


def test_every_program_is_run() -> None:
    assert sorted(one.name for one in PROGRAMS) == sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", ["node", "connect-node"])
def test_versions_of_npm_packages_are_exact(name: str) -> None:
    package = json.loads((FOLDER / name / "package.json").read_text())
    versions = package["dependencies"] | package.get("devDependencies", {})
    assert [one for one in versions.values() if not re.fullmatch(r"\d+\.\d+\.\d+", one)] == []


def test_npm_install_leaves_no_lock_file_in_the_clone() -> None:
    """Otherwise the clone has a file that git does not know, and a release begins with a clean one."""
    installs = [one.text for one in commands() if one.text.startswith("npm install --prefix ")]
    folders = [ROOT / install.split()[3] for install in installs]
    assert len(folders) == 2
    assert all((folder / ".npmrc").read_text() == "package-lock=false\n" for folder in folders)


@each_program
def test_skipped_program_names_what_installs_it(program: Program) -> None:
    installed = [one.text for one in commands() if one.page == "docs/clients.md"]
    for need, how in program.needs:
        named = set(how.removeprefix("apt-get install --no-install-recommends ").split())
        is_on_page = any(named <= set(text.split()) for text in installed if text.startswith("apt-get"))
        assert is_on_page or not how.startswith("apt-get"), f"{need}: the page does not install {how}"


def test_program_of_the_bulk_page_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [program] = re.findall(
        r"```python\n(from service\.bulk .*?)```", (ROOT / "docs/bulk.md").read_text(), re.DOTALL
    )
    monkeypatch.chdir(ROOT)
    exec(program, {})  # noqa: S102 - it is ours
    labels = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert labels == ["positive", "negative"]


def test_output_is_read_by_its_titles() -> None:
    assert sections("== unary\na 1\n== streaming\n\nx\n") == {"unary": ["a 1"], "streaming": ["", "x"]}


def test_section_that_is_missing_is_named() -> None:
    with pytest.raises(SectionMissing, match=r"examples/clients/go/main.go: expected one section \[fly\]"):
        section_of("clients/go/main.go", "fly")
