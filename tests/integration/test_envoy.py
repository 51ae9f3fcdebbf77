"""Envoy by deploy/envoy before a server: JSON, gRPC-Web, Connect and gRPC without code of the server's."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path

import pytest
import pytest_asyncio
from grpc import aio

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.chaos.fleet import free_ports
from tests.chaos.watching import metrics, until_idle
from tests.integration.browser import PAGE, Page, opened_browser, served_page
from tests.integration.calls import Calls
from tests.integration.envoy import ENVOY, MISSING, Answer, EnvoyProcess
from tests.integration.process import ServerProcess
from tests.integration.test_tasks import prices

pytestmark = pytest.mark.skipif(ENVOY is None, reason=MISSING)

ENDLESS = 10_000_000
TOKEN = "3f" * 32
BEARER = {"authorization": f"Bearer {TOKEN}"}
JSON = {"content-type": "application/json"}
CLASSIFY = "/seqserve.v1.TextClassification/Classify"
GENERATE = "/seqserve.v1.TextGeneration/Generate"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
PROTOCOLS = ("connect", "grpc-web", "json")
LIMIT_S = 30


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """A server that asks for tokens."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"predict shop {TOKEN}\n")
    async with ServerProcess(tiny_repository, {"TOKENS": str(tokens), "MAX_TOKENS": str(ENDLESS)}) as server:
        yield server


@pytest.fixture(scope="module")
def page_port() -> Iterator[int]:
    """The port of the page's web server."""
    with served_page() as port:
        yield port


@pytest.fixture(scope="module")
def origin(page_port: int) -> str:
    """The one origin that Envoy lets call."""
    return f"http://localhost:{page_port}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def envoy(
    server: ServerProcess, origin: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EnvoyProcess]:
    """Envoy before the server."""
    async with EnvoyProcess(tmp_path_factory.mktemp("envoy"), server.grpc_port, origin) as envoy:
        yield envoy


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser."""
    with opened_browser() as page:
        yield page


async def post(
    envoy: EnvoyProcess, method: str, request: object, headers: Mapping[str, str] = BEARER
) -> Answer:
    """Return the answer to a request in JSON."""
    return await envoy.call("POST", f"/seqserve.v1.{method}", json.dumps(request), {**JSON, **headers})


async def ended(server: ServerProcess, code: str) -> float:
    """Generations that have ended with that code."""
    label = f'code="{code}",method="{GENERATE}"'
    return sum(value for name, value in (await metrics(server)).items() if label in name)


async def until_cancelled(server: ServerProcess, before: float) -> None:
    """Wait until one more generation was cancelled, and no sequence holds a slot."""
    async with asyncio.timeout(LIMIT_S):
        while await ended(server, "CANCELLED") == before:  # noqa: ASYNC110 - another process has no event to await
            await asyncio.sleep(0.05)
    await until_idle(server)


async def text_of(server: ServerProcess, prompt: str, tokens: int, seed: int) -> str:
    """Return what the server itself writes."""
    async with server.channel() as channel:
        request = generation.GenerateRequest(model="letters", prompt=prompt, max_tokens=tokens, seed=seed)
        stream = Calls(channel).generation.Generate(request, metadata=tuple(BEARER.items()))
        return "".join([message.text async for message in stream])


async def test_json_gets_the_answer_with_every_field(envoy: EnvoyProcess) -> None:
    answer = await post(envoy, "TextClassification/Classify", {"model": "moods", "texts": ["good film"]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["id"] == ""
    (result,) = answer.json["results"]
    assert {one["label"] for one in result["probabilities"]} == {"negative", "positive"}
    assert result["tokenCount"] == 2


async def test_json_stream_is_a_line_a_message(envoy: EnvoyProcess, server: ServerProcess) -> None:
    seed = 2**64 - 1
    asked = {"model": "letters", "prompt": "abc", "maxTokens": 50, "seed": str(seed)}
    messages = (await post(envoy, "TextGeneration/Generate", asked)).lines
    assert "".join(one["text"] for one in messages) == await text_of(server, "abc", 50, seed)
    assert {one["seed"] for one in messages} == {str(seed)}
    is_last = [one["finishReason"] != "FINISH_REASON_UNSPECIFIED" for one in messages]
    assert is_last == [False] * (len(messages) - 1) + [True]


async def test_json_requests_of_a_stream_are_an_array(envoy: EnvoyProcess) -> None:
    asked = [{"model": "moods", "texts": ["good"], "id": "1"}, {"model": "moods", "texts": [""], "id": "2"}]
    found = {one["id"]: one for one in (await post(envoy, "TextClassification/ClassifyStream", asked)).lines}
    assert found.keys() == {"1", "2"}
    assert found["1"]["results"]
    assert found["2"]["error"]["details"][1]["fieldViolations"][0]["field"] == "texts[0]"


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("TextClassification/Classify", {"model": "moods", "texts": ["good", ""]}, "texts[1]"),
        ("TextGeneration/Generate", {"model": "letters", "maxTokens": ENDLESS + 1}, "max_tokens"),
    ],
    ids=["unary", "stream"],
)
async def test_json_error_has_its_details(
    envoy: EnvoyProcess, method: str, request_: object, field: str
) -> None:
    answer = await post(envoy, method, request_)
    assert (answer.status, answer.json["code"]) == (400, 3)
    info, bad = answer.json["details"]
    assert info["metadata"]["request_id"] == answer.headers["x-request-id"]
    assert [one["field"] for one in bad["fieldViolations"]] == [field]


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer " + "00" * 32}], ids=["no token", "unknown"]
)
async def test_wrong_token_is_refused(envoy: EnvoyProcess, headers: dict[str, str]) -> None:
    answer = await post(envoy, "Models/List", {}, headers)
    assert (answer.status, answer.json["code"]) == (401, 16)


async def test_json_caller_who_leaves_frees_the_slot(envoy: EnvoyProcess, server: ServerProcess) -> None:
    before = await ended(server, "CANCELLED")

    def read_some() -> None:
        connection = HTTPConnection("127.0.0.1", envoy.port, timeout=LIMIT_S)
        asked = json.dumps({"model": "letters", "prompt": "a", "maxTokens": ENDLESS, "seed": "1"})
        connection.request("POST", GENERATE, asked, {**JSON, **BEARER})
        with connection.getresponse() as response:
            assert json.loads(response.readline())["tokenCount"] >= 1
        connection.close()

    await asyncio.to_thread(read_some)
    await until_cancelled(server, before)


async def test_deadline_is_kept_by_the_server_and_told(envoy: EnvoyProcess) -> None:
    request = generation.GenerateRequest(model="letters", prompt="a", max_tokens=ENDLESS).SerializeToString()
    body = b"\0" + struct.pack(">I", len(request)) + request
    headers = {"content-type": "application/grpc-web+proto", "grpc-timeout": "300m", **BEARER}
    answer = await envoy.call("POST", GENERATE, body, headers)
    assert b"grpc-status:4\r\n" in answer.body


async def test_grpc_passes_with_streams_both_ways(envoy: EnvoyProcess) -> None:
    rows = [forecasting.Observation(values=row) for row in prices(8)]
    async with aio.insecure_channel(f"127.0.0.1:{envoy.port}") as channel, asyncio.timeout(LIMIT_S):
        series = Calls(channel).forecasting.ForecastStream(metadata=tuple(BEARER.items()))
        for message in (
            forecasting.ForecastStreamRequest(model="prices", observations=rows[:7]),
            forecasting.ForecastStreamRequest(observations=rows[7:]),
        ):
            await series.write(message)
            assert (await series.read()).forecast.steps
        await series.done_writing()
        assert await series.read() is aio.EOF


async def test_connect_get_is_answered(envoy: EnvoyProcess) -> None:
    request = classification.ClassifyRequest(model="moods", texts=["good"]).SerializeToString()
    message = base64.urlsafe_b64encode(request).decode().rstrip("=")
    path = f"{CLASSIFY}?connect=v1&encoding=proto&base64=1&message={message}"
    answer = await envoy.call("GET", path, headers=BEARER)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/proto")
    assert classification.ClassifyResponse.FromString(answer.body).results


async def test_connect_in_json_is_told_to_be_binary(envoy: EnvoyProcess) -> None:
    """The default of connect-web; any page may read why it is refused."""
    headers = {**JSON, **BEARER, "connect-protocol-version": "1", "origin": "http://elsewhere.example"}
    answer = await envoy.call("POST", CLASSIFY, "{}", headers)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (415, "*")
    assert "useBinaryFormat: true" in answer.json["message"]


@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [("/seqserve.v1.Models/Nothing", JSON["content-type"], 404), (CLASSIFY, "text/plain", 415)],
    ids=["unknown method", "a form that needs no preflight"],
)
async def test_other_requests_do_not_reach_the_server(
    envoy: EnvoyProcess, server: ServerProcess, path: str, content_type: str, status: int
) -> None:
    before = await metrics(server)
    answer = await envoy.call("POST", path, "{}", {"content-type": content_type, **BEARER})
    assert answer.status == status
    name = f'method="{path}"'
    assert [
        key for key, value in (await metrics(server)).items() if name in key and before.get(key) != value
    ] == []


async def test_big_requests_are_refused(envoy: EnvoyProcess) -> None:
    for text, status in (("a" * (5 << 20), 429), ("a" * (9 << 20), 413)):
        answer = await post(envoy, "TextClassification/Classify", {"model": "moods", "texts": [text]})
        assert answer.status == status
    connect = {"content-type": "application/proto", "connect-protocol-version": "1", **BEARER}
    for size, status in ((3 << 20, 400), (9 << 20, 413)):
        request = classification.ClassifyRequest(model="moods", texts=["a" * size]).SerializeToString()
        assert (await envoy.call("POST", CLASSIFY, request, connect)).status == status
    assert (await post(envoy, "Models/List", {}, {**BEARER, "x-long": "a" * 20_000})).status == 431


async def test_pages_of_other_origins_may_not_call(envoy: EnvoyProcess, origin: str) -> None:
    for asking, allowed in ((origin, origin), ("http://elsewhere.example", None)):
        preflight = await envoy.call("OPTIONS", CLASSIFY, headers={"origin": asking, **PREFLIGHT})
        answer = await post(envoy, "Models/List", {}, {**BEARER, "origin": asking})
        found = [one.headers.get("access-control-allow-origin") for one in (preflight, answer)]
        assert found == [allowed, allowed]
    assert {"authorization", "content-type"} <= set(
        preflight.headers["access-control-allow-headers"].split(", ")
    )


async def test_new_origin_is_allowed_without_a_restart(envoy: EnvoyProcess, origin: str) -> None:
    async def is_allowed(asking: str) -> bool:
        answer = await envoy.call("OPTIONS", CLASSIFY, headers={"origin": asking, **PREFLIGHT})
        return "access-control-allow-origin" in answer.headers

    other = "https://shop.example"
    for new, old in ((other, origin), (origin, other)):
        envoy.write_routes(new)
        async with asyncio.timeout(LIMIT_S):
            while not await is_allowed(new):  # noqa: ASYNC110 - another process has no event to await
                await asyncio.sleep(0.05)
        assert not await is_allowed(old)


async def test_readiness_is_that_of_the_server(envoy: EnvoyProcess, origin: str, tmp_path: Path) -> None:
    assert (await envoy.call("GET", "/readyz")).status == 200
    async with EnvoyProcess(tmp_path, free_ports(1)[0], origin, ready=503) as lonely:
        assert (await post(lonely, "Models/List", {})).status == 503


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_page_writes_the_text_of_the_server(
    page: Page, envoy: EnvoyProcess, server: ServerProcess, origin: str, protocol: str
) -> None:
    seed = 2**63 + 1
    fields = {"model": "letters", "prompt": "abc", "tokens": "300", "seed": str(seed)}
    await page.open(origin + PAGE, server=envoy.url, token=TOKEN, protocol=protocol, **fields)
    await page.press("write")
    assert await page.until("state", "finished", "failed") == "finished", page.text("error")
    assert page.text("text") == "abc" + await text_of(server, "abc", 300, seed)
    await page.press("list")
    await page.until_longer("text", 0)
    assert await page.until("state", "finished", "failed") == "finished", page.text("error")
    assert "moods 1: text-classification" in page.text("text")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_page_shows_what_an_error_says(
    page: Page, envoy: EnvoyProcess, origin: str, protocol: str
) -> None:
    fields = {"model": "letters", "tokens": str(ENDLESS + 1), "prompt": "a"}
    await page.open(origin + PAGE, server=envoy.url, token=TOKEN, protocol=protocol, **fields)
    await page.press("write")
    await page.until("state", "finished", "failed")
    message, reason, request_id, field = page.text("error").splitlines()
    assert "max_tokens: expected at most" in message
    assert (reason, field) == ("reason: INVALID_ARGUMENT", "field: max_tokens")
    assert request_id.startswith("request id: ")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_page_that_stops_frees_the_slot(
    page: Page, envoy: EnvoyProcess, server: ServerProcess, origin: str, protocol: str
) -> None:
    before = await ended(server, "CANCELLED")
    fields = {"model": "letters", "tokens": str(ENDLESS), "prompt": "a"}
    await page.open(origin + PAGE, server=envoy.url, token=TOKEN, protocol=protocol, **fields)
    await page.press("write")
    await page.until_longer("text", 1)
    assert await ended(server, "CANCELLED") == before, "the call has ended"
    await page.press("stop")
    await page.until("state", "stopped")
    await until_cancelled(server, before)


async def test_page_without_a_token_or_from_elsewhere_is_refused(
    page: Page, envoy: EnvoyProcess, origin: str, page_port: int
) -> None:
    elsewhere = f"http://127.0.0.1:{page_port}"
    for start, token, expected in ((origin, "", "unauthenticated"), (elsewhere, TOKEN, "Failed to fetch")):
        await page.open(start + PAGE, server=envoy.url, token=token)
        await page.press("list")
        await page.until("state", "finished", "failed")
        assert expected in page.text("error")
