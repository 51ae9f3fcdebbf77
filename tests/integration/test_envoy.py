"""Envoy by deploy/envoy before a server: JSON, gRPC-Web, Connect and gRPC without code of the server's."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.envoy import ENVOY, MISSING, Answer, EnvoyProcess
from tests.integration.process import ServerProcess

pytestmark = pytest.mark.skipif(ENVOY is None, reason=MISSING)

ENDLESS = 10_000_000
TOKEN = "3f" * 32
ORIGIN = "http://localhost:8000"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """A server that asks for tokens."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"predict shop {TOKEN}\n")
    async with ServerProcess(tiny_repository, {"TOKENS": str(tokens), "MAX_TOKENS": str(ENDLESS)}) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def envoy(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EnvoyProcess]:
    """Envoy before it."""
    async with EnvoyProcess(tmp_path_factory.mktemp("envoy"), server.grpc_port, ORIGIN) as envoy:
        yield envoy


async def post(
    envoy: EnvoyProcess, method: str, request: object, headers: Mapping[str, str] = BEARER
) -> Answer:
    """Return the answer to a request in JSON."""
    return await envoy.call(
        "POST",
        f"/seqserve.v1.{method}",
        json.dumps(request),
        {"content-type": "application/json", **headers},
    )


async def test_json_gets_the_answer_with_every_field(envoy: EnvoyProcess) -> None:
    answer = await post(envoy, "TextClassification/Classify", {"model": "moods", "texts": ["good film"]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["id"] == ""
    (result,) = answer.json["results"]
    assert {one["label"] for one in result["probabilities"]} == {"negative", "positive"}
    assert result["tokenCount"] == 2


async def test_json_stream_is_a_line_a_message(envoy: EnvoyProcess) -> None:
    asked = {"model": "letters", "prompt": "abc", "maxTokens": 50, "seed": "18446744073709551615"}
    messages = (await post(envoy, "TextGeneration/Generate", asked)).lines
    assert sum(one["tokenCount"] for one in messages) == 50
    assert {one["seed"] for one in messages} == {"18446744073709551615"}
    ended = [one["finishReason"] != "FINISH_REASON_UNSPECIFIED" for one in messages]
    assert ended == [False] * (len(messages) - 1) + [True]
