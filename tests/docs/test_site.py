"""The documentation site: what its generated pages hold, and that it builds without a warning."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import error_details_pb2
from typer.main import get_command

import seqserve
from seqserve.cli.app import app as seqserve_command
from seqserve.errors import SeqserveError, from_status
from service.api.errors import status_of
from service.errors import AnswerTooLarge, DeadlineTooNear, NotFound, StateNeeded
from tests.integration.process import ROOT
from tests.service.observability.test_metrics import COUNTERS, GAUGES, HISTOGRAMS
from tools.site import command, errors, metrics, protos, python_client
from tools.site.__main__ import write
from tools.site.text import cell, escaped

MKDOCS: Final = ROOT / ".venv-site/bin/python"
PROTOC: Final = ROOT / ".venv-protos/bin/python"
# What a browser fetches by itself when it opens a page.
FETCHED: Final = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//")
TEXT, ENUM, MESSAGE = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_ENUM,
    FieldDescriptorProto.TYPE_MESSAGE,
)


class NavigationLoader(yaml.SafeLoader):
    """Reads mkdocs.yml without mkdocs, whose tags become None."""


NavigationLoader.add_multi_constructor("!", lambda *_: None)
NavigationLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def navigation() -> list[str]:
    """The pages that the navigation names."""
    loaded = yaml.load((ROOT / "mkdocs.yml").read_text(), NavigationLoader)  # noqa: S506 - a SafeLoader
    return list(leaves(loaded["nav"]))


def leaves(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    else:
        for one in node.values() if isinstance(node, dict) else node:
            yield from leaves(one)


def row(page: str, first: str) -> str:
    """The row of a table that begins with this cell."""
    found = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    assert len(found) == 1, first
    return found[0]


def described_file() -> FileDescriptorProto:
    """A proto file with a comment on everything, and a field of each kind."""
    message = DescriptorProto(name="Asked")
    message.field.add(name="text", number=1, type=TEXT, label="LABEL_REPEATED")
    message.field.add(name="kind", number=2, type=ENUM, type_name=".a.Kind")
    message.field.add(name="limit", number=3, type=TEXT, proto3_optional=True, oneof_index=1)
    message.field.add(name="other", number=4, type=MESSAGE, type_name=".b.Other", oneof_index=0)
    message.field.add(
        name="named", number=5, type=MESSAGE, type_name=".a.Asked.NamedEntry", label="LABEL_REPEATED"
    )
    message.oneof_decl.add(name="choice")
    message.oneof_decl.add(name="_limit")
    entry = message.nested_type.add(name="NamedEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=TEXT)
    entry.field.add(name="value", number=2, type=ENUM, type_name=".a.Kind")
    file = FileDescriptorProto(name="a/asking.proto", package="a", message_type=[message])
    file.enum_type.add(name="Kind").value.add(name="KIND_ANY", number=0)
    service = file.service.add(name="Asking")
    service.method.add(name="Ask", input_type=".a.Asked", output_type=".x.Unknown", server_streaming=True)
    comments = {
        (6, 0): "Answers.\n\nTwice.",
        (6, 0, 2, 0): "Asks.",
        (4, 0): "What is asked.",
        (4, 0, 2, 0): "One of `a|b`, in (0, 1]: <none>.",
        (4, 0, 2, 3): "Something else.",
        (5, 0): "A kind.",
        (5, 0, 2, 0): "Any.",
    }
    for path, comment in comments.items():
        file.source_code_info.location.add(path=path, leading_comments=comment)
    return file


def asking_page() -> str:
    other = FileDescriptorProto(
        name="b/others.proto", package="b", message_type=[DescriptorProto(name="Other")]
    )
    return protos.pages(FileDescriptorSet(file=[described_file(), other]))["reference/protos/asking.md"]


def test_every_page_is_in_the_navigation_once() -> None:
    found = [one for one in navigation() if (ROOT / "docs" / one).exists()]
    assert sorted(found) == sorted(
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    )


def test_landing_page_links_to_every_page() -> None:
    page = ROOT / "docs/README.md"
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", page.read_text()))
    assert linked | {page.name} == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_every_proto_is_in_the_navigation() -> None:
    files = [*(ROOT / "protos/seqserve").rglob("*.proto"), *(ROOT / "protos/inference").rglob("*.proto")]
    expected = {f"{protos.FOLDER}/{path.stem}.md" for path in files} | {f"{protos.FOLDER}/index.md"}
    assert {one for one in navigation() if one.startswith(protos.FOLDER)} == expected


def test_every_package_of_the_site_is_pinned() -> None:
    lines = (ROOT / "tools/site/requirements.txt").read_text().splitlines()
    assert not [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)]


def test_proto_page_shows_rpcs_with_links_to_their_messages() -> None:
    page = asking_page()
    assert "## Service Asking {#a.Asking}\n\nAnswers.\n\nTwice.\n" in page
    assert "### Ask {#a.Asking.Ask}\n\n[Asked](#a.Asked) → stream of `x.Unknown`\n\nAsks.\n" in page


def test_proto_page_shows_fields_with_type_and_meaning() -> None:
    page = asking_page()
    assert (
        row(page, "`text`") == "| `text` | 1 | repeated string | One of `a\\|b`, in (0, 1\\]: &lt;none&gt;. |"
    )
    assert row(page, "`kind`") == "| `kind` | 2 | [Kind](#a.Kind) |  |"
    assert row(page, "`limit`") == "| `limit` | 3 | optional string |  |"
    assert (
        row(page, "`other`")
        == "| `other` | 4 | [b.Other](others.md#b.Other) | One of `choice`. Something else. |"
    )
    assert row(page, "`named`") == "| `named` | 5 | map of string to [Kind](#a.Kind) |  |"
    assert row(page, "`KIND_ANY`") == "| `KIND_ANY` | 0 | Any. |"
    assert "NamedEntry" not in page


def test_metrics_page_has_every_metric_with_its_labels() -> None:
    page = metrics.page()
    for kind, declared in (("counter", COUNTERS), ("gauge", GAUGES), ("histogram", HISTOGRAMS)):
        for name, labels in declared.items():
            _, _, found, shown, meaning, _ = (
                part.strip() for part in row(page.partition("## ")[0], f"`{name}`").split("|")
            )
            assert found == kind
            assert set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", shown))) == set(labels)
            assert meaning
    assert "`kind` (`useful`, `padded`)" in row(page, "`seqserve_steps_total`")


def test_metrics_page_has_the_bounds_of_every_histogram() -> None:
    bounds = metrics.page().partition("## Buckets")[2]
    assert all(re.search(rf"^\| `{name}` \| \d.*, \d", bounds, re.MULTILINE) for name in HISTOGRAMS)


@pytest.mark.parametrize(
    "error",
    [
        AnswerTooLarge("texts", 9, 8, "send fewer"),
        StateNeeded("generated", "m", 3),
        DeadlineTooNear("late", 1.0),
        NotFound("no model"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_errors_page_says_what_the_status_carries(error: Any) -> None:
    status = status_of(error)
    shown = row(errors.page(), f"`{error.reason}`")
    for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        carried = any(detail.Is(kind.DESCRIPTOR) for detail in status.details)
        assert (f"`{kind.DESCRIPTOR.name}`" in shown) == carried
    assert f"[`{type(from_status(status)).__name__}`]" in shown


def test_errors_page_has_every_reason_and_exception() -> None:
    page = errors.page()
    source = (ROOT / "service/errors.py").read_text()
    assert set(re.findall(r'reason = "(\w+)"', source)) == set(
        re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
    )
    for kind in errors.declared(seqserve.errors, SeqserveError):
        assert row(page, f"[`{kind.__name__}`](python.md#seqserve.{kind.__name__})")


def test_python_page_has_every_name_that_is_exported() -> None:
    found = re.findall(r"^::: seqserve\.(\w+)$", python_client.page(), re.MULTILINE)
    assert sorted(found) == sorted(seqserve.__all__)


def test_command_page_has_the_help_of_every_command() -> None:
    page = command.page()
    names = get_command(seqserve_command).commands  # type: ignore[attr-defined]
    assert re.findall(r"^## seqserve (\w+)$", page, re.MULTILINE) == list(names)
    assert all(f"Usage: seqserve {name} " in page for name in names)
    assert "--max-tokens" in page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b * c [d] <e> & f", r"a\_b \* c \[d\] &lt;e&gt; &amp; f"),
        ("`a_b <c>` d_e", r"`a_b <c>` d\_e"),
        ("a \\ b", r"a \\ b"),
    ],
)
def test_text_stands_for_itself_outside_of_code(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_cell_has_one_line() -> None:
    assert cell(" one\n two\n\n three | `a|b`") == r"one two<br><br>three \| `a\|b`"


def test_make_builds_strictly_and_counts_warnings() -> None:
    """mkdocs counts no warning that --quiet hides, and the build then passes whatever is wrong."""
    (command,) = re.findall(r".* -m mkdocs build .*", (ROOT / "Makefile").read_text())
    assert "--strict" in command
    assert "--quiet" not in command


@pytest.mark.skipif(not MKDOCS.exists(), reason="the site's environment is missing: make .venv-site/stamp")
@pytest.mark.skipif(not PROTOC.exists(), reason="protoc's environment is missing: make .venv-protos/stamp")
def test_site_builds_strictly_and_fetches_nothing_from_other_hosts(tmp_path: Path) -> None:
    made, pages, html = tmp_path / "protos.binpb", tmp_path / "pages", tmp_path / "html"
    files = [
        one.relative_to(ROOT / "protos")
        for one in (ROOT / "protos").rglob("*.proto")
        if "google" not in one.parts
    ]
    protoc = [PROTOC, "-m", "grpc_tools.protoc", "--proto_path=protos", "--include_source_info"]
    run(*protoc, f"--descriptor_set_out={made}", *files)
    protos_of = FileDescriptorSet.FromString(made.read_bytes())
    assert all(file.source_code_info.location for file in protos_of.file)
    write(made, pages)
    run(MKDOCS, "-m", "mkdocs", "build", "--strict", "--site-dir", html, pages=pages)
    assert (html / "search/search_index.json").stat().st_size > 100_000
    assert 'id="seqserve.v1.GenerateRequest"' in (html / "reference/protos/text_generation.html").read_text()
    assert 'id="seqserve.Client.generate"' in (html / "reference/python.html").read_text()
    settings = (html / "settings.html").read_text()
    assert '<a href="source/service/settings.py.html">' in settings  # a link out of docs/
    assert '<a href="resilience.html">Resilience</a>' in settings  # a file name becomes a title
    found = {match[0] for page in html.rglob("*.html") for match in FETCHED.finditer(page.read_text())}
    assert found == set()


def run(*command: object, pages: Path | None = None) -> None:
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"} | ({"SITE_PAGES": str(pages)} if pages else {})
    done = subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
