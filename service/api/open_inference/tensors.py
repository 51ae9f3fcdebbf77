"""Conversion of the Open Inference Protocol's tensors from raw or typed contents, and to raw contents."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.names import unknown_name
from service.api.open_inference.parameters import MAX_PARAMETERS, Parameters
from service.errors import InvalidArgument, shown
from service.tasks.limits import check_count
from service.tasks.pacing import Pace

Datatype = Literal["BYTES", "FP32", "INT32", "INT64"]
# Elements of BYTES are a list, in row-major order; anything else is an array of its tensor's shape.
Tensor = NDArray[Any] | list[bytes]

DTYPES: Final[dict[Datatype, np.dtype[Any]]] = {
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
# Parameters of an input and of an output that say how its elements are sent, and what is to be sent.
_RAW_SIZE = "binary_data_size"
_IS_RAW, _CLASSES = "binary_data", "classification"
_SLICE_ELEMENTS = 10_000
_MAX_SHOWN_SIZES = 10


@dataclass(frozen=True, slots=True)
class Encoded:
    """Output of BYTES whose elements have been written already.

    Attributes:
        shape: shape of the tensor.
        raw: raw contents.
    """

    shape: tuple[int, ...]
    raw: bytes


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
            raise unknown_name("inputs", "tensors", given.name, list(known))
        if spec.name in tensors:
            raise InvalidArgument(spec.name, "expected the tensor once, found it twice")
        raw = raws[index] if raws else None
        if given.parameters:
            _check_input_parameters(spec.name, given.parameters, raw)
        _check_spec(spec, given, sizes)
        _check_sizes(spec, sizes, max_sizes)
        tensors[spec.name] = await _elements_of(spec, given, raw)
    return tensors


def chosen(request: pb.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the specs of the requested outputs, in the request's order; all where it names none.

    Raises:
        InvalidArgument: there are more outputs than the model has, one is unknown or occurs twice, or one
            has a parameter that is not supported.
    """
    if not request.outputs:
        return list(specs)
    check_count("outputs", "tensors", len(request.outputs), len(specs))
    known = {spec.name: spec for spec in specs}
    found: dict[str, TensorSpec] = {}
    for wanted in request.outputs:
        if wanted.name not in known:
            raise unknown_name("outputs", "tensors", wanted.name, list(known))
        if wanted.name in found:
            raise InvalidArgument("outputs", f"expected {wanted.name} once, found it twice")
        if wanted.parameters:
            _check_output_parameters(wanted.name, wanted.parameters)
        found[wanted.name] = known[wanted.name]
    return list(found.values())


def add(response: pb.ModelInferResponse, spec: TensorSpec, tensor: Tensor | Encoded) -> None:
    """Add an output to a response; a list has shape (n,), anything else its own."""
    shape = [len(tensor)] if isinstance(tensor, list) else tensor.shape
    response.outputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    raw = tensor.raw if isinstance(tensor, Encoded) else to_raw(spec.datatype, tensor)
    response.raw_output_contents.append(raw)


def to_raw(datatype: Datatype, tensor: Tensor) -> bytes:
    """Return the raw contents: little-endian, row-major; each element of BYTES follows its length."""
    if isinstance(tensor, list):
        return b"".join(part for element in tensor for part in (_LENGTH.pack(len(element)), element))
    return tensor.astype(DTYPES[datatype], copy=False).tobytes()


def _check_spec(
    spec: TensorSpec, given: pb.ModelInferRequest.InferInputTensor, sizes: dict[str, int]
) -> None:
    """Check datatype and shape, and enter sizes that the request chooses into `sizes`."""
    shape = given.shape[:_MAX_SHOWN_SIZES]  # more than any spec has, however many there are
    before = dict(sizes)
    if given.datatype != spec.datatype:
        raise InvalidArgument(spec.name, f"expected {spec}, found {shown(given.datatype)} {shown(shape)}")
    if min(shape, default=1) < 1:
        raise InvalidArgument(
            spec.name,
            f"expected {spec} with sizes of at least 1, found {given.datatype} {shown(shape)}",
        )
    fits = len(shape) == len(spec.shape)
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


def _check_input_parameters(name: str, given: Mapping[str, pb.InferParameter], raw: bytes | None) -> None:
    """Refuse the parameters of an input, except for the size of its raw contents, which must be true."""
    parameters = _parameters_of(name, given, (_RAW_SIZE,))
    size = parameters.whole(_RAW_SIZE, 64)
    if size is not None and (raw is None or len(raw) != size):
        expected = "none beside typed contents" if raw is None else f"{len(raw)}, the bytes of raw contents"
        raise InvalidArgument(parameters.field(_RAW_SIZE), f"expected {expected}, found {size}")


def _check_output_parameters(name: str, given: Mapping[str, pb.InferParameter]) -> None:
    """Refuse the parameters of an output, except where they ask for what is sent anyway."""
    parameters = _parameters_of(name, given, (_IS_RAW, _CLASSES))
    if parameters.truth(_IS_RAW) is False:
        raise InvalidArgument(
            parameters.field(_IS_RAW), "expected true, since answers are always raw, found false"
        )
    if classes := parameters.whole(_CLASSES, 64):
        raise InvalidArgument(
            parameters.field(_CLASSES),
            f"expected none or 0, since the tensor itself is sent, found {classes}",
        )


def _parameters_of(name: str, given: Mapping[str, pb.InferParameter], known: Sequence[str]) -> Parameters:
    check_count(name, "parameters", len(given), MAX_PARAMETERS, minimum=0)
    if wrong := next((one for one in given if one.startswith(_SHARED_MEMORY)), None):
        raise InvalidArgument(name, f"expected contents in the message, found the parameter {shown(wrong)}")
    return Parameters(given, known, name)


async def _elements_of(
    spec: TensorSpec, given: pb.ModelInferRequest.InferInputTensor, raw: bytes | None
) -> Tensor:
    if raw is None:
        return await _from_contents(spec, given.shape, given.contents)
    if given.contents.ListFields():  # empty contents beside raw ones, as some clients send, hold nothing
        raise InvalidArgument(spec.name, "expected no typed contents beside raw_input_contents, found some")
    return _from_raw(spec, given.shape, raw)


def _from_raw(spec: TensorSpec, shape: Sequence[int], raw: bytes) -> Tensor:
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        return _split(spec, count, raw)
    dtype = DTYPES[spec.datatype]
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
    array = np.empty(count, DTYPES[spec.datatype])
    pace = Pace()
    for start in range(0, count, _SLICE_ELEMENTS):
        array[start : start + _SLICE_ELEMENTS] = elements[start : start + _SLICE_ELEMENTS]
        await pace.rest()
    return array.reshape(shape)


def _check_count(spec: TensorSpec, expected: int, found: int) -> None:
    if found != expected:
        raise InvalidArgument(spec.name, f"expected {expected} elements, as its shape says, found {found}")
