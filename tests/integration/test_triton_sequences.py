"""Triton's sequence extension with tritonclient, unmodified, and with perf_analyzer where there is one."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests import contract2
from tests.integration.process import ServerProcess
from tests.integration.tensors import infer_request, numbers
from tests.integration.test_tasks import prices
from tests.integration.test_tritonclient import PYTHON, run
from tests.tiny import export_forecaster

LEAST = 7
SERIES = np.array(prices(12, seed=3), np.float32)
TEXTS = ["abc", "h", "gé a"]
AXES = np.random.default_rng(7).uniform(0.5, 2.0, (6, 3)).astype(np.float32)
IDLE_S = 2.0  # long enough for the steps of a slow machine
# A program that starts it, for example with a newer libc beside it.
PERF_ANALYZER = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer")
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="tritonclient's environment is missing: make .venv-triton/stamp"
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """prices, and two models for sequences."""
    folder = tmp_path_factory.mktemp("sequences")
    export_forecaster(folder)
    contract2.export(contract2.TAGS, folder)
    contract2.export(contract2.ACTIVITY, folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(repository: Path) -> AsyncIterator[ServerProcess]:
    """A server that forgets idle sequences soon, and takes few."""
    settings = {"MAX_SEQUENCES": "8", "SEQUENCE_IDLE_SECONDS": str(IDLE_S)}
    async with ServerProcess(repository, settings) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def answers(server: ServerProcess) -> dict[str, Any]:
    script = str(Path(__file__).with_name("triton_sequences_script.py"))
    asked = json.dumps({"series": SERIES.tolist(), "texts": TEXTS, "axes": AXES.tolist()})
    found: dict[str, Any] = json.loads(
        await run(script, server.address, f"{server.http}/metrics", given=asked)
    )
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def expected(server: ServerProcess) -> dict[str, list[Any]]:
    """The forecasts after each number of observations, each of one request with all of them."""
    found = {}
    async with server.channel() as channel:
        stub: Any = GRPCInferenceServiceStub(channel)
        for name, series in (("forward", SERIES), ("backward", SERIES[::-1])):
            wholes = [np.ascontiguousarray(series[None, :end]) for end in range(LEAST, len(series) + 1)]
            responses = [await stub.ModelInfer(infer_request("prices", {"input": one})) for one in wholes]
            found[name] = [numbers(one, "value").tolist() for one in responses]
    return found


def lost(answer: dict[str, Any], status: str = "StatusCode.FAILED_PRECONDITION") -> bool:
    return answer.get("status") == status and answer["message"].endswith("; begin anew with sequence_start")


@pytest.mark.parametrize("scenario", ["number", "text", "aio"])
async def test_steps_are_answered_as_whole_series(
    answers: dict[str, Any], expected: dict[str, list[Any]], scenario: str
) -> None:
    found = answers[scenario]
    assert [one["values"] for one in found[: len(expected["forward"])]] == expected["forward"]


@pytest.mark.parametrize("scenario", ["number", "text"])
async def test_step_after_the_end_is_refused(answers: dict[str, Any], scenario: str) -> None:
    assert lost(answers[scenario][-1])


async def test_series_of_one_stream_are_answered_each_in_order(
    answers: dict[str, Any], expected: dict[str, list[Any]]
) -> None:
    found = answers["stream"]
    for name, direction in (("9 0", "forward"), ("nine 1", "backward")):
        assert [one["values"] for one in found if one.get("id") == name] == expected[direction]
    [refused] = [one for one in found if "message" in one]
    assert refused["message"].startswith("FAILED_PRECONDITION: sequence 'never': ")


async def test_idle_sequence_is_forgotten(answers: dict[str, Any]) -> None:
    started, late = answers["idle"]
    assert "values" in started
    assert lost(late)
    assert "was idle for too long" in late["message"]


async def test_caller_opens_half_of_all_and_another_after_an_end(answers: dict[str, Any]) -> None:
    *opened, beyond, ended, again = answers["crowd"]
    assert ["values" in one for one in (*opened, ended, again)] == [True] * 6
    assert beyond["status"] == "StatusCode.RESOURCE_EXHAUSTED"
    assert "4 of 8 sequences are open (SEQSERVE_MAX_SEQUENCES)" in beyond["message"]


async def test_models_for_sequences_are_answered_as_by_bare_onnxruntime(answers: dict[str, Any]) -> None:
    found = answers["generic"]
    tags = contract2.Reference(contract2.TAGS)
    labels = contract2.TAGS.section["output"]["labels"]
    longest = max(map(len, TEXTS))
    for text, row, spans in zip(TEXTS, found["labels"], found["spans"], strict=True):
        ids = np.array([contract2.VOCABULARY.index(one) for one in text])
        best = tags.outputs(ids).argmax(axis=1)
        padding = longest - len(text)
        assert row == [labels[one] for one in best] + [""] * padding
        assert spans == [[at, at + 1] for at in range(len(text))] + [[0, 0]] * padding
    logits = contract2.Reference(contract2.ACTIVITY).outputs(features(AXES))
    assert [row for _, row in found["classes"]] == logits.tolist()
    classes = contract2.ACTIVITY.section["output"]["labels"]
    assert [one for one, _ in found["classes"]] == [classes[best] for best in logits.argmax(axis=1)]


def features(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network gets of rows, as model.json says."""
    columns = contract2.ACTIVITY.section["columns"]
    found = []
    for values, column in zip(rows.T.astype(float), columns, strict=True):
        levels = np.log(values) if column.get("transform") == "log" else values
        found.append((levels - column.get("mean", 0.0)) / column.get("scale", 1.0))
    return np.array(found, np.float32).T


async def test_metadata_say_which_models_keep_sequences(answers: dict[str, Any]) -> None:
    assert "sequence" in answers["extensions"]
    assert answers["config"]["sequence_batching"] == {"max_sequence_idle_microseconds": "2000000"}


def perf_data() -> dict[str, Any]:
    """A sequence in perf_analyzer's form: a step of the first observations, then one a step."""
    days = np.array(prices(26, seed=4))
    cuts = [(0, LEAST), *((at, at + 1) for at in range(LEAST, len(days)))]
    steps = [
        {"input": {"content": days[a:b].ravel().tolist(), "shape": [1, b - a, days.shape[1]]}}
        for a, b in cuts
    ]
    return {"data": [steps]}


@pytest.mark.skipif(
    PERF_ANALYZER is None,
    reason="perf_analyzer is missing: set PERF_ANALYZER to it; docs/open-inference.md says how to get it",
)
@pytest.mark.parametrize("streaming", [[], ["--streaming"]], ids=["unary", "streaming"])
async def test_perf_analyzer_sends_sequences(
    tiny_server: ServerProcess, tmp_path: Path, streaming: list[str]
) -> None:
    data = tmp_path / "steps.json"
    data.write_text(json.dumps(perf_data()))
    # Whatever the machine does meanwhile, one window is stable.
    window = "--measurement-mode count_windows --measurement-request-count 100 --stability-percentage 999"
    process = await asyncio.create_subprocess_exec(
        *[str(PERF_ANALYZER), "-m", "prices", "-i", "grpc", "-u", tiny_server.address],
        *["--input-data", str(data), "--sequence-length", "20", "--concurrency-range", "32"],
        *[*window.split(), *streaming],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        printed = (await process.communicate())[0].decode()
    assert process.returncode == 0, printed
    found = re.search(r"Sequence count: (\d+) ", printed)
    assert found is not None, printed
    assert int(found[1]) > 0
