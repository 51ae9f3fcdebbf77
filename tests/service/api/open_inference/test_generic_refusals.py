"""What the Open Inference Protocol says of models for sequences, and what it refuses of them."""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from seqserve.inference import grpc_service_pb2 as pb
from tests.integration.tensors import infer_request
from tests.service.api.conftest import Running
from tests.service.api.open_inference.generic import AXES, INITIAL, RANDOM, stub
from tests.service.api.rich import code_of_call, fields_of, refused_with, unpack

# What is said of a model.


@pytest.mark.parametrize(
    ("model", "inputs", "outputs", "optional", "keeps_state"),
    [
        (
            "activity",
            [("input", "FP32", [-1, -1, 3]), ("lengths", "INT32", [-1])],
            [("label", "BYTES", [-1]), ("probabilities", "FP32", [-1, 3])],
            ["lengths"],
            True,
        ),
        (
            "tags",
            [("text", "BYTES", [-1]), ("input", "INT64", [-1, -1]), ("lengths", "INT32", [-1])],
            [
                ("label", "BYTES", [-1, -1]),
                ("probabilities", "FP32", [-1, -1, 3]),
                ("spans", "INT32", [-1, -1, 2]),
            ],
            ["text", "input", "lengths"],
            True,
        ),
        (
            "odd",
            [("input", "FP32", [-1, -1, 4]), ("lengths", "INT32", [-1])],
            [("output", "FP32", [-1, -1, 2])],
            ["lengths"],
            True,
        ),
        (
            "windowed",
            [("text", "BYTES", [-1]), ("input", "INT64", [-1, -1]), ("lengths", "INT32", [-1])],
            [("label", "BYTES", [-1]), ("probabilities", "FP32", [-1, 3]), ("spans", "INT32", [-1, 2])],
            ["text", "input", "lengths"],
            False,
        ),
    ],
    ids=["activity", "tags", "odd", "windowed"],
)
async def test_metadata_and_configuration_say_what_goes_in_and_comes_out(
    generic: Running,
    model: str,
    inputs: list[Any],
    outputs: list[Any],
    optional: list[str],
    keeps_state: bool,
) -> None:
    found = await stub(generic).ModelMetadata(pb.ModelMetadataRequest(name=model))
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == inputs
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == outputs
    config = (await stub(generic).ModelConfig(pb.ModelConfigRequest(name=model))).config
    assert [one.name for one in config.input if one.optional] == optional
    assert [one.name for one in config.output] == [name for name, *_ in outputs]
    assert config.HasField("sequence_batching") is keeps_state


@pytest.mark.parametrize(
    ("model", "properties"),
    [
        (
            "activity",
            {
                "task": "sequences",
                "input": "steps",
                "output": "label",
                "output_steps": "last",
                "labels": '["still", "walking", "running"]',
                "columns": '["x", "y", "power"]',
                "units": '["g", "g", "W"]',
            },
        ),
        (
            "odd",
            {
                "task": "sequences",
                "input": "steps",
                "output": "numbers",
                "output_steps": "every",
                "output_columns": '["speed", "turn"]',
                "output_units": '["m/s", ""]',
            },
        ),
        ("vanilla", {"task": "sequences", "input": "steps", "output": "embedding", "output_steps": "last"}),
    ],
    ids=["activity", "odd", "vanilla"],
)
async def test_properties_tell_names_and_units(
    generic: Running, model: str, properties: Mapping[str, str]
) -> None:
    found = await stub(generic).ModelMetadata(pb.ModelMetadataRequest(name=model))
    assert dict(found.properties) == properties


# What is refused.


async def test_inputs_of_the_init_graph_are_named_where_they_are_wrong(generic: Running) -> None:
    rows = RANDOM.normal(0, 1, (2, 4, 2)).astype(np.float32)
    bad = INITIAL["speaker"].copy()
    bad[1, 2] = np.inf
    for tensors, field in (
        (INITIAL | {"speaker": bad}, "speaker[1, 2]"),
        ({"image": INITIAL["image"]}, "inputs"),
        (INITIAL | {"image": INITIAL["image"][:, :4]}, "image"),
        (INITIAL | {"image": INITIAL["image"][:1]}, "image"),
    ):
        wrong = infer_request("begun", {"input": rows, **tensors})
        assert await fields_of(stub(generic).ModelInfer(wrong)) == [field]
    config = (await stub(generic).ModelConfig(pb.ModelConfigRequest(name="begun"))).config
    described = [(one.name, list(one.dims), one.optional) for one in config.input]
    assert described == [
        ("input", [-1, -1, 2], False),
        ("lengths", [-1], True),
        ("image", [-1, 5], True),
        ("speaker", [-1, 3], True),
    ]


def with_value(value: float) -> np.ndarray[Any, Any]:
    rows = AXES.copy()
    rows[1, 4, 2] = value
    return rows


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(infer_request("activity", {}), "inputs", id="no input"),
        pytest.param(infer_request("tags", {}), "inputs", id="neither text nor input"),
        pytest.param(
            infer_request("tags", {"text": ["a"], "input": np.ones((1, 1), np.int64)}), "inputs", id="both"
        ),
        pytest.param(
            infer_request("tags", {"text": ["a"], "lengths": np.ones(1, np.int32)}), "lengths", id="lengths"
        ),
        pytest.param(infer_request("activity", {"text": ["a"]}), "inputs", id="text for values"),
        pytest.param(infer_request("tags", {"text": ["a", ""]}), "text[1]", id="empty text"),
        pytest.param(infer_request("tags", {"text": ["a", "Z"]}), "text[1]", id="unknown character"),
        pytest.param(infer_request("tags", {"text": [b"\xff"]}), "text[0]", id="no UTF-8"),
        pytest.param(
            infer_request("topics", {"input": np.array([[1, 2], [3, 20]])}), "input[1, 1]", id="token id"
        ),
        pytest.param(infer_request("activity", {"input": with_value(np.nan)}), "input[1, 4, 2]", id="NaN"),
        pytest.param(
            infer_request("activity", {"input": with_value(-1.0)}), "input[1, 4, 2]", id="logarithm"
        ),
        pytest.param(infer_request("activity", {"input": AXES[:, :, :2]}), "input", id="narrow rows"),
        pytest.param(
            infer_request("activity", {"input": AXES, "lengths": np.array([1, 7, 1], np.int32)}),
            "lengths[1]",
            id="length over time",
        ),
        pytest.param(
            infer_request("activity", {"input": np.ones((1, 10_001, 3), np.float32)}), "input", id="long"
        ),
        pytest.param(
            infer_request("activity", {"input": AXES}, {"output_steps": "all"}), "output_steps", id="steps"
        ),
        pytest.param(
            infer_request("activity", {"input": AXES}, {"output_steps": 1}), "output_steps", id="number"
        ),
        pytest.param(infer_request("activity", {"input": AXES}, {"raw": "yes"}), "raw", id="no truth value"),
        pytest.param(
            infer_request(
                "activity",
                {"input": AXES},
                outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="output")],
            ),
            "outputs",
            id="output without raw",
        ),
    ],
)
async def test_wrong_request_is_refused_by_the_tensors_name(
    generic: Running, wrong: pb.ModelInferRequest, field: str
) -> None:
    assert await fields_of(stub(generic).ModelInfer(wrong)) == [field]


@pytest.mark.parametrize(
    ("model", "tensors"),
    [
        ("activity", {"input": np.ones((16, 10_000, 3), np.float32)}),
        # Small as it is, and large with the padding of its short rows.
        ("tags", {"text": ["a" * 60_000, "b", "c", "d"]}),
    ],
    ids=["activity", "tags"],
)
async def test_answer_that_would_be_too_large_is_refused_before_it_is_computed(
    generic: Running, model: str, tensors: dict[str, Any]
) -> None:
    counts = generic.repository.table.find(model, 0, "sequences").counts
    before = [one.steps["useful"].value for one in counts]
    request = infer_request(model, tensors, {"output_steps": "every"})
    status = await refused_with(stub(generic).ModelInfer(request))
    assert unpack(status)["ErrorInfo"].reason == "ANSWER_TOO_LARGE"
    assert [one.steps["useful"].value for one in counts] == before


@pytest.mark.parametrize("form", ["every", "last"])
async def test_passed_timeout_ends_a_request(generic: Running, form: str) -> None:
    late = infer_request("activity", {"input": AXES}, {"output_steps": form, "timeout": "1"})
    assert await code_of_call(stub(generic).ModelInfer(late)) is grpc.StatusCode.DEADLINE_EXCEEDED
