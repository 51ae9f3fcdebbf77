"""service.api.rest.generate_messages."""

import json
from typing import Any

import pytest

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.tensors import TensorSpec, to_raw
from service.api.rest.generate_messages import json_of, output_key, request_of
from service.errors import InvalidArgument

INPUTS = (
    TensorSpec("prompt", "BYTES", (1,)),
    TensorSpec("source", "FP32", (1, "time", 2)),
    TensorSpec("features", "FP32", (1, 3)),
)


def read(content: dict[str, Any]) -> pb.ModelInferRequest:
    return request_of(content, INPUTS, "letters", "")


def test_keys_are_tensors_or_parameters() -> None:
    request = read(
        {
            "prompt": "abc",
            "source": [[1, 2], [3, 4]],
            "features": [1, 2, 3],
            "id": "7",
            "seed": 5,
            "parameters": {"max_tokens": 3},
        }
    )
    assert [(one.name, [*one.shape]) for one in request.inputs] == [
        ("prompt", [1]),
        ("source", [1, 2, 2]),
        ("features", [1, 3]),
    ]
    assert request.raw_input_contents[0] == to_raw("BYTES", [b"abc"])
    assert (request.id, sorted(request.parameters)) == ("7", ["max_tokens", "seed"])


@pytest.mark.parametrize("prompt", ["abc", ["abc"]])
def test_text_input_stands_for_prompt(prompt: Any) -> None:
    assert read({"text_input": prompt}) == read({"prompt": "abc"})
    assert (output_key({"text_input": prompt}), output_key({"prompt": prompt})) == ("text_output", "text")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"prompt": "a", "text_input": "b"}, "text_input: expected it or prompt, found both"),
        ({"prompt": None}, "prompt: expected BYTES [1], found null among the elements"),
        ({"prompt": {"a": 1}}, "prompt: expected BYTES [1], found an object among the elements"),
        ({"prompt": []}, "prompt: expected BYTES [1], found null among the elements"),
        ({"prompt": [["a"]]}, "prompt: expected BYTES [1], found lists nested 2 deep"),
        ({"prompt": 7}, "prompt: expected text for BYTES, found a number"),
        ({"source": [[1, 2], [3]]}, "source.data: expected one flat list, or lists nested"),
        ({"seed": 1, "parameters": {"seed": 2}}, "seed: expected the parameter once, found it in parameters"),
        ({"stop": ["a"]}, "stop: expected a number, a truth value or text, found a list"),
    ],
)
def test_other_contents_are_refused_by_name(content: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        read(content)
    assert str(refusal.value).startswith(expected)


def test_answer_has_the_text_beside_the_parameters() -> None:
    response = pb.ModelInferResponse(model_name="letters", model_version="1")
    response.outputs.add(name="text", datatype="BYTES", shape=[1])
    response.raw_output_contents.append(to_raw("BYTES", ["\u00e9\n".encode()]))
    response.parameters["seed"].int64_param = 5
    response.parameters["triton_final_response"].bool_param = True
    assert json.loads(json_of(response, "text_output")) == {
        "model_name": "letters",
        "model_version": "1",
        "text_output": "\u00e9\n",
        "seed": 5,
    }
