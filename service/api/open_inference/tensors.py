"""Conversion of the Open Inference Protocol's tensors from raw or typed contents, and to raw contents."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seqserve.inference import grpc_service_pb2 as pb
from service.errors import InvalidArgument, shown
from service.tasks.limits import check_count
from service.tasks.pacing import Pace

Datatype = Literal["BYTES", "FP32", "INT32", "INT64"]
# Elements of BYTES are a list, in row-major order; anything else is an array of its tensor's shape.
Tensor = NDArray[Any] | list[bytes]

_DTYPES: Final[dict[Datatype, np.dtype[Any]]] = {
    "FP32": np.dtype("<f4"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}
_CONTENTS: Final[dict[Datatype, str]] = {
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
}
_LENGTH = struct.Struct("<I")  # before each element of BYTES
_SHARED_MEMORY = "shared_memory"
MAX_PARAMETERS = 32  # of a request, and of each tensor: more than any client sends
_SLICE_ELEMENTS = 10_000
_MAX_SHOWN_SIZES = 10


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and shape that a tensor must have.

    Attributes:
        name: name of the tensor.
        datatype: datatype of its elements.
        shape: one or more sizes of at least 1; a string names a size that the request chooses, equal in all
            tensors that have it.
    """

    name: str
    datatype: Datatype
    shape: tuple[int | str, ...]

    @property
    def sizes(self) -> list[int]:
        """Shape in the metadata's form, with -1 for sizes that the request chooses."""
        return [-1 if isinstance(size, str) else size for size in self.shape]

    def __str__(self) -> str:
        return f"{self.datatype} [{', '.join(map(str, self.shape))}]"


async def read(
    request: pb.ModelInferRequest, specs: Sequence[TensorSpec], max_sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return the input tensors of a request by name.

    Everything is counted before an element is touched. Many typed elements are read in slices, between which
    other calls run.

    Args:
        request: request with either raw or typed contents.
        specs: specs of all inputs.
        max_sizes: maximum of each size that the request chooses, by its name in the specs.

    Raises:
        InvalidArgument: a tensor is unknown, occurs twice, does not match its spec or is too large, or raw
            and typed contents are mixed.
    """
    check_count("inputs", "tensors", len(request.inputs), len(specs), minimum=0)
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidArgument(
            "raw_input_contents",
            f"expected one entry for each of the {len(request.inputs)} inputs, found {len(raws)}",
        )
    known = {spec.name: spec for spec in specs}
    sizes: dict[str, int] = {}
    tensors: dict[str, Tensor] = {}
    for index, given in enumerate(request.inputs):
        spec = known.get(given.name)
        if spec is None:
            raise InvalidArgument(
                "inputs", f"expected tensors among {', '.join(known)}, found {shown(given.name)}"
            )
        if spec.name in tensors:
            raise InvalidArgument(spec.name, "expected the tensor once, found it twice")
        _check_spec(spec, given, sizes)
        _check_sizes(spec, sizes, max_sizes)
        tensors[spec.name] = await _elements_of(spec, given, raws[index] if raws else None)
    return tensors


def chosen(request: pb.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the specs of the requested outputs, in the request's order; all where it names none.

    Raises:
        InvalidArgument: there are more outputs than the model has, one is unknown, or one has a parameter
            that is not supported.
    """
    if not request.outputs:
        return list(specs)
    check_count("outputs", "tensors", len(request.outputs), len(specs))
    known = {spec.name: spec for spec in specs}
    found: dict[str, TensorSpec] = {}
    for wanted in request.outputs:
        if wanted.name not in known:
            raise InvalidArgument(
                "outputs", f"expected tensors among {', '.join(known)}, found {shown(wanted.name)}"
            )
        _check_parameters(wanted.name, wanted.parameters)
        if "classification" in wanted.parameters:
            raise InvalidArgument(
                wanted.name, "expected to give the tensor itself, found the parameter classification"
            )
        found[wanted.name] = known[wanted.name]
    return list(found.values())


def add(response: pb.ModelInferResponse, spec: TensorSpec, tensor: Tensor) -> None:
    """Add an output to a response; a list has shape (n,), an array its own."""
    shape = [len(tensor)] if isinstance(tensor, list) else tensor.shape
    response.outputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    response.raw_output_contents.append(to_raw(spec.datatype, tensor))


def to_raw(datatype: Datatype, tensor: Tensor) -> bytes:
    """Return the raw contents: little-endian, row-major; each element of BYTES follows its length."""
    if isinstance(tensor, list):
        return b"".join(part for element in tensor for part in (_LENGTH.pack(len(element)), element))
    return tensor.astype(_DTYPES[datatype], copy=False).tobytes()


def _check_spec(
    spec: TensorSpec, given: pb.ModelInferRequest.InferInputTensor, sizes: dict[str, int]
) -> None:
    """Check datatype and shape, and enter sizes that the request chooses into `sizes`."""
    _check_parameters(spec.name, given.parameters)
    shape = given.shape[:_MAX_SHOWN_SIZES]  # more than any spec has, however many there are
    before = dict(sizes)
    if given.datatype != spec.datatype:
        raise InvalidArgument(spec.name, f"expected {spec}, found {shown(given.datatype)} {shown(shape)}")
    fits = len(shape) == len(spec.shape) and min(shape) >= 1
    for expected, found in zip(spec.shape, shape, strict=False):
        if isinstance(expected, str):
            expected = sizes.setdefault(expected, found)  # noqa: PLW2901 - the first tensor sets it
        fits = fits and expected == found
    if not fits:
        set_before = ", ".join(f"{name} = {size}" for name, size in before.items() if name in spec.shape)
        raise InvalidArgument(
            spec.name,
            f"expected {spec}{f' ({set_before})' if set_before else ''}, "
            f"found {given.datatype} {shown(shape)}",
        )


def _check_sizes(spec: TensorSpec, sizes: Mapping[str, int], max_sizes: Mapping[str, int]) -> None:
    for name, maximum in max_sizes.items():
        if sizes.get(name, 0) > maximum:
            raise InvalidArgument(
                spec.name, f"expected {spec} with {name} of at most {maximum}, found {sizes[name]}"
            )


def _check_parameters(name: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    check_count(name, "parameters", len(parameters), MAX_PARAMETERS, minimum=0)
    if wrong := next((one for one in parameters if one.startswith(_SHARED_MEMORY)), None):
        raise InvalidArgument(name, f"expected contents in the message, found the parameter {shown(wrong)}")


async def _elements_of(
    spec: TensorSpec, given: pb.ModelInferRequest.InferInputTensor, raw: bytes | None
) -> Tensor:
    if raw is None:
        return await _from_contents(spec, given.shape, given.contents)
    if given.HasField("contents"):
        raise InvalidArgument(spec.name, "expected no typed contents beside raw_input_contents, found some")
    return _from_raw(spec, given.shape, raw)


def _from_raw(spec: TensorSpec, shape: Sequence[int], raw: bytes) -> Tensor:
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        return _split(spec, count, raw)
    dtype = _DTYPES[spec.datatype]
    if len(raw) != count * dtype.itemsize:
        raise InvalidArgument(
            spec.name,
            f"expected {count * dtype.itemsize} raw bytes for {spec.datatype} {list(shape)}, "
            f"found {len(raw)}",
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _split(spec: TensorSpec, count: int, raw: bytes) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(elements) == count:
            raise InvalidArgument(spec.name, f"expected {count} elements, as its shape says, found more")
        if position + _LENGTH.size > len(raw):
            raise InvalidArgument(
                spec.name,
                f"expected a length of {_LENGTH.size} bytes at raw byte {position}, "
                f"found {len(raw) - position}",
            )
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if position + length > len(raw):
            raise InvalidArgument(
                spec.name,
                f"expected an element of {length} bytes at raw byte {position}, found {len(raw) - position}",
            )
        elements.append(raw[position : position + length])
        position += length
    _check_count(spec, count, len(elements))
    return elements


async def _from_contents(spec: TensorSpec, shape: Sequence[int], contents: pb.InferTensorContents) -> Tensor:
    field = _CONTENTS[spec.datatype]
    for found, _ in contents.ListFields():
        if found.name != field:
            raise InvalidArgument(
                spec.name, f"expected {spec.datatype} elements in {field}, found some in {found.name}"
            )
    elements = getattr(contents, field)
    count = math.prod(shape)
    _check_count(spec, count, len(elements))
    if spec.datatype == "BYTES":
        return list(elements)
    array = np.empty(count, _DTYPES[spec.datatype])
    pace = Pace()
    for start in range(0, count, _SLICE_ELEMENTS):
        array[start : start + _SLICE_ELEMENTS] = elements[start : start + _SLICE_ELEMENTS]
        await pace.rest()
    return array.reshape(shape)


def _check_count(spec: TensorSpec, expected: int, found: int) -> None:
    if found != expected:
        raise InvalidArgument(spec.name, f"expected {expected} elements, as its shape says, found {found}")
