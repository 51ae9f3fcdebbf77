"""examples/ray/classify.py on a local Ray of two workers, of which one is killed in the middle: every row
comes out once, with what a server answers, bit for bit.

It runs in `.venv-ray`, which `make bulk-test` makes.
"""

import asyncio
import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pytest
import pytest_asyncio

from benchmarks.loads import review_texts
from seqserve.aio import AsyncClient
from tests.integration.process import ROOT, ServerProcess

PYTHON: Final = Path(os.environ.get("RAY_PYTHON", ROOT / ".venv-ray/bin/python"))
PROGRAM: Final = ROOT / "examples/ray/classify.py"
MODEL: Final = ROOT / "exported/sentiment/4"
NUM_FILES, ROWS_A_FILE = 8, 4_000
LIMIT_S: Final = 150
# What Ray calls the processes that hold the model.
WORKER: Final = b"ray::MapWorker"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="ray's environment is missing: make .venv-ray/stamp"
)


def write_inputs(folder: Path) -> pl.DataFrame:
    """Write Parquet files of sentences, one of them empty, and return all rows."""
    texts = review_texts()
    drawn = random.Random(7)
    rows = [drawn.choice(texts) for _ in range(NUM_FILES * ROWS_A_FILE)]
    rows[17] = ""
    frame = pl.DataFrame({"id": range(len(rows)), "text": rows})
    for number in range(NUM_FILES):
        frame.slice(number * ROWS_A_FILE, ROWS_A_FILE).write_parquet(folder / f"{number}.parquet")
    return frame


@asynccontextmanager
async def program(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The example as a process with a group of its own, which is ended with it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEQSERVE_")}
    own = {
        "PYTHONPATH": str(ROOT),
        "RAY_ADDRESS": "127.0.0.2:1",  # a cluster that it was not told to join
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = await asyncio.create_subprocess_exec(
        *(str(one) for one in (PYTHON, PROGRAM, *arguments)),
        cwd=ROOT,
        env=environment | own,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()  # Ray ends its own processes then
            await process.wait()


def workers_of(pid: int) -> set[int]:
    """Ids of the processes below a process that hold a model."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, below = set(), [pid]
    while below:
        one = below.pop()
        below += parents.get(one, [])
        try:
            if Path(f"/proc/{one}/cmdline").read_bytes().startswith(WORKER):
                found.add(one)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def kill_a_worker_in_the_middle(process: asyncio.subprocess.Process, labelled: Path) -> int:
    """Kill a worker once the first rows are written; return its id."""
    while not has_files(labelled):  # the processes are Ray's: it has no event for us
        assert process.returncode is None, "the program has ended without an output"
        await asyncio.sleep(0.02)
    victim = min(workers_of(process.pid))
    os.kill(victim, signal.SIGKILL)
    return victim


def has_files(folder: Path) -> bool:
    return any(folder.glob("*.parquet"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that were given and those that came out, by their ids."""
    reviews, labelled = tmp_path_factory.mktemp("reviews"), tmp_path_factory.mktemp("out") / "labelled"
    given = write_inputs(reviews)
    async with asyncio.timeout(LIMIT_S), program(MODEL, reviews, labelled, "--workers", "2") as process:
        killing = asyncio.create_task(kill_a_worker_in_the_middle(process, labelled))
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        told = rf"worker died or was killed while executing a task .* Worker PID: {await killing} "
        assert re.search(told, output.decode()), "the worker was killed after its work"
    return given, pl.read_parquet(labelled / "*.parquet").sort("id")


async def test_killed_worker_loses_and_repeats_no_row(outcome: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    given, found = outcome
    assert found["id"].to_list() == given["id"].to_list()
    assert found["text"].to_list() == given["text"].to_list()


async def test_answers_are_those_of_a_server_bit_for_bit(outcome: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    _, found = outcome
    right = found.filter(pl.col("error") == "")
    texts = sorted(set(right["text"].to_list()))
    async with ServerProcess(ROOT / "exported") as server, AsyncClient(server.address) as client:
        parts = [texts[first : first + 256] for first in range(0, len(texts), 256)]
        answers = [one for part in parts for one in await client.classify(part, model="sentiment")]
    expected = dict(zip(texts, answers, strict=True))
    labels = [expected[text].label for text in right["text"]]
    probabilities = np.array([expected[text].probability for text in right["text"]], np.float32)
    assert right["label"].to_list() == labels
    assert right["probability"].to_numpy().tobytes() == probabilities.tobytes()


async def test_text_that_the_model_does_not_take_has_its_error(
    outcome: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    _, found = outcome
    wrong = found.filter(pl.col("error") != "")
    assert wrong["id"].to_list() == [17]
    assert wrong["error"].to_list() == ["texts[0]: expected at least one token, found none"]
    assert wrong["label"].to_list() == [""]
