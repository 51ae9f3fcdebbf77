"""Tensors of the Open Inference Protocol: from a request's contents, raw or typed, to arrays, and from arrays
to raw contents.
"""

import math
import reprlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seqserve.inference import grpc_service_pb2 as pb
from service.errors import InvalidArgument

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
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = 8


@dataclass(frozen=True, slots=True)
class Form:
    """What a tensor has to be.

    Attributes:
        name: of the tensor.
        datatype: of its elements.
        shape: its sizes, at least one, each from 1; a name stands for a size that the request chooses, the
            same one wherever that name stands.
    """

    name: str
    datatype: Datatype
    shape: tuple[int | str, ...]

    @property
    def sizes(self) -> list[int]:
        """The shape as metadata have it: -1 for what is free."""
        return [-1 if isinstance(size, str) else size for size in self.shape]

    def __str__(self) -> str:
        return f"{self.datatype} [{', '.join(map(str, self.shape))}]"


def shown(found: object) -> str:
    """What a caller has sent, for an error's text: short, for a status has to fit into metadata."""
    return _short.repr(found)


def read(request: pb.ModelInferRequest, forms: Sequence[Form]) -> dict[str, Tensor]:
    """The tensors of a request by name.

    Args:
        request: with contents of one kind, raw or typed.
        forms: every tensor that may come.

    Raises:
        InvalidArgument: a tensor is unknown, comes twice, or is not what its form says; raw and typed
            contents are mixed.
    """
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidArgument(
            "raw_input_contents",
            f"expected one entry for each of the {len(request.inputs)} inputs, found {len(raws)}",
        )
    known = {form.name: form for form in forms}
    sizes: dict[str, int] = {}
    tensors: dict[str, Tensor] = {}
    for index, given in enumerate(request.inputs):
        form = known.get(given.name)
        if form is None:
            raise InvalidArgument(
                "inputs", f"expected tensors among {', '.join(known)}, found {shown(given.name)}"
            )
        if form.name in tensors:
            raise InvalidArgument(form.name, "expected the tensor once, found it twice")
        _check_form(form, given, sizes)
        if raws:
            if given.HasField("contents"):
                raise InvalidArgument(
                    form.name, "expected no typed contents beside raw_input_contents, found some"
                )
            tensors[form.name] = _from_raw(form, given.shape, raws[index])
        else:
            tensors[form.name] = _from_contents(form, given.shape, given.contents)
    return tensors


def chosen(request: pb.ModelInferRequest, forms: Sequence[Form]) -> list[Form]:
    """The outputs that a request asks for, in its order.

    Raises:
        InvalidArgument: one is unknown, or asked for in a way that is not served.
    """
    if not request.outputs:
        return list(forms)
    known = {form.name: form for form in forms}
    found: dict[str, Form] = {}
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


def add(response: pb.ModelInferResponse, form: Form, tensor: Tensor) -> None:
    """Put an output into a response. A list is one row of elements; an array keeps its shape."""
    shape = [len(tensor)] if isinstance(tensor, list) else tensor.shape
    response.outputs.add(name=form.name, datatype=form.datatype, shape=shape)
    response.raw_output_contents.append(to_raw(form.datatype, tensor))


def to_raw(datatype: Datatype, tensor: Tensor) -> bytes:
    """The elements as they are on the wire: little-endian, row-major; of BYTES each after its length."""
    if isinstance(tensor, list):
        return b"".join(part for element in tensor for part in (_LENGTH.pack(len(element)), element))
    return tensor.astype(_DTYPES[datatype], copy=False).tobytes()


def _check_form(form: Form, given: pb.ModelInferRequest.InferInputTensor, sizes: dict[str, int]) -> None:
    """Compare datatype and shape; sizes that are free are taken from the first tensor that has them."""
    _check_parameters(form.name, given.parameters)
    shape = list(given.shape)
    before = dict(sizes)
    if given.datatype != form.datatype:
        raise InvalidArgument(form.name, f"expected {form}, found {shown(given.datatype)} {shown(shape)}")
    fits = len(shape) == len(form.shape) and min(shape) >= 1
    for expected, found in zip(form.shape, shape, strict=False):
        if isinstance(expected, str):
            expected = sizes.setdefault(expected, found)  # noqa: PLW2901 - what is free is no longer so
        fits = fits and expected == found
    if not fits:
        bound = ", ".join(f"{name} = {size}" for name, size in before.items() if name in form.shape)
        raise InvalidArgument(
            form.name,
            f"expected {form}{f' ({bound})' if bound else ''}, found {given.datatype} {shown(shape)}",
        )


def _check_parameters(name: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    if wrong := next((one for one in parameters if one.startswith(_SHARED_MEMORY)), None):
        raise InvalidArgument(name, f"expected contents in the message, found the parameter {shown(wrong)}")


def _from_raw(form: Form, shape: Sequence[int], raw: bytes) -> Tensor:
    count = math.prod(shape)
    if form.datatype == "BYTES":
        return _split(form, count, raw)
    dtype = _DTYPES[form.datatype]
    if len(raw) != count * dtype.itemsize:
        raise InvalidArgument(
            form.name,
            f"expected {count * dtype.itemsize} raw bytes for {form.datatype} {list(shape)}, found {len(raw)}",
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _split(form: Form, count: int, raw: bytes) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        if position + _LENGTH.size > len(raw):
            raise InvalidArgument(
                form.name,
                f"expected a length of {_LENGTH.size} bytes at raw byte {position}, found {len(raw) - position}",
            )
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if position + length > len(raw):
            raise InvalidArgument(
                form.name,
                f"expected an element of {length} bytes at raw byte {position}, found {len(raw) - position}",
            )
        elements.append(raw[position : position + length])
        position += length
    _check_count(form, count, len(elements))
    return elements


def _from_contents(form: Form, shape: Sequence[int], contents: pb.InferTensorContents) -> Tensor:
    field = _CONTENTS[form.datatype]
    for found, _ in contents.ListFields():
        if found.name != field:
            raise InvalidArgument(
                form.name, f"expected {form.datatype} elements in {field}, found some in {found.name}"
            )
    elements = getattr(contents, field)
    count = math.prod(shape)
    _check_count(form, count, len(elements))
    if form.datatype == "BYTES":
        return list(elements)
    return np.array(elements, _DTYPES[form.datatype]).reshape(shape)


def _check_count(form: Form, expected: int, found: int) -> None:
    if found != expected:
        raise InvalidArgument(form.name, f"expected {expected} elements, as its shape says, found {found}")
