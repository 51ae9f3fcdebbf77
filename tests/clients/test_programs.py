"""Each program of examples/clients gets what the Python client gets of the same server for the same request.

The programs run once against a server with TLS, tokens and a queue of a few places, and once more without.
`make clients-test` installs the packages that npm has; a test of a language whose tools are missing is
skipped and names them.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import pytest_asyncio
import trustme

from seqserve.aio import AsyncClient
from seqserve.connection import tls
from seqserve.errors import InvalidArgument
from tests.clients.programs import PROGRAMS, Program, sections
from tests.integration.process import ROOT, ServerProcess
from tests.integration.test_access import serving
from tests.integration.test_lifecycle import get

TOKEN: Final = "secret-of-the-examples"  # noqa: S105 - of a server of these tests alone
TEXT, DULL = "A moving, funny film.", "Dull from start to end."
SEED: Final = 18446744073709551557
NUM_BURST: Final = 64
# So few of the burst wait at a time; the others are told when to come back.
QUEUE: Final = {"SLOTS": "1", "MAX_WAITING": "4", "ENGINES": "1"}

each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.name)


@dataclass(frozen=True)
class Guarded:
    """A server with TLS and tokens, and the certificate of its authority."""

    server: ServerProcess
    authority: Path

    @property
    def address(self) -> str:
        """Its host's name is that of its certificate."""
        return f"localhost:{self.server.grpc_port}"

    def client(self) -> AsyncClient:
        return AsyncClient(self.address, credentials=tls(self.authority), token=TOKEN)

    async def count_of(self, label: str) -> float:
        """Sum of the metrics of calls that have this label."""
        _, metrics = await get(f"{self.server.http}/metrics")
        pattern = rf"^seqserve_(?:requests|rejected)_total{{.*{label}.*}} (\S+)$"
        return sum(map(float, re.findall(pattern, metrics, re.MULTILINE)))


@dataclass(frozen=True)
class Ran:
    """What a program printed, by its titles, and how many calls the server refused or saw cancelled."""

    printed: dict[str, list[str]]
    num_refused: float
    num_cancelled: float


class Runs:
    """Builds each program once, runs it once against the guarded server, and keeps what came of it."""

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        self._ready: set[str] = set()
        self._ran: dict[str, Ran] = {}

    async def prepare(self, program: Program) -> None:
        """Build a program unless it is built; skip the test where its tools are missing."""
        if (why := program.missing()) is not None:
            pytest.skip(why)
        if program.name not in self._ready:
            await program.prepare()
            self._ready.add(program.name)

    async def of(self, program: Program) -> Ran:
        """Return what came of a program."""
        await self.prepare(program)
        if program.name not in self._ran:
            before = await self._counts()
            output = await program.run(self.guarded.address, str(self.guarded.authority), TOKEN)
            after = await self._counts()
            differences = (late - early for late, early in zip(after, before, strict=True))
            self._ran[program.name] = Ran(sections(output), *differences)
        return self._ran[program.name]

    async def _counts(self) -> tuple[float, float]:
        count_of = self.guarded.count_of
        return await count_of('reason="QUEUE_FULL"'), await count_of('code="CANCELLED"')


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "tokens").write_text(f"predict examples {TOKEN}\n")
    files = {
        "TLS_CERTIFICATE": str(folder / "certificate.pem"),
        "TLS_KEY": str(folder / "key.pem"),
        "TOKENS": str(folder / "tokens"),
    }
    async with serving(ROOT / "exported", **files, **QUEUE) as server:
        yield Guarded(server, folder / "ca.pem")


@pytest.fixture(scope="module")
def runs(guarded: Guarded) -> Runs:
    return Runs(guarded)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain() -> AsyncIterator[ServerProcess]:
    async with ServerProcess(ROOT / "exported") as server:
        yield server


def same_float32(printed: str, expected: float) -> bool:
    """Whether a printed number is exactly the expected one of 32 bits, however many digits it has."""
    return bool(np.float32(printed) == np.float32(expected))


async def label_of(client: AsyncClient, text: str) -> tuple[str, float]:
    [found] = await client.classify([text], model="sentiment")
    return found.label, found.probability


def assert_is_answer(line: str, expected: tuple[str, float]) -> None:
    label, probability = line.split()
    assert label == expected[0]
    assert same_float32(probability, expected[1])


@each_program
async def test_unary_answer_is_that_of_the_python_client(program: Program, runs: Runs) -> None:
    [line] = (await runs.of(program)).printed["unary"]
    async with runs.guarded.client() as client:
        assert_is_answer(line, await label_of(client, TEXT))


@each_program
async def test_text_of_a_seed_of_64_bits_is_that_of_the_python_client(program: Program, runs: Runs) -> None:
    *text, last = (await runs.of(program)).printed["streaming"]
    async with runs.guarded.client() as client:
        found = await client.generate("ROMEO:", model="charlm", max_tokens=60, seed=SEED).read()
    assert "\n".join(text) == found.text
    assert last.split() == [str(SEED), "FINISH_REASON_LENGTH", "60"]


@each_program
async def test_answers_of_a_two_way_stream_are_matched_by_id(program: Program, runs: Runs) -> None:
    bad, good, none = (await runs.of(program)).printed["two-way stream"]
    async with runs.guarded.client() as client:
        for line, name, text in ((bad, "bad ", DULL), (good, "good ", TEXT)):
            assert line.startswith(name)
            assert_is_answer(line.removeprefix(name), await label_of(client, text))
    assert none == "none INVALID_ARGUMENT"


@each_program
async def test_cancelled_text_ends_in_client_and_server(program: Program, runs: Runs) -> None:
    ran = await runs.of(program)
    assert ran.printed["cancel"] == ["CANCELLED"]
    assert ran.num_cancelled > 0


@each_program
async def test_details_of_an_error_name_the_field(program: Program, runs: Runs) -> None:
    async with runs.guarded.client() as client:
        with pytest.raises(InvalidArgument) as raised:
            await client.classify(["good", ""], model="sentiment")
    [violation] = raised.value.violations
    assert (await runs.of(program)).printed["errors"] == [
        "INVALID_ARGUMENT INVALID_ARGUMENT",
        f"{violation.field}: {violation.description}",
    ]


@each_program
async def test_passed_deadline_ends_the_call(program: Program, runs: Runs) -> None:
    assert (await runs.of(program)).printed["deadline"] == ["DEADLINE_EXCEEDED"]


@each_program
async def test_refused_calls_of_a_burst_are_repeated_until_answered(program: Program, runs: Runs) -> None:
    ran = await runs.of(program)
    assert ran.printed["retries"] == [f"{NUM_BURST} answered"]
    assert ran.num_refused > 0, "the burst did not fill the queue: nothing was repeated"


@each_program
async def test_program_calls_a_server_without_tls_and_tokens(
    program: Program, runs: Runs, plain: ServerProcess
) -> None:
    await runs.prepare(program)
    assert sections(await program.run(plain.address))["retries"] == [f"{NUM_BURST} answered"]
