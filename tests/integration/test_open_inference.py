"""inference.GRPCInferenceService of the real server with our own stubs: its answers are those of the typed
services, bit for bit.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

from seqserve.inference import grpc_service_pb2 as pb
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.integration import kserve
from tests.integration.calls import Calls, refusal
from tests.integration.process import ServerProcess
from tests.integration.tensors import infer_request, numbers, texts
from tests.integration.test_tasks import FILM, prices
from tests.tiny import WORDS

TEXTS = ["good", FILM, "very " * 100 + "bad", "gewgaw"]
SAMPLING: dict[str, Any] = {"max_tokens": 200, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 11}


@dataclass(frozen=True)
class Both:
    """One server through both of its interfaces."""

    typed: Calls
    stub: Any

    async def infer(self, *arguments: Any, **fields: Any) -> pb.ModelInferResponse:
        response: pb.ModelInferResponse = await self.stub.ModelInfer(infer_request(*arguments, **fields))
        return response


@pytest.fixture
async def both(tiny_server: ServerProcess) -> AsyncIterator[Both]:
    async with tiny_server.channel() as channel:
        yield Both(Calls(channel), GRPCInferenceServiceStub(channel))


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
async def test_classification_equals_the_typed_one(both: Both, is_raw: bool) -> None:
    expected = await both.typed.classify(TEXTS)
    found = await both.infer("moods", {"text": TEXTS}, is_raw=is_raw)
    assert texts(found, "label") == [one.label for one in expected]
    by_label = [{one.label: one.probability for one in result.probabilities} for result in expected]
    assert numbers(found, "probabilities").tolist() == [
        [one["negative"], one["positive"]] for one in by_label
    ]


async def test_token_ids_of_mixed_lengths_equal_their_texts(both: Both) -> None:
    ids = [[WORDS.index(word) if word in WORDS else 0 for word in text.split()] for text in TEXTS]
    padded = np.full((len(ids), max(map(len, ids))), -1, np.int64)  # what is padding is not looked at
    for row, one in zip(padded, ids, strict=True):
        row[: len(one)] = one
    found = await both.infer(
        "moods", {"input": padded, "lengths": np.array([len(one) for one in ids], np.int32)}
    )
    assert found == await both.infer("moods", {"text": TEXTS})


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
async def test_forecasts_of_mixed_lengths_equal_the_typed_ones(both: Both, is_raw: bool) -> None:
    series = [np.array(prices(days, seed=days), np.float32) for days in (7, 30, 12)]
    expected = await both.typed.forecast([one.astype(float).tolist() for one in series], horizon=4)
    padded = np.zeros((3, 30, 5), np.float32)
    for row, one in zip(padded, series, strict=True):
        row[: len(one)] = one
    tensors = {"input": padded, "lengths": np.array([7, 30, 12], np.int32)}
    found = await both.infer("prices", tensors, {"horizon": 4}, is_raw=is_raw)
    values = np.array([[step.value for step in one.steps] for one in expected], np.float32)
    quantiles = np.array(
        [[[item.value for item in step.quantiles] for step in one.steps] for one in expected], np.float32
    )
    np.testing.assert_array_equal(numbers(found, "value"), values)
    np.testing.assert_array_equal(numbers(found, "quantiles"), quantiles)


@pytest.mark.parametrize("model", ["letters", "letters-gru"])
async def test_text_equals_the_typed_one_whole_and_streamed(both: Both, model: str) -> None:
    expected = await both.typed.generate(model, prompt="abc", **SAMPLING)
    assert texts(await both.infer(model, {"prompt": ["abc"]}, SAMPLING), "text") == [expected.text]
    call = both.stub.ModelStreamInfer(iter([infer_request(model, {"prompt": ["abc"]}, SAMPLING)]))
    pieces = [one.infer_response async for one in call]
    assert "".join(texts(one, "text")[0] for one in pieces) == expected.text
    assert [one.parameters["triton_final_response"].bool_param for one in pieces] == [False] * (
        len(pieces) - 1
    ) + [True]


async def test_many_texts_on_one_stream_are_those_that_each_gets_alone(both: Both) -> None:
    requests = [
        infer_request("letters", {"prompt": ["a"]}, {"max_tokens": 60, "seed": seed}, id=str(seed))
        for seed in range(100)
    ]
    found: dict[str, str] = {}
    async for one in both.stub.ModelStreamInfer(iter(requests)):
        assert not one.error_message
        name = one.infer_response.id
        found[name] = found.get(name, "") + texts(one.infer_response, "text")[0]
    expected = await asyncio.gather(
        *(both.typed.generate(prompt="a", max_tokens=60, seed=seed) for seed in range(100))
    )
    assert found == {str(seed): one.text for seed, one in enumerate(expected)}


def raw(*elements: bytes) -> tuple[str, list[int], bytes]:
    """A tensor of BYTES in KServe's form."""
    return "BYTES", [len(elements)], b"".join(len(one).to_bytes(4, "little") + one for one in elements)


def raw_series() -> tuple[str, list[int], bytes]:
    series = np.array([prices(12)], np.float32)
    return "FP32", list(series.shape), series.tobytes()


@pytest.mark.parametrize("seed", [11, 2**63 - 1, str(2**63), str(2**64 - 1)], ids=str)
async def test_kserves_form_reaches_every_option_and_reads_every_parameter(
    both: Both, seed: int | str
) -> None:
    given = {name: str(value) for name, value in SAMPLING.items()} | {"seed": seed}
    found = await kserve.infer(
        both.typed.channel, kserve.infer_request("letters", {"prompt": raw(b"abc")}, **given)
    )
    assert kserve.parameters_of(found) == {"seed": seed, "finish_reason": "LENGTH"}
    expected = await both.typed.generate(prompt="abc", **SAMPLING | {"seed": int(seed)})
    assert found.raw_output_contents[0][4:].decode() == expected.text


@pytest.mark.parametrize(
    ("model", "tensors", "parameters", "outputs"),
    [
        ("moods", {"text": raw(b"good", b"bad")}, {"binary_data_output": True}, ["label", "probabilities"]),
        ("prices", {"input": raw_series()}, {"horizon": 3, "timeout": "60000000"}, ["value", "quantiles"]),
    ],
    ids=["moods", "prices"],
)
async def test_kserves_form_is_answered_for_every_task(
    both: Both, model: str, tensors: Any, parameters: dict[str, Any], outputs: list[str]
) -> None:
    request = kserve.infer_request(model, tensors, **parameters)
    found = await kserve.infer(both.typed.channel, request)
    assert [one.name for one in found.outputs] == outputs
    assert kserve.parameters_of(found) == {}
    request.inputs[0].parameters["binary_data_size"].int64_param += 1
    refused = await refusal(kserve.infer(both.typed.channel, request))
    assert list(refused.violations) == [f"{next(iter(tensors))}.binary_data_size"]


async def test_refusal_carries_rich_details(both: Both) -> None:
    refused = await refusal(both.infer("moods", {"text": ["good", ""]}))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.violations == {"text[1]": "expected at least one token, found none"}
    assert (await refusal(both.infer("nobody", {}))).reason == "MODEL_NOT_FOUND"


async def test_tokens_with_the_right_predict_may_call(tiny_repository: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("predict alice secret-of-alice\n")

    async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
        try:
            await call
        except aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async with ServerProcess(tiny_repository, {"TOKENS": str(tokens)}) as server, server.channel() as channel:
        stub: Any = GRPCInferenceServiceStub(channel)
        await server.wait_for_health("inference.GRPCInferenceService")
        request = infer_request("moods", {"text": ["good"]})
        assert await code_of(stub.ModelInfer(request)) is grpc.StatusCode.UNAUTHENTICATED
        assert (
            await code_of(stub.ModelInfer(request, metadata=[("authorization", "Bearer secret-of-alice")]))
            is grpc.StatusCode.OK
        )
