"""Requests and answers of `generate` and `generate_stream`, Triton's short form for models that give text.

A key of the JSON is the name of an input tensor, whose elements are its value, or else of a parameter.
`text_input` and `text_output`, which clients of language models expect, stand for `prompt` and `text`.
"""

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import to_json

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.tensors import TensorSpec
from service.api.rest.infer_messages import header_of, set_parameters
from service.api.rest.json_tensors import raw_of
from service.api.rest.json_values import kind_of, object_in, text_in
from service.errors import InvalidArgument

_PROMPT, _TEXT = "prompt", "text"
_TEXT_INPUT, _TEXT_OUTPUT = "text_input", "text_output"
# A parameter of answers in a stream, where `finish_reason` says the same.
_FINAL: Final = "triton_final_response"


def output_key(found: dict[str, Any]) -> str:
    """Return the key of the text in the answers to a request."""
    return _TEXT_OUTPUT if _TEXT_INPUT in found else _TEXT


def request_of(
    found: dict[str, Any], inputs: Sequence[TensorSpec], model: str, version: str
) -> pb.ModelInferRequest:
    """Return the request that a body holds.

    Args:
        found: the JSON of the body.
        inputs: specs of the model's inputs.
        model: name of the model, as the path has it.
        version: its version, as the path has it; "": the newest.

    Raises:
        InvalidArgument: the JSON is no such request.
    """
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=text_in("", found, "id"))
    parameters = dict(object_in("", found, "parameters"))
    specs = {one.name: one for one in inputs}
    for key, value in found.items():
        name = _PROMPT if key == _TEXT_INPUT else key
        if key in ("id", "parameters"):
            continue
        if name not in specs:
            _add_once(parameters, key, value)
        elif key == _TEXT_INPUT and _PROMPT in found:
            raise InvalidArgument(key, f"expected it or {_PROMPT}, found both")
        else:
            _add_input(request, specs[name], value)
    set_parameters(request.parameters, parameters)
    return request


def _add_once(parameters: dict[str, Any], name: str, value: Any) -> None:
    if name in parameters:
        raise InvalidArgument(name, "expected the parameter once, found it in parameters as well")
    parameters[name] = value


def _add_input(request: pb.ModelInferRequest, spec: TensorSpec, value: Any) -> None:
    """Add an input; sizes of 1 that its spec has before those of the value may be left out."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > len(spec.shape):
        raise InvalidArgument(spec.name, f"expected {spec}, found lists nested {len(shape)} deep")
    if inner is None or isinstance(inner, dict):
        raise InvalidArgument(spec.name, f"expected {spec}, found {kind_of(inner)} among the elements")
    for _ in range(len(spec.shape) - len(shape)):
        shape, value = [1, *shape], [value]
    request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    request.raw_input_contents.append(raw_of(spec.name, spec.datatype, shape, value))


def json_of(response: pb.ModelInferResponse, key: str) -> bytes:
    """Return the JSON of an answer, or of one of several.

    Args:
        response: the answer.
        key: key of its text.
    """
    found = header_of(response)
    parameters = found.pop("parameters", {})
    parameters.pop(_FINAL, None)
    [raw] = response.raw_output_contents
    return to_json({**found, key: raw[4:].decode(), **parameters})
