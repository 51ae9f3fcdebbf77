"""Requests of the Open Inference Protocol with our own stubs, and the tensors of their answers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.inference import grpc_service_pb2 as pb

_DTYPES = {np.dtype("float32"): "FP32", np.dtype("int32"): "INT32", np.dtype("int64"): "INT64"}
_FIELDS = {
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "BYTES": "bytes_contents",
}
_KINDS = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}


def infer_request(
    model: str,
    tensors: Mapping[str, Any],
    parameters: Mapping[str, bool | int | str | float] | None = None,
    *,
    is_raw: bool = True,
    **fields: Any,
) -> pb.ModelInferRequest:
    """A request; a list of texts or bytes is BYTES, an array is of its own type."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    for name, given in tensors.items():
        if isinstance(given, list):
            elements = [one.encode() if isinstance(one, str) else one for one in given]
            kind, shape = "BYTES", [len(elements)]
            raw = b"".join(len(one).to_bytes(4, "little") + one for one in elements)
        else:
            elements, kind, shape, raw = (
                given.ravel().tolist(),
                _DTYPES[given.dtype],
                list(given.shape),
                given.tobytes(),
            )
        tensor = request.inputs.add(name=name, datatype=kind, shape=shape)
        if is_raw:
            request.raw_input_contents.append(raw)
        else:
            getattr(tensor.contents, _FIELDS[kind]).extend(elements)
    for name, value in (parameters or {}).items():
        setattr(
            request.parameters[name],
            "uint64_param" if type(value) is int and value >= 1 << 63 else _KINDS[type(value)],
            value,
        )
    return request


def numbers(response: pb.ModelInferResponse, name: str) -> NDArray[np.float32]:
    """An output of FP32."""
    output, raw = _output(response, name)
    assert output.datatype == "FP32"
    return np.frombuffer(raw, np.float32).reshape(output.shape)


def texts(response: pb.ModelInferResponse, name: str) -> list[str]:
    """An output of BYTES with one size."""
    output, raw = _output(response, name)
    assert output.datatype == "BYTES"
    found = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        found.append(raw[4:end].decode())
        raw = raw[end:]
    assert [len(found)] == list(output.shape)
    return found


def _output(
    response: pb.ModelInferResponse, name: str
) -> tuple[pb.ModelInferResponse.InferOutputTensor, bytes]:
    assert len(response.outputs) == len(response.raw_output_contents)
    [index] = [index for index, one in enumerate(response.outputs) if one.name == name]
    return response.outputs[index], response.raw_output_contents[index]
