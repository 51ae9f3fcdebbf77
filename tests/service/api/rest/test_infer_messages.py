"""service.api.rest.infer_messages."""

import json
from typing import Any

import numpy as np
import pytest

from seqserve.inference import grpc_service_pb2 as pb
from service.api.rest.infer_messages import (
    BinaryOutputs,
    binary_of,
    header_length,
    json_of,
    request_of,
    set_parameters,
)
from service.errors import InvalidArgument

TEXT = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}
BINARY = {"name": "input", "shape": [1, 2], "datatype": "INT64", "parameters": {"binary_data_size": 16}}


def read(content: dict[str, Any], binary: bytes = b"") -> tuple[pb.ModelInferRequest, BinaryOutputs]:
    return request_of(content, binary, "moods", "3")


def test_request_has_names_of_the_path_and_all_of_the_body() -> None:
    request, binary = read(
        {
            "id": "7",
            "model_name": "moods",
            "parameters": {"timeout": 5, "seed": 2**64 - 1, "raw": True, "stop": "x", "top_p": 0.5},
            "inputs": [TEXT],
            "outputs": [{"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    )
    assert (request.model_name, request.model_version, request.id) == ("moods", "3", "7")
    given = {name: one.WhichOneof("parameter_choice") for name, one in request.parameters.items()}
    assert given == {
        "timeout": "int64_param",
        "seed": "uint64_param",
        "raw": "bool_param",
        "stop": "string_param",
        "top_p": "double_param",
    }
    assert [one.name for one in request.outputs] == ["label", "probabilities"]
    assert not request.outputs[1].parameters
    assert (binary.has("label"), binary.has("probabilities")) == (False, True)


def test_binary_data_go_to_the_inputs_that_name_their_sizes_in_order() -> None:
    second = BINARY | {"name": "lengths", "parameters": {"binary_data_size": 3}}
    request, _ = read({"inputs": [BINARY, TEXT, second]}, b"a" * 16 + b"bcd")
    assert [*request.raw_input_contents] == [b"a" * 16, b"\x04\0\0\0good", b"bcd"]


@pytest.mark.parametrize(
    ("content", "binary", "expected"),
    [
        (
            {"inputs": [BINARY]},
            b"a" * 15,
            "inputs[0].parameters.binary_data_size: expected a number of bytes",
        ),
        (
            {"inputs": [BINARY]},
            b"a" * 17,
            "body: expected 16 bytes of binary data, as the inputs say, found 17",
        ),
        ({"inputs": [BINARY | {"data": [1]}]}, b"a" * 16, "inputs[0].data: expected none beside binary_data"),
        ({"inputs": [BINARY | {"parameters": {"binary_data_size": -1}}]}, b"", "inputs[0].parameters.binary"),
        (
            {"inputs": [BINARY | {"parameters": {"binary_data_size": True}}]},
            b"a",
            "inputs[0].parameters.binary",
        ),
        ({"inputs": {}}, b"", "inputs: expected a list of objects, found an object"),
        (
            {"inputs": [TEXT | {"shape": "1"}]},
            b"",
            "inputs[0].shape: expected a list of whole numbers, found text",
        ),
        (
            {"inputs": [TEXT | {"shape": [1.0]}]},
            b"",
            "inputs[0].shape: expected a list of whole numbers, found",
        ),
        ({"inputs": [TEXT | {"shape": [2**63]}]}, b"", "inputs[0].shape: expected a list of whole numbers"),
        (
            {"inputs": [TEXT | {"shape": [2**62] * 100_000}]},
            b"",
            "inputs[0].shape: expected at most 16 sizes, found 100000",
        ),
        ({"inputs": [TEXT | {"dtype": "x"}]}, b"", "inputs[0]: expected keys among name, shape, datatype"),
        ({"outputs": [{"name": "x", "data": []}]}, b"", "outputs[0]: expected keys among name, parameters"),
        (
            {"outputs": [{"name": "x", "parameters": {"binary_data": 1}}]},
            b"",
            "x.binary_data: expected true or",
        ),
        ({"parameters": {"binary_data_output": "yes"}}, b"", "binary_data_output: expected true or false"),
        ({"parameters": []}, b"", "parameters: expected an object, found a list"),
        ({"parameters": {"seed": None}}, b"", "seed: expected a number, a truth value or text, found null"),
        ({"model_name": "other"}, b"", "model_name: expected none, or moods as in the path"),
        ({"model_version": "4"}, b"", "model_version: expected none, or 3 as in the path"),
    ],
)
def test_other_bodies_are_refused_by_name(content: dict[str, Any], binary: bytes, expected: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        read(content, binary)
    assert str(refusal.value).startswith(expected)


@pytest.mark.parametrize("text", ["", "0", "-1", "6", "1.0", "x", "1" * 5000, "\u0663"])
def test_odd_header_length_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^Inference-Header-Content-Length: expected .* 1\.\.5, found"):
        header_length(text, b"12345")


def test_header_length_is_the_body_s_where_there_is_no_header() -> None:
    assert header_length(None, b"12345") == 5
    assert header_length("3", b"12345") == 3


@pytest.mark.parametrize("value", [2**64, -(2**64), 10**500, -(10**500)])
def test_huge_whole_numbers_are_sent_as_what_no_parameter_takes(value: int) -> None:
    request = pb.ModelInferRequest()
    set_parameters(request.parameters, {"seed": value})
    assert request.parameters["seed"].WhichOneof("parameter_choice") == "double_param"


async def test_answer_has_json_and_the_binary_data_behind_it() -> None:
    response = pb.ModelInferResponse(model_name="moods", model_version="3", id="7")
    response.parameters["seed"].int64_param = 5
    for name in ("first", "second"):
        response.outputs.add(name=name, datatype="FP32", shape=[2])
        response.raw_output_contents.append(np.array([0.5, 2], "<f4").tobytes())
    binary = BinaryOutputs(True, {"first": False})
    found = json.loads(b"".join([part async for part in json_of(response, binary)]))
    assert found == {
        "model_name": "moods",
        "model_version": "3",
        "id": "7",
        "parameters": {"seed": 5},
        "outputs": [
            {"name": "first", "datatype": "FP32", "shape": [2], "data": [0.5, 2.0]},
            {"name": "second", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        ],
    }
    assert binary_of(response, binary) == [response.raw_output_contents[1]]
