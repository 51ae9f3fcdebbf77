"""tritonclient and KServe's own client, unmodified, and curl, against the REST form of the real server.

Each library runs in an environment of its own: neither can live beside protobuf 7.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.process import ROOT, ServerProcess
from tests.integration.test_rest import outputs_of, texts
from tests.integration.test_tritonclient import (
    CLASSIFY,
    FORECAST,
    GENERATE,
    INVALID,
    PYTHON,
    TEXTS,
    TOKENS,
    WRONG,
)

KSERVE = Path(os.environ.get("KSERVE_PYTHON", ROOT / ".venv-kserve/bin/python"))
CURL = shutil.which("curl")
needs_triton = pytest.mark.skipif(
    not PYTHON.exists(), reason="tritonclient's environment is missing: make .venv-triton/stamp"
)
needs_kserve = pytest.mark.skipif(
    not KSERVE.exists(), reason="KServe's client's environment is missing: make .venv-kserve/stamp"
)
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is missing: apt-get install curl")

RIGHT = [CLASSIFY, TOKENS, FORECAST, GENERATE, CLASSIFY | {"outputs": ["probabilities"]}]
QUESTIONS = [
    *RIGHT,
    *(one | {"binary": False} for one in RIGHT),
    CLASSIFY | {"compression": "gzip"},
    CLASSIFY | {"compression": "deflate"},
    *WRONG,
]


async def run(program: str, *arguments: str, given: str = "") -> str:
    """Run a program; return what it prints."""
    pipe = asyncio.subprocess.PIPE
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=ROOT
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate(given.encode())
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def answers_of(python: Path, script: str, address: str, questions: Any) -> dict[str, Any]:
    path = str(Path(__file__).with_name(script))
    # -P: else the folder of the script would hide the package of its name.
    printed = await run(str(python), "-P", path, address, given=json.dumps(questions))
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def by_triton(rest_server: ServerProcess) -> dict[str, Any]:
    address = rest_server.http.removeprefix("http://")
    return await answers_of(PYTHON, "triton_http_script.py", address, QUESTIONS)


@needs_triton
async def test_tritonclient_learns_what_there_is(by_triton: dict[str, Any]) -> None:
    about = by_triton["about"]
    assert (about["live"], about["ready"]) == (True, True)
    assert about["models_ready"] == {"moods": True, "nobody": False}
    assert about["server"]["name"] == "seqserve"
    assert about["model"]["inputs"][0]["shape"] == [-1, -1, 5]
    assert about["config"]["model_transaction_policy"] == {"decoupled": True}


@needs_triton
async def test_tritonclient_gets_the_same_in_binary_and_in_json(by_triton: dict[str, Any]) -> None:
    answers = by_triton["answers"]
    number = len(RIGHT)
    assert answers[:number] == answers[number : 2 * number]
    assert answers[0]["id"] == "texts"
    assert len(answers[0]["outputs"]["label"]) == len(TEXTS)
    assert list(answers[4]["outputs"]) == ["probabilities"]
    assert answers[2 * number : 2 * number + 2] == [answers[0]] * 2


@needs_triton
async def test_tritonclient_gets_errors_that_name_the_tensor(by_triton: dict[str, Any]) -> None:
    found = [(one["status"], one["message"].partition(":")[0]) for one in by_triton["answers"][-len(WRONG) :]]
    assert INVALID.endswith("INVALID_ARGUMENT")
    assert found == [
        ("400", "text[1]"),
        ("400", "inputs"),
        ("400", "input"),
        ("400", "input"),
        ("404", "model 'nobody'"),
    ]


@needs_kserve
async def test_client_of_kserve_gets_the_same_answers(rest_server: ServerProcess) -> None:
    asked = [CLASSIFY, TOKENS, FORECAST, GENERATE, WRONG[0]]
    questions = [one | {"binary": is_binary} for is_binary in (True, False) for one in asked]
    found = await answers_of(KSERVE, "kserve_script.py", rest_server.http, questions)
    assert found["about"] == {
        "live": True,
        "ready": True,
        "models_ready": {"moods": True, "nobody": False},
    }
    binary, plain = found["answers"][: len(asked)], found["answers"][len(asked) :]
    assert binary == plain
    assert binary[0]["id"] == "mine"
    assert len(binary[0]["outputs"]["label"]) == len(TEXTS)
    assert "text[1]: expected at least one token" in binary[-1]["message"]


@needs_curl
async def test_curl_gets_answers_and_events(rest_server: ServerProcess) -> None:
    assert CURL is not None
    url = f"{rest_server.http}/v2/models"
    body = json.dumps(texts("good"))
    found = await run(CURL, "--silent", "--fail", "--data", body, f"{url}/moods/infer")
    assert outputs_of(json.loads(found))["label"] == ["positive"]
    prompt = json.dumps({"prompt": "abc", "max_tokens": 20, "temperature": 0})
    stream = await run(CURL, "--silent", "--no-buffer", "--data", prompt, f"{url}/letters/generate_stream")
    events = [json.loads(one.removeprefix("data: ")) for one in stream.split("\n\n")[:-1]]
    whole = json.loads(await run(CURL, "--silent", "--data", prompt, f"{url}/letters/generate"))
    assert "".join(one["text"] for one in events) == whole["text"]
