"""Requests and answers of `infer`: JSON, with the elements of tensors in it or as binary data behind it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.parameters import truth_of
from service.api.rest.json_tensors import elements_of, raw_of
from service.api.rest.json_values import check_keys, kind_of, object_in, objects_in, text_in
from service.errors import InvalidArgument
from service.tasks.limits import check_count

HEADER_LENGTH: Final = "inference-header-content-length"
_SIZE, _IS_BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_KEYS: Final = ("id", "model_name", "model_version", "parameters", "inputs", "outputs")
_INPUT_KEYS: Final = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_KEYS: Final = ("name", "parameters")
_MAX_SIZE: Final = (1 << 63) - 1
# More sizes than any model's tensor has. The product of a hundred thousand takes a minute.
_MAX_SIZES: Final = 16


@dataclass(frozen=True, slots=True)
class BinaryOutputs:
    """Outputs whose elements are sent as binary data.

    Attributes:
        by_default: whether those that the request says nothing of are.
        by_name: whether an output is, where the request says so.
    """

    by_default: bool
    by_name: Mapping[str, bool]

    def has(self, name: str) -> bool:
        """Return whether an output is sent as binary data."""
        return self.by_name.get(name, self.by_default)


def header_length(text: str | None, body: bytes) -> int:
    """Return the bytes of the JSON at the beginning of a body.

    Args:
        text: the header Inference-Header-Content-Length; None: all of the body is JSON.
        body: the body.

    Raises:
        InvalidArgument: the header is no such number.
    """
    if text is None:
        return len(body)
    is_number = text.isascii() and text.isdecimal() and len(text) <= 10
    if not is_number or not 0 < int(text) <= len(body):
        raise InvalidArgument(
            "Inference-Header-Content-Length",
            f"expected the bytes of the JSON before the binary data, 1..{len(body)}, found another value",
        )
    return int(text)


def request_of(
    found: dict[str, Any], binary: bytes, model: str, version: str
) -> tuple[pb.ModelInferRequest, BinaryOutputs]:
    """Return the request that a body holds.

    Args:
        found: the JSON of the body.
        binary: what follows the JSON.
        model: name of the model, as the path has it.
        version: its version, as the path has it; "": the newest.

    Raises:
        InvalidArgument: the JSON is no such request, or the binary data are not as it says.
    """
    check_keys("body", found, _KEYS)
    for key, expected in (("model_name", model), ("model_version", version)):
        if text_in("", found, key) not in ("", expected):
            raise InvalidArgument(
                key, f"expected none, or {expected or 'none'} as in the path, found another"
            )
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=text_in("", found, "id"))
    parameters = dict(object_in("", found, "parameters"))
    all_binary = parameters.pop(_ALL_BINARY, False)
    set_parameters(request.parameters, parameters)
    position, behind = 0, memoryview(binary)  # slices of bytes would be copies
    for index, given in enumerate(objects_in("", found, "inputs")):
        position += _add_input(request, f"inputs[{index}].", given, behind[position:])
    if position != len(binary):
        raise InvalidArgument(
            "body", f"expected {position} bytes of binary data, as the inputs say, found {len(binary)}"
        )
    by_name = {}
    for index, given in enumerate(objects_in("", found, "outputs")):
        name, choice = _add_output(request, f"outputs[{index}].", given)
        if choice is not None:
            by_name[name] = choice
    return request, BinaryOutputs(_truth(_ALL_BINARY, all_binary), by_name)


def _add_input(request: pb.ModelInferRequest, place: str, given: dict[str, Any], binary: memoryview) -> int:
    """Add an input, and return the bytes of binary data that it takes."""
    check_keys(place.removesuffix("."), given, _INPUT_KEYS)
    name, datatype = text_in(place, given, "name"), text_in(place, given, "datatype")
    tensor = request.inputs.add(name=name, datatype=datatype, shape=_shape_in(place, given))
    parameters = object_in(place, given, "parameters")
    set_parameters(tensor.parameters, parameters)
    if _SIZE not in parameters:
        raw = raw_of(name or place, datatype, tensor.shape, given.get("data"))
        request.raw_input_contents.append(raw)
        return 0
    size = parameters[_SIZE]
    if given.get("data") is not None:
        raise InvalidArgument(f"{place}data", f"expected none beside {_SIZE}, found some")
    if type(size) is not int or not 0 <= size <= len(binary):
        raise InvalidArgument(
            f"{place}parameters.{_SIZE}",
            f"expected a number of bytes that the body has, at most {len(binary)}, found another value",
        )
    request.raw_input_contents.append(bytes(binary[:size]))
    return size


def _shape_in(place: str, given: Mapping[str, Any]) -> list[int]:
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(
        type(size) is int and -_MAX_SIZE <= size <= _MAX_SIZE for size in shape
    ):
        raise InvalidArgument(f"{place}shape", f"expected a list of whole numbers, found {_found(shape)}")
    check_count(f"{place}shape", "sizes", len(shape), _MAX_SIZES, minimum=0)
    return shape


def _found(value: object) -> str:
    return "others" if isinstance(value, list) else kind_of(value)


def _add_output(request: pb.ModelInferRequest, place: str, given: dict[str, Any]) -> tuple[str, bool | None]:
    """Add a requested output; return its name, and whether it is wanted as binary data, if that is said."""
    check_keys(place.removesuffix("."), given, _OUTPUT_KEYS)
    name = text_in(place, given, "name")
    parameters = dict(object_in(place, given, "parameters"))
    choice = parameters.pop(_IS_BINARY, None)
    set_parameters(request.outputs.add(name=name).parameters, parameters)
    return name, None if choice is None else _truth(f"{name}.{_IS_BINARY}", choice)


def _truth(field: str, value: Any) -> bool:
    if not isinstance(value, bool | str):
        raise InvalidArgument(field, f"expected true or false, found {kind_of(value)}")
    return truth_of(field, value)


def set_parameters(parameters: Any, given: Mapping[str, Any]) -> None:
    """Set the parameters of a request, an input or an output to values of JSON.

    Raises:
        InvalidArgument: a value is a list, an object or null.
    """
    for name, value in given.items():
        parameter = parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int):
            _set_whole(parameter, value)
        elif isinstance(value, float):
            parameter.double_param = value
        elif isinstance(value, str):
            parameter.string_param = value
        else:
            raise InvalidArgument(name, f"expected a number, a truth value or text, found {kind_of(value)}")


def _set_whole(parameter: pb.InferParameter, value: int) -> None:
    if -_MAX_SIZE <= value <= _MAX_SIZE:
        parameter.int64_param = value
    elif 0 < value < 1 << 64:
        parameter.uint64_param = value
    else:
        parameter.double_param = float(value) if abs(value) < 1 << 1023 else float("inf")


def value_of(parameter: pb.InferParameter) -> Any:
    """Return the value of a parameter of an answer."""
    choice = parameter.WhichOneof("parameter_choice")
    assert choice is not None, "parameters of answers have values"
    return getattr(parameter, choice)


def header_of(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Return the JSON of an answer without its outputs."""
    found: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        found["id"] = response.id
    if response.parameters:
        found["parameters"] = {name: value_of(one) for name, one in response.parameters.items()}
    return found


async def json_of(response: pb.ModelInferResponse, binary: BinaryOutputs) -> AsyncIterator[bytes]:
    """Yield the JSON of an answer in parts; outputs that are sent as binary data have their sizes in it."""
    yield to_json(header_of(response))[:-1] + b',"outputs":['
    separator = b""
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        about: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if binary.has(output.name):
            yield separator + to_json({**about, "parameters": {_SIZE: len(raw)}})
        else:
            yield separator + to_json(about)[:-1] + b',"data":['
            async for part in elements_of(output.datatype, raw):
                yield part
            yield b"]}"
        separator = b","
    yield b"]}"


def binary_of(response: pb.ModelInferResponse, binary: BinaryOutputs) -> list[bytes]:
    """Return the binary data that follow the JSON of an answer."""
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return [raw for output, raw in pairs if binary.has(output.name)]
