"""tritonclient, unmodified, against the real server; and our stubs under the protobuf that it wants.

It runs in `.venv-triton`, for it cannot live beside protobuf 7: `tests/integration/triton_script.py` asks
there, all at once, what is compared here, and the programs of docs/open-inference.md run there.
"""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import google.protobuf
import numpy as np
import pytest
import pytest_asyncio

from tests.docs.pages import is_as_shown
from tests.integration.calls import Calls
from tests.integration.process import ROOT, ServerProcess
from tests.integration.test_tasks import prices

PYTHON = Path(os.environ.get("TRITON_PYTHON", ROOT / ".venv-triton/bin/python"))
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="tritonclient's environment is missing: make .venv-triton/stamp"
)

TEXTS = ["good", "the film a good not bad film", "bad"]
SERIES = [np.array(prices(days, seed=days), np.float32).tolist() for days in (7, 12)]
SAMPLING: dict[str, Any] = {"max_tokens": 150, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 11}


def array(values: object, kind: str) -> dict[str, object]:
    return {"values": values, "type": kind}


def padded() -> list[Any]:
    return [[*one, *[[0.0] * 5] * (12 - len(one))] for one in SERIES]


CLASSIFY = {"model": "moods", "tensors": {"text": TEXTS}, "id": "texts"}
TOKENS = {
    "model": "moods",
    "tensors": {"input": array([[1, 0, 0], [5, 6, 2]], "int64"), "lengths": array([1, 3], "int32")},
    "id": "tokens",
}
FORECAST = {
    "model": "prices",
    "tensors": {"input": array(padded(), "float32"), "lengths": array([7, 12], "int32")},
    "parameters": {"horizon": 4},
    "id": "series",
}
GENERATE = {"model": "letters", "tensors": {"prompt": ["abc"]}, "parameters": SAMPLING, "id": "text"}
LATE = GENERATE | {"options": {"timeout": 1}, "id": "late"}
RIGHT = [CLASSIFY, TOKENS, FORECAST, GENERATE, CLASSIFY | {"outputs": ["probabilities"], "id": "one output"}]
WRONG: list[dict[str, Any]] = [
    {"model": "moods", "tensors": {"text": ["good", ""]}},
    {"model": "moods", "tensors": {"txt": ["good"]}},
    {"model": "prices", "tensors": {"input": array([[[1.0, 2.0]]], "float32")}},
    {"model": "prices", "tensors": {"input": array([[[1.0] * 5] * 7], "float64")}},
    {"model": "nobody", "tensors": {"text": ["good"]}},
]
# Questions with the code and the start of the message that each is refused with; empty ones: it is answered.
INVALID = "StatusCode.INVALID_ARGUMENT"
PAST = "StatusCode.DEADLINE_EXCEEDED"
AS_TEXT = GENERATE | {"parameters": {name: str(value) for name, value in SAMPLING.items()}, "id": "as text"}
OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "timeout in time": (CLASSIFY | {"options": {"timeout": 60_000_000}}, ("", "")),
    "no timeout": (CLASSIFY | {"options": {"timeout": 0}}, ("", "")),
    "passed timeout": (CLASSIFY | {"options": {"timeout": 1}}, (PAST, "")),
    "passed timeout of a generation": (GENERATE | {"options": {"timeout": 1}}, (PAST, "")),
    "priority": (FORECAST | {"options": {"priority": 2}}, (INVALID, "priority: ")),
    "sequence by number": (CLASSIFY | {"options": {"sequence_id": 7}}, (INVALID, "sequence_id: ")),
    "sequence by text": (
        CLASSIFY | {"options": {"sequence_id": "a", "sequence_start": True}},
        (INVALID, "sequence_id: "),
    ),
    "near miss": (
        GENERATE | {"parameters": {"max_new_tokens": 5}},
        (INVALID, "parameters: expected parameters among max_tokens, "),
    ),
    "classification": (
        CLASSIFY | {"outputs": ["probabilities"], "classes": 2},
        (INVALID, "probabilities.classification: "),
    ),
    "output twice": (CLASSIFY | {"outputs": ["label", "label"]}, (INVALID, "outputs: expected label once")),
}
QUESTIONS = {
    "about": ["letters", "moods", "prices"],
    "sync": RIGHT + WRONG + [AS_TEXT] + [question for question, _ in OPTIONS.values()],
    "aio": RIGHT,
    "stream": [GENERATE, WRONG[0], CLASSIFY, FORECAST, LATE],
}


async def run(*arguments: str, given: str = "") -> str:
    """Run tritonclient's Python; what it prints. It prints nothing to stderr."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        str(PYTHON), *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=ROOT
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate(given.encode())
    assert (process.returncode, errors.decode()) == (0, "")
    return out.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def answers(tiny_server: ServerProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        await run(
            str(Path(__file__).with_name("triton_script.py")),
            tiny_server.address,
            given=json.dumps(QUESTIONS),
        )
    )
    return found


def by_id(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["id"]: one["outputs"] for one in answers if one.get("id")}


async def test_server_and_models_are_ready(answers: dict[str, Any]) -> None:
    about = answers["about"]
    assert (about["live"], about["ready"], about["server"]["name"]) == (True, True, "seqserve")
    assert about["models_ready"] == {"letters": True, "moods": True, "prices": True, "nobody": False}


async def test_metadata_tell_tensors(answers: dict[str, Any]) -> None:
    prices_metadata = answers["about"]["models"]["prices"]
    assert (prices_metadata["platform"], prices_metadata["versions"]) == ("onnxruntime_onnx", ["1"])
    assert prices_metadata["inputs"][0] == {"name": "input", "datatype": "FP32", "shape": ["-1", "-1", "5"]}
    configs = answers["about"]["configs"]
    assert configs["letters"]["model_transaction_policy"] == {"decoupled": True}
    assert configs["letters"]["input"] == [{"name": "prompt", "data_type": "TYPE_STRING", "dims": ["1"]}]
    assert configs["prices"]["input"][1] == {
        "name": "lengths",
        "data_type": "TYPE_INT32",
        "dims": ["-1"],
        "optional": True,
    }


@pytest.mark.parametrize("part", ["sync", "aio", "stream", "aio_stream"])
async def test_answers_are_those_of_the_typed_services(
    tiny: Calls, answers: dict[str, Any], part: str
) -> None:
    found = by_id(answers[part])
    moods = await tiny.classify(TEXTS)
    by_label = [{one.label: one.probability for one in result.probabilities} for result in moods]
    probabilities = [[one["negative"], one["positive"]] for one in by_label]
    assert found["texts"] == {"label": [one.label for one in moods], "probabilities": probabilities}
    forecasts = await tiny.forecast(SERIES, horizon=4)
    values = np.array([[step.value for step in one.steps] for one in forecasts], np.float32)
    quantiles = np.array(
        [[[item.value for item in step.quantiles] for step in one.steps] for one in forecasts], np.float32
    )
    assert found["series"] == {"value": values.tolist(), "quantiles": quantiles.tolist()}


@pytest.mark.parametrize("part", ["sync", "aio"])
async def test_tokens_outputs_and_whole_texts(tiny: Calls, answers: dict[str, Any], part: str) -> None:
    found = by_id(answers[part])
    moods = await tiny.classify(["good", "the not bad"])
    assert found["tokens"]["label"] == [one.label for one in moods]
    assert found["one output"] == {"probabilities": found["texts"]["probabilities"]}
    assert found["text"] == {"text": [(await tiny.generate(prompt="abc", **SAMPLING)).text]}


@pytest.mark.parametrize("part", ["stream", "aio_stream"])
async def test_text_is_streamed_with_a_final_response(
    tiny: Calls, answers: dict[str, Any], part: str
) -> None:
    pieces = [one for one in answers[part] if one.get("id") == "text"]
    assert (
        "".join(one["outputs"]["text"][0] for one in pieces)
        == (await tiny.generate(prompt="abc", **SAMPLING)).text
    )
    assert [one["parameters"]["triton_final_response"] for one in pieces] == [False] * (len(pieces) - 1) + [
        True
    ]
    assert {one["parameters"]["seed"] for one in pieces} == {SAMPLING["seed"]}


async def test_errors_name_the_tensor(answers: dict[str, Any]) -> None:
    found = [
        (one["status"], one["message"].partition(":")[0])
        for one in answers["sync"][len(RIGHT) :][: len(WRONG)]
    ]
    expected = [
        (INVALID, "text[1]"),
        (INVALID, "inputs"),
        (INVALID, "input"),
        (INVALID, "input"),
        ("StatusCode.NOT_FOUND", "model 'nobody'"),
    ]
    assert found == expected


@pytest.mark.parametrize("name", OPTIONS)
async def test_options_of_the_client_are_honoured_or_refused_by_name(
    answers: dict[str, Any], name: str
) -> None:
    found = answers["sync"][-len(OPTIONS) :][list(OPTIONS).index(name)]
    status, start = OPTIONS[name][1]
    assert (found.get("status", ""), found.get("message", "")[: len(start)]) == (status, start)


async def test_options_as_text_give_the_same_text(answers: dict[str, Any]) -> None:
    found = by_id(answers["sync"])
    assert found["as text"] == found["text"]


@pytest.mark.parametrize("part", ["stream", "aio_stream"])
async def test_error_in_the_stream_is_one_answer_of_several(answers: dict[str, Any], part: str) -> None:
    assert sorted(one["message"] for one in answers[part] if "message" in one) == [
        "DEADLINE_EXCEEDED: model letters: the deadline passed before the answer was there",
        "INVALID_ARGUMENT: text[1]: expected at least one token, found none",
    ]


def programs_of(page: str) -> list[tuple[str, str]]:
    """The Python blocks of a page, each with the block of its output below it."""
    blocks = re.findall(r"^```python\n(.*?)^```\n```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("\n```python\n"), (
        "each Python block needs a block of its output below it"
    )
    return blocks


async def test_programs_of_the_page_print_what_it_shows(shipped_server: ServerProcess) -> None:
    programs = programs_of((ROOT / "docs/open-inference.md").read_text())
    mark = "@@@ the next block"
    program = f"\nprint('\\n{mark}')\n".join(one for one, _ in programs)
    assert "127.0.0.1:50051" in program
    found = await run("-c", program.replace("127.0.0.1:50051", shipped_server.address))
    for (_, shown), printed in zip(programs, found.split(f"\n{mark}\n"), strict=True):
        assert is_as_shown(shown, printed), f"the page shows\n{shown}\nfound\n{printed}"


ROUND_TRIP = """
import importlib, sys
import google.protobuf
import seqserve
typed = ("text_generation", "text_classification", "forecasting", "models")
names = ("inference.grpc_service", *("v1." + name for name in typed))
for name in names:
    is_ours = name.startswith("v1")
    assert is_ours or f"seqserve.{name}_pb2" not in sys.modules, "the client must not import it by itself"
    importlib.import_module(f"seqserve.{name}_pb2_grpc")
from seqserve.inference import grpc_service_pb2 as pb
request = pb.ModelInferRequest(model_name="moods", raw_input_contents=[b"ab"])
request.parameters["seed"].uint64_param = 2**64 - 1
request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"good")
assert pb.ModelInferRequest.FromString(request.SerializeToString()) == request
print(google.protobuf.__version__)
"""


async def test_stubs_round_trip_under_protobuf_6_and_7() -> None:
    assert (await run("-W", "error", "-c", ROUND_TRIP)).startswith("6.")
    assert google.protobuf.__version__.startswith("7.")  # with which every other test runs
