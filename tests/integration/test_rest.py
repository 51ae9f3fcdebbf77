"""The REST form of the Open Inference Protocol, generate and generate_stream, against the real server."""

import asyncio
import gzip
import json
import ssl
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import trustme

from tests.integration.calls import Calls
from tests.integration.http_calls import ask, call, connection, event_stream
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import sample
from tests.integration.test_tasks import prices

TEXTS = ["good", "the film a good not bad film", "bad"]
SERIES = prices(12, seed=3)
SAMPLING: dict[str, Any] = {"max_tokens": 150, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 11}
LONG: dict[str, Any] = {"prompt": "abc", "max_tokens": 100_000, "temperature": 0}
INFER = "/v2/models/moods/infer"
GENERATE = "/v2/models/letters/generate"
ACTIVE = 'seqserve_active_sequences{model="letters"}'


@pytest_asyncio.fixture
async def typed(rest_server: ServerProcess) -> Any:
    async with rest_server.channel() as channel:
        yield Calls(channel)


def texts(*given: str, **more: Any) -> dict[str, Any]:
    tensor = {"name": "text", "shape": [len(given)], "datatype": "BYTES", "data": list(given)}
    return {"inputs": [tensor], **more}


def series(*steps: Any, **parameters: Any) -> dict[str, Any]:
    shape = [1, len(steps), 5]
    tensor = {"name": "input", "shape": shape, "datatype": "FP32", "data": [list(steps)]}
    return {"inputs": [tensor], "parameters": parameters}


def outputs_of(found: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["data"] for one in found["outputs"]}


# What the server says of itself.


async def test_server_and_models_describe_themselves(rest_server: ServerProcess) -> None:
    about = (await call(rest_server, "/v2")).json
    assert about["name"] == "seqserve"
    assert about["extensions"][-2:] == ["binary_tensor_data", "generate"]
    model = (await call(rest_server, "/v2/models/prices/versions/1")).json
    assert model["inputs"][0] == {"name": "input", "datatype": "FP32", "shape": [-1, -1, 5]}
    assert (model["versions"], model["platform"]) == (["1"], "onnxruntime_onnx")
    config = (await call(rest_server, "/v2/models/letters/config")).json
    assert config["model_transaction_policy"] == {"decoupled": True}


@pytest.mark.parametrize(
    ("path", "status", "content"),
    [
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 200, {"ready": True}),
        ("/v2/models/moods/ready", 200, {"name": "moods", "ready": True}),
        ("/v2/models/moods/versions/1/ready", 200, {"name": "moods", "ready": True}),
        ("/v2/models/moods/versions/2/ready", 503, {"name": "moods", "ready": False}),
        ("/v2/models/nobody/ready", 503, {"name": "nobody", "ready": False}),
    ],
)
async def test_readiness_is_told(rest_server: ServerProcess, path: str, status: int, content: Any) -> None:
    found = await call(rest_server, path)
    assert (found.status, found.json) == (status, content)
    assert (await call(rest_server, path, method="HEAD"))[::2] == (status, b"")


async def test_rest_form_is_off_by_default(tiny_server: ServerProcess) -> None:
    assert (await call(tiny_server, "/v2")).status == 404
    assert (await call(tiny_server, INFER, texts("good"))).status == 404


# infer.


async def test_texts_are_classified_as_by_the_typed_service(rest_server: ServerProcess, typed: Calls) -> None:
    found = await call(rest_server, INFER, texts(*TEXTS, id="mine"), {"X-Request-Id": "abc"})
    assert (found.status, found.headers["Content-Type"]) == (200, "application/json")
    assert found.headers["X-Request-Id"] == "abc"
    assert (found.json["id"], found.json["model_name"], found.json["model_version"]) == ("mine", "moods", "1")
    expected = await typed.classify(TEXTS)
    assert outputs_of(found.json)["label"] == [one.label for one in expected]
    by_label = [{one.label: one.probability for one in result.probabilities} for result in expected]
    flat = [one[label] for one in by_label for label in ("negative", "positive")]
    assert outputs_of(found.json)["probabilities"] == flat


async def test_series_nested_and_flat_are_forecast_as_by_the_typed_service(
    rest_server: ServerProcess, typed: Calls
) -> None:
    nested = series(*SERIES, horizon=3)
    flat = json.loads(json.dumps(nested))
    flat["inputs"][0]["data"] = [value for step in SERIES for value in step]
    answers = [await call(rest_server, "/v2/models/prices/infer", one) for one in (nested, flat)]
    assert answers[0].json == answers[1].json
    rounded = np.array(SERIES, np.float32).astype(float).tolist()
    [expected] = await typed.forecast([rounded], horizon=3)
    values = np.array([step.value for step in expected.steps], np.float32).tolist()
    assert outputs_of(answers[0].json)["value"] == values


async def test_text_is_generated_whole_with_its_seed(rest_server: ServerProcess, typed: Calls) -> None:
    prompt = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["abc"]}
    found = (
        await call(rest_server, "/v2/models/letters/infer", {"inputs": [prompt], "parameters": SAMPLING})
    ).json
    assert outputs_of(found) == {"text": [(await typed.generate(prompt="abc", **SAMPLING)).text]}
    assert found["parameters"] == {"seed": 11, "finish_reason": "LENGTH"}


async def test_binary_tensors_give_the_same_answers(rest_server: ServerProcess) -> None:
    ids = np.array([[1, 0, 0], [5, 6, 2]], "<i8")
    about = {
        "inputs": [
            {
                "name": "input",
                "shape": [2, 3],
                "datatype": "INT64",
                "parameters": {"binary_data_size": ids.nbytes},
            },
            {"name": "lengths", "shape": [2], "datatype": "INT32", "data": [1, 3]},
        ],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}],
    }
    header = json.dumps(about).encode()
    found = await call(
        rest_server, INFER, header + ids.tobytes(), {"Inference-Header-Content-Length": str(len(header))}
    )
    length = int(found.headers["Inference-Header-Content-Length"])
    answer = json.loads(found.body[:length])
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 16}
    plain = json.loads(json.dumps(about))
    plain["inputs"][0] |= {"data": ids.tolist(), "parameters": {}}
    del plain["outputs"]
    whole = outputs_of((await call(rest_server, INFER, plain)).json)
    assert np.frombuffer(found.body[length:], "<f4").astype(float).tolist() == whole["probabilities"]
    assert answer["outputs"][1]["data"] == whole["label"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_compressed_bodies_are_read(rest_server: ServerProcess, coding: str) -> None:
    data = json.dumps(texts(*TEXTS)).encode()
    body = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
    found = await call(rest_server, INFER, body, {"Content-Encoding": coding})
    assert found.json == (await call(rest_server, INFER, data)).json


WRONG: dict[str, tuple[str, Any, int, str]] = {
    "no JSON": (INFER, b"{", 400, "body: expected a JSON object, EOF"),
    "a list": (INFER, b"[1]", 400, "body: expected a JSON object, found a list"),
    "NaN": (INFER, b'{"inputs": NaN}', 400, "body: expected a JSON object"),
    "unknown key": (INFER, texts("good", input=1), 400, "body: expected keys among id, "),
    "unknown parameter": (INFER, texts("good", parameters={"hurry": 1}), 400, "parameters: expected "),
    "nested parameter": (
        INFER,
        texts("good", parameters={"timeout": [1]}),
        400,
        "timeout: expected a number",
    ),
    "empty text": (INFER, texts("good", ""), 400, "text[1]: expected at least one token"),
    "number as text": (
        INFER,
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [7]}]},
        400,
        "text: expected text for BYTES, found a number",
    ),
    "fraction as integer": (
        INFER,
        {"inputs": [{"name": "input", "shape": [1, 1], "datatype": "INT64", "data": [1.5]}]},
        400,
        "input: expected whole numbers for INT64, found 1.5",
    ),
    "other shape": (
        INFER,
        {"inputs": [{"name": "input", "shape": [2, 1], "datatype": "INT64", "data": [[1, 2]]}]},
        400,
        "input.data: expected one flat list, or lists nested as the shape [2, 1]",
    ),
    "too few elements": (
        INFER,
        {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good"]}]},
        400,
        "text: expected 2 elements, as its shape says, found 1",
    ),
    "other datatype": (
        INFER,
        {"inputs": [{"name": "text", "shape": [1], "datatype": "FP64", "data": [1]}]},
        400,
        "text: expected BYTES [n], found 'FP64'",
    ),
    "too few observations": (
        "/v2/models/prices/infer",
        series([1.0] * 5),
        400,
        "input[0]: expected at least 7 observations, found 1",
    ),
    "unknown model": ("/v2/models/nobody/infer", texts("good"), 404, "model 'nobody': expected one of"),
    "unknown version": ("/v2/models/moods/versions/9/infer", texts("good"), 404, "model 'moods'"),
    "odd version": ("/v2/models/moods/versions/x/infer", texts("good"), 400, "model_version: expected"),
    "no sequences": (INFER, texts("good", parameters={"sequence_id": 7}), 400, "sequence_id: expected none"),
    "late": (INFER, texts("good", parameters={"timeout": 1}), 504, "model moods: the deadline passed"),
    "generate of classes": (
        "/v2/models/moods/generate",
        {"text": "a"},
        400,
        "model: expected one of the task",
    ),
    "generate without prompt": (GENERATE, {"max_tokens": 3}, 400, "inputs: expected the tensor prompt"),
    "stream of an unknown model": (
        "/v2/models/nobody/generate_stream",
        {"prompt": "a"},
        404,
        "model 'nobody': expected",
    ),
    "stream with a wrong parameter": (
        f"{GENERATE}_stream",
        {"prompt": "a", "temperature": -1},
        400,
        "temperature: expected",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_requests_are_refused_in_a_sentence(rest_server: ServerProcess, name: str) -> None:
    path, content, status, start = WRONG[name]
    found = await call(rest_server, path, content)
    assert found.status == status
    assert list(found.json) == ["error"]
    assert found.json["error"][: len(start)] == start


async def test_other_methods_are_refused_with_those_there_are(rest_server: ServerProcess) -> None:
    found = await call(rest_server, INFER, method="GET")
    assert (found.status, found.headers["Allow"]) == (405, "POST")
    assert found.json == {"error": "expected the method POST"}


# generate.


@pytest.mark.parametrize(("given", "got"), [("prompt", "text"), ("text_input", "text_output")])
async def test_generate_gives_the_text_of_the_typed_service(
    rest_server: ServerProcess, typed: Calls, given: str, got: str
) -> None:
    expected = (await typed.generate(prompt="abc", **SAMPLING)).text
    whole = (await call(rest_server, GENERATE, {given: "abc", "id": "7", "parameters": SAMPLING})).json
    assert whole == {
        "model_name": "letters",
        "model_version": "1",
        "id": "7",
        got: expected,
        "seed": 11,
        "finish_reason": "LENGTH",
    }
    async with event_stream(rest_server, f"{GENERATE}_stream", {given: "abc", **SAMPLING}) as events:
        pieces = [one async for one in events]
    assert len(pieces) > 1
    assert "".join(one[got] for one in pieces) == expected
    assert [one.get("finish_reason") for one in pieces] == [None] * (len(pieces) - 1) + ["LENGTH"]


async def test_error_behind_the_first_text_is_an_event(rest_server: ServerProcess) -> None:
    late = {**LONG, "timeout": 300_000}
    async with event_stream(rest_server, f"{GENERATE}_stream", late) as events:
        *pieces, last = [one async for one in events]
    assert pieces
    assert list(last) == ["error"]
    assert "deadline" in last["error"]


async def until_idle(server: ServerProcess) -> None:
    """Wait until no text is being generated."""
    async with asyncio.timeout(10):
        while await sample(server, ACTIVE):  # noqa: ASYNC110 -- the server has no event for it
            await asyncio.sleep(0.05)


async def test_generation_ends_when_its_client_goes(rest_server: ServerProcess) -> None:
    async with event_stream(rest_server, f"{GENERATE}_stream", LONG) as events:
        assert (await anext(events))["text"]
        assert await sample(rest_server, ACTIVE) == 1
    await until_idle(rest_server)
    writer = (await asyncio.open_connection("127.0.0.1", rest_server.http_port))[1]
    body = json.dumps(LONG).encode()
    writer.write(f"POST {GENERATE} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(10):
        while not await sample(rest_server, ACTIVE):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    writer.transport.abort()
    await until_idle(rest_server)


async def test_stream_that_is_not_read_is_held_back(rest_server: ServerProcess) -> None:
    tokens = 'seqserve_tokens_generated_total{model="letters"}'
    begun = await sample(rest_server, tokens)
    async with event_stream(rest_server, f"{GENERATE}_stream", LONG) as events:
        await anext(events)
        before, now = -1.0, 0.0
        async with asyncio.timeout(15):
            while now != before:
                await asyncio.sleep(0.3)  # a text that is not held back goes on meanwhile
                before, now = now, await sample(rest_server, tokens)
        assert now - begun < LONG["max_tokens"]
    await until_idle(rest_server)


# Sequences.


async def test_sequence_goes_on_over_a_kept_connection(rest_server: ServerProcess) -> None:
    whole = outputs_of((await call(rest_server, "/v2/models/prices/infer", series(*SERIES))).json)
    kept = connection(rest_server)
    path, marks = "/v2/models/prices/infer", {"sequence_start": True}
    for part in (SERIES[:9], SERIES[9:11], SERIES[11:]):
        found = await ask(kept, "POST", path, series(*part, sequence_id="mine", **marks))
        assert found.status == 200
        marks = {}
    assert outputs_of(found.json) == whole
    kept.close()
    elsewhere = await call(rest_server, path, series(SERIES[0], sequence_id="mine"))
    assert (elsewhere.status, elsewhere.json["error"][:16]) == (400, "sequence 'mine':")


# TLS, tokens, deadlines, drain.


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with TLS, tokens and short requests, and what its clients trust."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate")
    (folder / "tokens").write_text("predict shop secret-shop\npredict other secret-other\n")
    settings = {
        "HTTP_API": "true",
        "HTTP_TLS": "true",
        "HTTP_REQUEST_SECONDS": "1",
        "TLS_CERTIFICATE": str(folder / "certificate"),
        "TLS_KEY": str(folder / "key"),
        "TOKENS": str(folder / "tokens"),
    }
    server = ServerProcess(tiny_repository, settings)
    await server.start()
    try:
        await server.wait_for_event("serving")
        yield server, trust_of(authority)
    finally:
        assert await server.stop() == 0


def trust_of(authority: trustme.CA) -> Any:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


SHOP = {"Authorization": "Bearer secret-shop"}


async def test_tokens_are_those_of_grpc_and_probes_need_none(secured: Any) -> None:
    server, tls = secured
    on = connection(server, tls)
    for path in ("/livez", "/v2/health/ready"):
        assert (await ask(on, "GET", path)).status == 200
    refused = await ask(on, "POST", INFER, texts("good"))
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await ask(on, "GET", "/v2", headers={"Authorization": "Bearer wrong"})).status == 401
    assert (await ask(on, "POST", INFER, texts("good"), SHOP)).status == 200
    on.close()


async def test_sequence_of_a_token_goes_on_over_any_connection(secured: Any) -> None:
    server, tls = secured
    path = "/v2/models/prices/infer"
    for part, headers, marks, status in (
        (SERIES[:9], SHOP, {"sequence_start": True}, 200),
        (SERIES[9:], SHOP, {}, 200),
        (SERIES[9:], {"Authorization": "Bearer secret-other"}, {}, 400),
    ):
        on = connection(server, tls)
        found = await ask(on, "POST", path, series(*part, sequence_id=7, **marks), headers)
        assert found.status == status
        on.close()


async def test_request_ends_after_the_time_that_requests_have(secured: Any) -> None:
    server, tls = secured
    on = connection(server, tls)
    found = await ask(on, "POST", GENERATE, LONG, SHOP)
    assert found.status == 504
    found = await ask(on, "POST", f"{GENERATE}_stream", LONG, SHOP)
    assert found.status == 200
    assert list(json.loads(found.body.split(b"data: ")[-1])) == ["error"]
    on.close()


async def test_plain_http_at_a_port_with_tls_is_closed_without_a_line(secured: Any) -> None:
    server, tls = secured
    lines = len(server.events), len(server.other_output)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        while await reader.read(1000):
            pass
    writer.close()
    on = connection(server, tls)
    assert (await ask(on, "GET", "/livez")).status == 200
    on.close()
    assert (len(server.events), len(server.other_output)) == lines


async def test_stream_ends_in_the_drain_which_takes_no_new_requests(tiny_repository: Path) -> None:
    async with ServerProcess(tiny_repository, {"HTTP_API": "true"}) as server:
        content = {**LONG, "max_tokens": 5_000}
        async with event_stream(server, f"{GENERATE}_stream", content) as events:
            found = [await anext(events)]
            server.terminate()
            await server.wait_for_event("draining")
            refused = await call(server, INFER, texts("good"))
            while refused.status == 200:
                refused = await call(server, INFER, texts("good"))
            assert refused.status == 503
            assert (await call(server, "/v2/health/ready")).status == 503
            found += [one async for one in events]
        assert found[-1]["finish_reason"] == "LENGTH"
        assert sum(len(one["text"]) for one in found) == 5_000
        assert await server.ended() == 0
        assert server.other_output == []
