"""service.api.open_inference, served in this process."""

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
import pytest

from seqserve.inference import grpc_service_pb2 as pb
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.engine.request import ANYONE
from service.models.table import Entry, Status
from service.tasks.classification import ClassificationTask
from service.tasks.forecasting import ForecastingTask
from service.tasks.generation import GenerationOptions, GenerationTask
from service.tasks.text import tokenize
from tests.integration.tensors import infer_request, numbers, texts
from tests.service.api.conftest import IN_FLIGHT, Running
from tests.service.api.rich import code_of_call, fields_of, finish, refused_with

TEXTS = ["good film", "the film not very good", "bad"]
DAY = [10.0, 11.0, 9.0, 10.5, 1000.0]
SERIES = np.array([[[value * (1 + 0.01 * day) for value in DAY] for day in range(12)]] * 2, np.float32)
PROMPT = {"prompt": ["abc"]}


def stub(running: Running) -> Any:
    return GRPCInferenceServiceStub(running.channel)


async def infer(running: Running, *arguments: Any, **fields: Any) -> pb.ModelInferResponse:
    response: pb.ModelInferResponse = await stub(running).ModelInfer(infer_request(*arguments, **fields))
    return response


async def stream(running: Running, *requests: pb.ModelInferRequest) -> list[pb.ModelStreamInferResponse]:
    responses: list[pb.ModelStreamInferResponse] = await finish(
        stub(running).ModelStreamInfer(iter(requests))
    )
    return responses


def of(responses: list[pb.ModelStreamInferResponse], name: str) -> list[pb.ModelStreamInferResponse]:
    """The messages of one request, the last of which says so, and no other."""
    found = [one for one in responses if one.infer_response.id == name]
    assert [one.infer_response.parameters["triton_final_response"].bool_param for one in found] == [False] * (
        len(found) - 1
    ) + [True]
    return found


# Readiness and metadata.


async def test_server_is_live_and_ready_until_it_stops(running: Running) -> None:
    assert (await stub(running).ServerLive(pb.ServerLiveRequest())).live
    assert (await stub(running).ServerReady(pb.ServerReadyRequest())).ready
    running.stopping.append(True)
    try:
        assert not (await stub(running).ServerReady(pb.ServerReadyRequest())).ready
        assert not (await stub(running).ModelReady(pb.ModelReadyRequest(name="moods"))).ready
    finally:
        running.stopping.clear()


@pytest.mark.parametrize(
    ("name", "number", "ready"),
    [("moods", "", True), ("moods", "1", True), ("moods", "2", False), ("none", "", False), ("", "", False)],
    ids=str,
)
async def test_model_is_ready_where_it_serves(running: Running, name: str, number: str, ready: bool) -> None:
    assert (await stub(running).ModelReady(pb.ModelReadyRequest(name=name, version=number))).ready is ready


async def test_model_whose_engine_has_failed_is_not_ready(running: Running) -> None:
    [engine] = running.repository.table.find("moods", 0, "text-classification").engine.engines
    engine.facts.has_failed = True
    try:
        for number in ("", "1"):
            assert not (
                await stub(running).ModelReady(pb.ModelReadyRequest(name="moods", version=number))
            ).ready
        assert (await stub(running).ModelReady(pb.ModelReadyRequest(name="letters"))).ready
    finally:
        engine.facts.has_failed = False


async def test_server_tells_name_and_version(running: Running) -> None:
    found = await stub(running).ServerMetadata(pb.ServerMetadataRequest())
    assert (found.name, found.version, list(found.extensions)) == (
        "seqserve",
        version("seqserve"),
        ["parameters", "model_configuration", "sequence"],
    )


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        (
            "moods",
            [("text", "BYTES", [-1]), ("input", "INT64", [-1, -1]), ("lengths", "INT32", [-1])],
            [("label", "BYTES", [-1]), ("probabilities", "FP32", [-1, 2])],
        ),
        (
            "prices",
            [("input", "FP32", [-1, -1, 5]), ("lengths", "INT32", [-1])],
            [("value", "FP32", [-1, -1]), ("quantiles", "FP32", [-1, -1, 3])],
        ),
        ("letters", [("prompt", "BYTES", [1])], [("text", "BYTES", [1])]),
    ],
    ids=["moods", "prices", "letters"],
)
async def test_metadata_name_every_tensor(
    running: Running, model: str, inputs: list[Any], outputs: list[Any]
) -> None:
    found = await stub(running).ModelMetadata(pb.ModelMetadataRequest(name=model))
    assert (found.name, list(found.versions), found.platform) == (model, ["1"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == inputs
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == outputs


async def test_properties_tell_what_numbers_mean(running: Running) -> None:
    moods = await stub(running).ModelMetadata(pb.ModelMetadataRequest(name="moods"))
    assert dict(moods.properties) == {"task": "text-classification", "labels": '["negative", "positive"]'}
    prices = (await stub(running).ModelMetadata(pb.ModelMetadataRequest(name="prices"))).properties
    assert (prices["quantiles"], prices["target"], prices["least_observations"]) == (
        "[0.1, 0.5, 0.9]",
        "close",
        "7",
    )


@pytest.mark.parametrize(
    ("model", "optional", "is_decoupled"),
    [("moods", ["text", "input", "lengths"], False), ("prices", ["lengths"], False), ("letters", [], True)],
    ids=["moods", "prices", "letters"],
)
async def test_configuration_says_the_same_as_metadata(
    running: Running, model: str, optional: list[str], is_decoupled: bool
) -> None:
    names = {pb.TYPE_STRING: "BYTES", pb.TYPE_FP32: "FP32", pb.TYPE_INT32: "INT32", pb.TYPE_INT64: "INT64"}
    metadata = await stub(running).ModelMetadata(pb.ModelMetadataRequest(name=model))
    config = (await stub(running).ModelConfig(pb.ModelConfigRequest(name=model))).config
    for described, configured in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
        assert [(one.name, names[one.data_type], one.dims) for one in configured] == [
            (one.name, one.datatype, one.shape) for one in described
        ]
    assert [one.name for one in config.input if one.optional] == optional
    assert (config.name, config.platform, config.max_batch_size) == (model, "onnxruntime_onnx", 0)
    assert config.model_transaction_policy.decoupled is is_decoupled
    assert config.HasField("sequence_batching") is (model == "prices")


# One request, one answer.


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
async def test_classification_is_that_of_the_task(running: Running, is_raw: bool) -> None:
    task = running.repository.table.find("moods", 0, "text-classification").task
    assert isinstance(task, ClassificationTask)
    right = await task.classify(TEXTS, ANYONE)
    found = await infer(running, "moods", {"text": TEXTS}, is_raw=is_raw, id="mine")
    assert (found.model_name, found.model_version, found.id) == ("moods", "1", "mine")
    assert texts(found, "label") == [one.ranked[0][0] for one in right]
    expected = [[dict(one.ranked)[label] for label in ("negative", "positive")] for one in right]
    np.testing.assert_array_equal(numbers(found, "probabilities"), np.array(expected, np.float32))
    tokens = tokenize(task._tokenizer, TEXTS)
    padded = np.full((3, 9), 7, np.int64)
    for row, one in zip(padded, tokens, strict=True):
        row[: len(one)] = one
    lengths = np.array([len(one) for one in tokens], np.int32)
    again = await infer(running, "moods", {"input": padded, "lengths": lengths}, is_raw=is_raw, id="mine")
    assert again == found


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
async def test_forecast_is_that_of_the_task(running: Running, is_raw: bool) -> None:
    task = running.repository.table.find("prices", 0, "forecasting").task
    assert isinstance(task, ForecastingTask)
    right = await task.forecast([SERIES[0, :7].tolist(), SERIES[1].tolist()], 3, (), ANYONE)
    padded = SERIES.copy()
    padded[0, 7:] = np.nan
    tensors = {"input": padded, "lengths": np.array([7, 12], np.int32)}
    found = await infer(running, "prices", tensors, {"horizon": 3}, is_raw=is_raw)
    np.testing.assert_array_equal(
        numbers(found, "value"), np.array([one.medians for one in right], np.float32)
    )
    np.testing.assert_array_equal(
        numbers(found, "quantiles"), np.array([one.quantiles for one in right], np.float32)
    )
    assert numbers(await infer(running, "prices", {"input": SERIES}), "quantiles").shape == (2, 5, 3)


async def test_text_is_that_of_the_task(running: Running) -> None:
    task = running.repository.table.find("letters", 0, "text-generation").task
    assert isinstance(task, GenerationTask)
    options = GenerationOptions("abc", 50, float(np.float32(0.7)), 4, float(np.float32(0.9)), 2**64 - 1)
    right = "".join([piece.text async for piece in task.generate(options, ANYONE)])
    parameters = {"max_tokens": 50, "temperature": 0.7, "top_k": 4, "top_p": 0.9, "seed": 2**64 - 1}
    found = await infer(running, "letters", PROMPT, parameters)
    assert texts(found, "text") == [right]
    assert await infer(running, "letters", PROMPT, parameters | {"seed": str(2**64 - 1)}) == found
    assert (found.parameters["seed"].string_param, found.parameters["finish_reason"].string_param) == (
        str(2**64 - 1),
        "LENGTH",
    )
    stopped = await infer(running, "letters", PROMPT, parameters | {"stop": right[10:13]})
    assert texts(stopped, "text") == [right[: right.index(right[10:13])]]
    assert stopped.parameters["finish_reason"].string_param == "STOP"


async def test_drawn_seed_is_told_and_gives_the_text_again(running: Running) -> None:
    first = await infer(running, "letters", PROMPT, {"max_tokens": 30})
    again = infer_request("letters", PROMPT, {"max_tokens": 30})
    again.parameters["seed"].CopyFrom(first.parameters["seed"])  # in whichever form it came
    assert texts(await stub(running).ModelInfer(again), "text") == texts(first, "text")


async def test_outputs_asked_for_come_alone(running: Running) -> None:
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")]
    found = await infer(running, "moods", {"text": TEXTS}, outputs=wanted)
    assert [one.name for one in found.outputs] == ["probabilities"]


def with_nan() -> np.ndarray[Any, np.dtype[np.float32]]:
    series = SERIES.copy()
    series[1, 6, 3] = np.nan
    return series


ONES = np.ones((1, 3), np.int64)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(infer_request("", {}), "model_name", id="no model"),
        pytest.param(infer_request("moods", {}, model_version="newest"), "model_version", id="no version"),
        pytest.param(infer_request("moods", {}, model_version="-1"), "model_version", id="negative version"),
        pytest.param(infer_request("moods", {}), "inputs", id="no tensor"),
        pytest.param(infer_request("moods", {"text": ["a"], "input": ONES}), "inputs", id="text and input"),
        pytest.param(
            infer_request("moods", {"text": ["a"], "lengths": np.ones(1, np.int32)}),
            "lengths",
            id="text and lengths",
        ),
        pytest.param(infer_request("moods", {"text": ["good", ""]}), "text[1]", id="empty text"),
        pytest.param(infer_request("moods", {"text": ["good", b"\xff"]}), "text[1]", id="no UTF-8"),
        pytest.param(infer_request("moods", {"text": ["good"] * 257}), "text", id="many texts"),
        pytest.param(
            infer_request("moods", {"text": ["good"]}, {"horizon": 1}), "parameters", id="unknown parameter"
        ),
        pytest.param(infer_request("moods", {"input": ONES * 8}), "input[0, 0]", id="token id"),
        pytest.param(infer_request("moods", {"input": -ONES}), "input[0, 0]", id="negative token id"),
        pytest.param(
            infer_request("moods", {"input": np.ones((257, 1), np.int64)}), "input", id="many inputs"
        ),
        pytest.param(
            infer_request("moods", {"input": np.ones((1, 100_001), np.int64)}), "input", id="long input"
        ),
        pytest.param(
            infer_request("moods", {"input": ONES, "lengths": np.array([4], np.int32)}),
            "lengths[0]",
            id="length over time",
        ),
        pytest.param(
            infer_request("moods", {"input": ONES, "lengths": np.array([0], np.int32)}),
            "lengths[0]",
            id="length of 0",
        ),
        pytest.param(infer_request("prices", {}), "inputs", id="no series"),
        pytest.param(infer_request("prices", {"input": SERIES[:, :6]}), "input[0]", id="short series"),
        pytest.param(
            infer_request("prices", {"input": np.ones((1, 10_001, 5), np.float32)}),
            "input",
            id="long series",
        ),
        pytest.param(infer_request("prices", {"input": SERIES[:, :, :4]}), "input", id="narrow series"),
        pytest.param(infer_request("prices", {"input": with_nan()}), "input[1, 6, 3]", id="NaN"),
        pytest.param(
            infer_request("prices", {"input": np.full((1, 9, 5), 3.4e38, np.float32)}),
            "input[0]",
            id="forecast over 32 bits",
        ),
        pytest.param(infer_request("prices", {"input": SERIES}, {"horizon": 6}), "horizon", id="too far"),
        pytest.param(
            infer_request("prices", {"input": SERIES}, {"horizon": 2.5}), "horizon", id="no whole number"
        ),
        pytest.param(infer_request("prices", {"input": SERIES}, {"horizon": True}), "horizon", id="a truth"),
        pytest.param(infer_request("letters", {}), "inputs", id="no prompt"),
        pytest.param(infer_request("letters", {"prompt": ["a", "b"]}), "prompt", id="two prompts"),
        pytest.param(infer_request("letters", {"prompt": ["Z"]}), "prompt", id="unknown character"),
        pytest.param(infer_request("letters", PROMPT, {"seed": -1}), "seed", id="negative seed"),
        pytest.param(infer_request("letters", PROMPT, {"seed": str(2**64)}), "seed", id="seed over 64 bits"),
        pytest.param(infer_request("letters", PROMPT, {"seed": "9" * 5000}), "seed", id="endless seed"),
        pytest.param(
            infer_request("letters", PROMPT, {"x" * 50_000: 1}), "parameters", id="endless parameter"
        ),
        pytest.param(infer_request("letters", {"x" * 50_000: ["a"]}), "inputs", id="endless tensor"),
        pytest.param(
            infer_request("moods", {}, model_version="1" * 50_000), "model_version", id="endless version"
        ),
        pytest.param(
            infer_request("moods", {"input": np.ones([1] * 60, np.int64)}), "input", id="many sizes"
        ),
        pytest.param(infer_request("letters", PROMPT, {"temperature": "hot"}), "temperature", id="no number"),
        pytest.param(
            infer_request("letters", PROMPT, {"temperature": 1e300}), "temperature", id="number over 32 bits"
        ),
        pytest.param(infer_request("letters", PROMPT, {"top_p": 0}), "top_p", id="top_p of 0"),
        pytest.param(
            infer_request("letters", PROMPT, {"max_tokens": 100_001}), "max_tokens", id="many tokens"
        ),
        pytest.param(
            infer_request("letters", PROMPT, {"max_tokens": "9" * 100_000}), "max_tokens", id="many digits"
        ),
        pytest.param(infer_request("letters", PROMPT, {"top_k": 2**32}), "top_k", id="top_k over 32 bits"),
        pytest.param(infer_request("letters", PROMPT, {"max_tokens": -1}), "max_tokens", id="negative"),
        pytest.param(
            infer_request("letters", PROMPT, {"temperature": "1" * 100_000}), "temperature", id="digits"
        ),
        pytest.param(
            infer_request("letters", PROMPT, {"temperature": float("nan")}), "temperature", id="no finite"
        ),
        pytest.param(infer_request("letters", PROMPT, {"top_p": float("nan")}), "top_p", id="no probability"),
        pytest.param(infer_request("letters", PROMPT, {"stop": "a" * 201}), "stop", id="long stop string"),
        pytest.param(
            infer_request("letters", PROMPT, {str(index): 1 for index in range(33)}),
            "parameters",
            id="many parameters",
        ),
        pytest.param(
            infer_request("moods", {"text": ["a"]}, model_version="9" * 100_000),
            "model_version",
            id="version of many digits",
        ),
        pytest.param(infer_request("letters", PROMPT, {"stop": ""}), "stop", id="empty stop string"),
        pytest.param(infer_request("letters", PROMPT, {"stop": 1}), "stop", id="no stop string"),
    ],
)
async def test_wrong_request_is_refused_by_the_tensors_name(
    running: Running, wrong: pb.ModelInferRequest, field: str
) -> None:
    assert await fields_of(stub(running).ModelInfer(wrong)) == [field]
    [answer] = of(await stream(running, wrong), "")
    assert answer.error_message.startswith(f"INVALID_ARGUMENT: {field}: ")


async def test_parameter_without_a_value_is_refused(running: Running) -> None:
    wrong = infer_request("letters", PROMPT)
    wrong.parameters["seed"].SetInParent()
    assert await fields_of(stub(running).ModelInfer(wrong)) == ["seed"]


REQUESTS: dict[str, dict[str, Any]] = {
    "moods": {"text": ["good"]},
    "prices": {"input": SERIES},
    "letters": PROMPT,
}


@pytest.mark.parametrize(
    ("model", "parameter", "forms"),
    [
        ("letters", "max_tokens", [30, "30", 30.0, "30.0", "3e1"]),
        ("letters", "temperature", [0.7, "0.7", "7e-1"]),
        ("letters", "top_k", [4, "4", 4.0]),
        ("letters", "top_p", [0.5, "0.5", "5e-1"]),
        ("letters", "seed", [9, "9", 9.0]),
        ("prices", "horizon", [3, "3", 3.0]),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_every_form_of_an_option_gives_the_same_answer(
    running: Running, model: str, parameter: str, forms: list[Any]
) -> None:
    fixed: dict[str, Any] = {"seed": 5, "max_tokens": 20} if model == "letters" else {}
    answers = [await infer(running, model, REQUESTS[model], fixed | {parameter: one}) for one in forms]
    assert answers == answers[:1] * len(forms)


@pytest.mark.parametrize("model", REQUESTS)
@pytest.mark.parametrize(
    ("parameters", "field", "text"),
    [
        ({"timeuot": 1}, "parameters", "did you mean timeout?"),
        ({"headers_x": "y"}, "parameters", "found 'headers_x'"),
        ({"priority": 2}, "priority", "all requests have the same priority"),
        ({"binary_data_output": False}, "binary_data_output", "answers are always raw"),
        ({"timeout": -5}, "timeout", "found -5"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
async def test_parameter_that_is_not_honoured_is_refused_for_every_task(
    running: Running, model: str, parameters: dict[str, Any], field: str, text: str
) -> None:
    wrong = infer_request(model, REQUESTS[model], parameters)
    assert await fields_of(stub(running).ModelInfer(wrong)) == [field]
    [answer] = of(await stream(running, wrong), "")
    assert answer.error_message.startswith(f"INVALID_ARGUMENT: {field}: ")
    assert text in answer.error_message


@pytest.mark.parametrize("model", REQUESTS)
async def test_passed_timeout_ends_the_request_and_not_its_stream(running: Running, model: str) -> None:
    late = infer_request(model, REQUESTS[model], {"timeout": 1}, id="late")
    assert await code_of_call(stub(running).ModelInfer(late)) is grpc.StatusCode.DEADLINE_EXCEEDED
    patient = infer_request(model, REQUESTS[model], {"timeout": 60_000_000}, id="patient")
    found = await stream(running, late, patient)
    assert of(found, "late")[0].error_message.startswith("DEADLINE_EXCEEDED: ")
    assert not of(found, "patient")[-1].error_message


async def test_timeout_ends_a_generation_that_runs(running: Running) -> None:
    endless = infer_request("letters", PROMPT, {"max_tokens": 100_000, "timeout": 500_000})
    found = of(await stream(running, endless), "")
    assert len(found) > 1
    assert found[-1].error_message.startswith("DEADLINE_EXCEEDED: ")


@pytest.mark.parametrize("name", ["", "mine", "ünï", "a\nb", "0" * 1024], ids=lambda one: repr(one)[:10])
@pytest.mark.parametrize("model", REQUESTS)
async def test_id_is_echoed_in_answers_and_errors(running: Running, model: str, name: str) -> None:
    assert (await infer(running, model, REQUESTS[model], id=name)).id == name
    found = await stream(
        running,
        infer_request(model, REQUESTS[model], id=name),
        infer_request(model, REQUESTS[model], {"priority": 1}, id=name),
    )
    assert {one.infer_response.id for one in found} == {name}


ODD_NAMES = [
    "none",
    "n" * 50_000,
    "../exported",
    "Moods",
    " moods",
    "a\nb\x1b[31m",
    "модель",
    "\U0001f600" * 300,
]


@pytest.mark.parametrize(
    ("model", "number"),
    [*((name, "") for name in ODD_NAMES), ("moods", "2"), ("moods", "4294967295")],
    ids=lambda one: repr(one)[:20],
)
async def test_unknown_model_is_not_found(running: Running, model: str, number: str) -> None:
    calls = [
        stub(running).ModelInfer(infer_request(model, {"text": ["a"]}, model_version=number)),
        stub(running).ModelMetadata(pb.ModelMetadataRequest(name=model, version=number)),
        stub(running).ModelConfig(pb.ModelConfigRequest(name=model, version=number)),
    ]
    for call in calls:
        status = await refused_with(call)
        assert status.code == grpc.StatusCode.NOT_FOUND.value[0]
        assert status.message.isprintable()
        assert len(status.message) < 1100


@pytest.mark.parametrize(
    "number", ["01", "0", "latest", "1.0", "+1", "-1", " 1", "\u0661", "4294967296", "1" * 99]
)
async def test_version_that_is_no_number_is_refused_by_every_call(running: Running, number: str) -> None:
    wrong = infer_request("moods", {"text": ["a"]}, model_version=number)
    assert await fields_of(stub(running).ModelInfer(wrong)) == ["model_version"]
    for call, kind in (
        (stub(running).ModelMetadata, pb.ModelMetadataRequest),
        (stub(running).ModelConfig, pb.ModelConfigRequest),
        (stub(running).ModelReady, pb.ModelReadyRequest),
    ):
        assert await fields_of(call(kind(name="moods", version=number))) == ["version"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.FAILED, grpc.StatusCode.FAILED_PRECONDITION),
        (Status.LOADING, grpc.StatusCode.UNAVAILABLE),
        (Status.DRAINING, grpc.StatusCode.NOT_FOUND),
    ],
    ids=str,
)
async def test_version_that_does_not_serve_is_refused_by_its_status(
    running: Running, status: Status, code: grpc.StatusCode
) -> None:
    entry = Entry("odd", 1, status, "check 'graph' failed")
    running.repository.table.set(entry)
    try:
        for number in ("", "1"):
            calls = [
                stub(running).ModelInfer(infer_request("odd", {}, model_version=number)),
                stub(running).ModelMetadata(pb.ModelMetadataRequest(name="odd", version=number)),
                stub(running).ModelConfig(pb.ModelConfigRequest(name="odd", version=number)),
            ]
            assert [await code_of_call(call) for call in calls] == [code] * 3
            assert not (
                await stub(running).ModelReady(pb.ModelReadyRequest(name="odd", version=number))
            ).ready
    finally:
        running.repository.table.remove(entry)


# The stream.


async def test_text_comes_in_messages_of_which_one_is_the_last(running: Running) -> None:
    parameters: dict[str, Any] = {"max_tokens": 300, "seed": 5}
    whole = await infer(running, "letters", PROMPT, parameters)
    asked = parameters | {"triton_enable_empty_final_response": True}
    found = of(await stream(running, infer_request("letters", PROMPT, asked, id="one")), "one")
    assert len(found) > 1
    assert "".join(texts(one.infer_response, "text")[0] for one in found) == texts(whole, "text")[0]
    assert {one.infer_response.parameters["seed"].int64_param for one in found} == {5}
    assert [one.infer_response.parameters["finish_reason"].string_param for one in found] == [""] * (
        len(found) - 1
    ) + ["LENGTH"]


async def test_requests_of_one_stream_run_side_by_side(running: Running) -> None:
    requests = [
        infer_request("letters", PROMPT, {"max_tokens": 3000, "seed": 1}, id="long"),
        infer_request("moods", {"text": ["good"]}, id="short"),
    ]
    found = await stream(running, *requests)
    assert len(of(found, "short")) == 1
    assert found.index(of(found, "short")[0]) < found.index(of(found, "long")[-1])


async def test_wrong_request_gets_an_error_and_the_stream_goes_on(running: Running) -> None:
    wrong, right = (
        infer_request("moods", {"text": [""]}, id="wrong"),
        infer_request("moods", {"text": ["good"]}, id="right"),
    )
    found = await stream(running, wrong, infer_request("none", {}, id="unknown"), right)
    assert (
        of(found, "wrong")[0].error_message
        == "INVALID_ARGUMENT: text[0]: expected at least one token, found none"
    )
    assert of(found, "unknown")[0].error_message.startswith("NOT_FOUND: ")
    assert of(found, "right")[0] == pb.ModelStreamInferResponse(
        infer_response=of(found, "right")[0].infer_response
    )
    assert texts(of(found, "right")[0].infer_response, "label") == texts(
        await infer(running, "moods", {"text": ["good"]}), "label"
    )


async def test_error_of_a_stream_is_short_whatever_was_sent(running: Running) -> None:
    wrong = infer_request("n" * 100_000, {"text": ["good"]}, id="a")
    [answer] = of(await stream(running, wrong), "a")
    assert answer.error_message.startswith("NOT_FOUND: ")
    assert len(answer.error_message) < 1100


async def test_endless_id_ends_the_call(running: Running) -> None:
    wrong = infer_request("moods", {"text": ["good"]}, id="i" * 1025)
    assert await fields_of(stub(running).ModelInfer(wrong)) == ["id"]
    assert await fields_of(stub(running).ModelStreamInfer(iter([wrong]))) == ["id"]


async def test_more_requests_than_places_are_all_answered(running: Running) -> None:
    requests = [
        infer_request("letters", PROMPT, {"max_tokens": 5, "seed": index}, id=str(index))
        for index in range(IN_FLIGHT * 10)
    ]
    found = await stream(running, *requests)
    assert {one.infer_response.id for one in found} == {one.id for one in requests}
    for request in requests:
        of(found, request.id)


async def test_answers_come_while_the_stream_is_open(running: Running) -> None:
    is_answered = asyncio.Event()

    async def ask() -> AsyncIterator[pb.ModelInferRequest]:
        yield infer_request("moods", {"text": ["good"]}, id="first")
        await is_answered.wait()
        yield infer_request("moods", {"text": ["good"]}, id="second")

    names = []
    async with asyncio.timeout(20):
        async for one in stub(running).ModelStreamInfer(ask()):
            names.append(one.infer_response.id)
            is_answered.set()
    assert names == ["first", "second"]


async def test_cancelled_stream_frees_its_rows(running: Running) -> None:
    engine = running.repository.table.find("letters", 0, "text-generation").engine
    requests = [
        infer_request("letters", PROMPT, {"max_tokens": 100_000}, id=str(index)) for index in range(2)
    ]
    call = stub(running).ModelStreamInfer(iter(requests))
    await call.read()
    call.cancel()
    async with asyncio.timeout(20):
        while engine.active:
            # Other calls keep the engine turning, as they do in a server.
            await infer(running, "letters", PROMPT, {"max_tokens": 1})


async def test_passed_deadline_ends_the_stream(running: Running) -> None:
    async def ask() -> AsyncIterator[pb.ModelInferRequest]:
        yield infer_request("moods", {"text": ["good"]})
        await asyncio.Event().wait()

    assert (
        await code_of_call(stub(running).ModelStreamInfer(ask(), timeout=0.2))
        is grpc.StatusCode.DEADLINE_EXCEEDED
    )


async def test_bytes_that_are_no_message_end_the_stream(running: Running) -> None:
    call: Any = running.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    assert await code_of_call(call(iter([b"\xff\xff"]))) is grpc.StatusCode.INVALID_ARGUMENT


async def test_bug_ends_the_stream_with_a_fixed_text(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("service.api.open_inference.service.read", fail)
    call = stub(running).ModelStreamInfer(iter([infer_request("moods", {"text": ["good"]})]))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await finish(call)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (failure.value.details() or "")
