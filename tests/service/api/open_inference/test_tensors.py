"""service.api.open_inference.tensors: what is read is what was sent, and nothing else is."""

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference import tensors
from service.api.open_inference.tensors import Datatype, Tensor, TensorSpec, add, chosen, to_raw
from service.errors import InvalidArgument
from service.tasks import pacing

DTYPES = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64}
FIELDS = {
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "BYTES": "bytes_contents",
}
TEXT = TensorSpec("text", "BYTES", ("n",))
ROWS = TensorSpec("input", "FP32", ("n", "time", 2))
LENGTHS = TensorSpec("lengths", "INT32", ("n",))
MAX_SIZES = {"n": 100, "time": 1000}


def tensor(
    name: str, datatype: str, shape: list[int], elements: list[Any] | None = None
) -> pb.ModelInferRequest.InferInputTensor:
    """With typed contents, where elements are given."""
    found = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if elements is not None:
        getattr(found.contents, FIELDS[datatype]).extend(elements)
    return found


def request(
    *inputs: pb.ModelInferRequest.InferInputTensor, raw: list[bytes] | None = None
) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw)


def read(sent: pb.ModelInferRequest, forms: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """Read a request without an event loop: reading only makes passes of it, on a slow machine some."""
    reading = tensors.read(sent, forms, MAX_SIZES)
    while True:
        try:
            reading.send(None)
        except StopIteration as end:
            found: dict[str, Tensor] = end.value
            return found


def refused(wrong: pb.ModelInferRequest, *forms: TensorSpec) -> tuple[str, str]:
    """Field and text of what a request is refused with."""
    with pytest.raises(InvalidArgument) as refusal:
        read(wrong, forms)
    [violation] = refusal.value.violations
    return violation.field, violation.description


@given(
    st.data(),
    st.sampled_from(["FP32", "INT32", "INT64"]),
    arrays.array_shapes(min_dims=1, max_dims=3, max_side=5),
)
def test_numbers_come_back_raw_and_typed(
    data: st.DataObject, datatype: Datatype, shape: tuple[int, ...]
) -> None:
    array = data.draw(arrays.arrays(DTYPES[datatype], shape))
    form = TensorSpec("x", datatype, tuple(f"size{index}" for index in range(len(shape))))
    raw = read(request(tensor("x", datatype, list(shape)), raw=[to_raw(datatype, array)]), [form])["x"]
    typed = read(request(tensor("x", datatype, list(shape), array.ravel().tolist())), [form])["x"]
    for found in (raw, typed):
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == DTYPES[datatype]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=10))
def test_bytes_come_back_raw_and_typed(elements: list[bytes]) -> None:
    shape = [len(elements)]
    assert (
        read(request(tensor("text", "BYTES", shape), raw=[to_raw("BYTES", elements)]), [TEXT])["text"]
        == elements
    )
    assert read(request(tensor("text", "BYTES", shape, elements)), [TEXT])["text"] == elements


@given(st.binary(max_size=40), st.integers(1, 5))
def test_whatever_raw_bytes_come_they_are_elements_or_refused(raw: bytes, count: int) -> None:
    sent = request(tensor("text", "BYTES", [count]), raw=[raw])
    try:
        found = read(sent, [TEXT])["text"]
    except InvalidArgument:
        assert refused(sent, TEXT)[0] == "text"
    else:
        assert len(found) == count
        assert to_raw("BYTES", found) == raw


def test_raw_numbers_are_little_endian_and_row_major() -> None:
    assert to_raw("INT32", np.array([[1, 2], [3, 4]], ">i4").T) == struct.pack("<4i", 1, 3, 2, 4)
    assert to_raw("BYTES", [b"ab", b""]) == b"\2\0\0\0ab\0\0\0\0"


@pytest.mark.parametrize(
    ("wrong", "field", "text"),
    [
        pytest.param(
            request(tensor("x", "FP32", [1])),
            "inputs",
            "expected tensors among input, lengths, found 'x'",
            id="unknown",
        ),
        pytest.param(request(*[tensor("lengths", "INT32", [1], [1])] * 2), "lengths", "twice", id="twice"),
        pytest.param(
            request(tensor("input", "FP64", [1, 1, 2])),
            "input",
            "FP32 [n, time, 2], found 'FP64' [1, 1, 2]",
            id="datatype",
        ),
        pytest.param(
            request(tensor("input", "", [1, 1, 2])), "input", "found '' [1, 1, 2]", id="no datatype"
        ),
        pytest.param(
            request(tensor("input", "FP32", [1, 1, 3], [0.0] * 3)),
            "input",
            "found FP32 [1, 1, 3]",
            id="fixed size",
        ),
        pytest.param(
            request(tensor("input", "FP32", [2], [0.0] * 2)), "input", "found FP32 [2]", id="too few sizes"
        ),
        pytest.param(request(tensor("input", "FP32", [])), "input", "found FP32 []", id="no sizes"),
        pytest.param(
            request(tensor("input", "FP32", [-1, -1, 2], [0.0] * 2)),
            "input",
            "found FP32 [-1, -1, 2]",
            id="negative",
        ),
        pytest.param(request(tensor("input", "FP32", [0, 1, 2])), "input", "found FP32 [0, 1, 2]", id="zero"),
        pytest.param(
            request(tensor("input", "FP32", [1, 1, 2], [0.0] * 2), tensor("lengths", "INT32", [2], [1, 1])),
            "lengths",
            "(n = 1)",
            id="other n",
        ),
        pytest.param(
            request(tensor("input", "FP32", [1, 1, 2], [0.0] * 3)),
            "input",
            "expected 2 elements, as its shape says, found 3",
            id="many",
        ),
        pytest.param(request(tensor("input", "FP32", [1, 1, 2])), "input", "found 0", id="no contents"),
        pytest.param(
            request(tensor("input", "FP32", [2**40, 2**20, 2], [0.0])),
            "input",
            f"with n of at most 100, found {2**40}",
            id="huge",
        ),
        pytest.param(
            request(tensor("input", "FP32", [100, 1001, 2], [0.0])),
            "input",
            "with time of at most 1000, found 1001",
            id="long",
        ),
        pytest.param(
            request(tensor("input", "FP32", [1, 1, 2]), raw=[b"\0" * 7]),
            "input",
            "expected 8 raw bytes",
            id="raw size",
        ),
        pytest.param(request(tensor("input", "FP32", [1, 1, 2]), raw=[]), "input", "found 0", id="no raw"),
        pytest.param(
            request(tensor("input", "FP32", [1, 1, 2]), raw=[b""] * 2),
            "raw_input_contents",
            "1 inputs, found 2",
            id="raws",
        ),
        pytest.param(
            request(tensor("input", "FP32", [1, 1, 2], [0.0] * 2), raw=[b"\0" * 8]),
            "input",
            "no typed contents beside",
            id="mixed",
        ),
    ],
)
def test_wrong_tensor_is_refused_by_name(wrong: pb.ModelInferRequest, field: str, text: str) -> None:
    found = refused(wrong, ROWS, LENGTHS)
    assert found[0] == field
    assert text in found[1]


@pytest.mark.parametrize(
    "raw",
    [b"\1\0\0", b"\2\0\0\0a", b"\1\0\0\0aa", b"\xff\xff\xff\xffa", b"", b"\0\0\0\0\0\0\0\0"],
    ids=bytes.hex,
)
def test_wrong_lengths_of_bytes_are_refused(raw: bytes) -> None:
    assert refused(request(tensor("text", "BYTES", [1]), raw=[raw]), TEXT)[0] == "text"


# Messages of many parts: each is counted before it is read.


def inputs_of(count: int) -> pb.ModelInferRequest:
    return request(*[tensor("text", "BYTES", [1])] * count)


@pytest.mark.parametrize(
    ("wrong", "field", "text"),
    [
        pytest.param(inputs_of(3), "inputs", "expected at most 2 tensors, found 3", id="tensors"),
        pytest.param(
            request(tensor("text", "BYTES", [1] * 10_000)), "text", "1, 1, ...]", id="sizes of a tensor"
        ),
        pytest.param(
            request(tensor("text", "BYTES", [2**62, 2**62, 2**62])), "text", "found BYTES", id="huge sizes"
        ),
        pytest.param(
            request(tensor("text", "BYTES", [101], [b""] * 101)),
            "text",
            "expected BYTES [n] with n of at most 100, found 101",
            id="elements",
        ),
        pytest.param(
            request(tensor("text", "BYTES", [2]), raw=[b"\0" * 40_000]),
            "text",
            "expected 2 elements, as its shape says, found more",
            id="raw elements",
        ),
        pytest.param(
            request(tensor("text", "BYTES", [2], [b""] * 10_000)), "text", "found 10000", id="typed elements"
        ),
    ],
)
def test_too_many_parts_are_refused(wrong: pb.ModelInferRequest, field: str, text: str) -> None:
    found = refused(wrong, TEXT, LENGTHS)
    assert found[0] == field
    assert text in found[1]
    assert len(found[1]) < 300


def test_too_many_parameters_of_a_tensor_are_refused() -> None:
    wrong = tensor("text", "BYTES", [1], [b"a"])
    for index in range(33):
        wrong.parameters[str(index)].bool_param = True
    assert refused(request(wrong), TEXT) == ("text", "expected at most 32 parameters, found 33")


def test_more_outputs_than_there_are_are_refused() -> None:
    asked = pb.ModelInferRequest(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="text")] * 3)
    with pytest.raises(InvalidArgument, match="outputs: expected at most 2 tensors, found 3"):
        chosen(asked, [TEXT, LENGTHS])


async def test_many_typed_elements_are_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_SLICE_ELEMENTS", 10)
    monkeypatch.setattr(pacing, "SLICE_S", 0.0)
    passes: list[int] = []
    asyncio.get_running_loop().call_soon(passes.append, 1)
    sent = request(tensor("input", "FP32", [3, 4, 2], list(range(24))))
    found = (await tensors.read(sent, [ROWS], MAX_SIZES))["input"]
    np.testing.assert_array_equal(found, np.arange(24).reshape(3, 4, 2))
    assert passes


def test_elements_in_another_field_are_refused() -> None:
    wrong = tensor("input", "FP32", [1, 1, 2])
    wrong.contents.fp64_contents.extend([1.0, 2.0])
    assert refused(request(wrong), ROWS) == (
        "input",
        "expected FP32 elements in fp32_contents, found some in fp64_contents",
    )


def test_shared_memory_is_refused() -> None:
    wrong = tensor("text", "BYTES", [1])
    wrong.parameters["shared_memory_region"].string_param = "mine"
    assert refused(request(wrong), TEXT)[0] == "text"


def test_outputs_are_those_asked_for() -> None:
    asked = pb.ModelInferRequest(
        outputs=[
            pb.ModelInferRequest.InferRequestedOutputTensor(name=name)
            for name in ("lengths", "text", "lengths")
        ]
    )
    assert chosen(asked, [TEXT, ROWS, LENGTHS]) == [LENGTHS, TEXT]
    assert chosen(pb.ModelInferRequest(), [TEXT, ROWS]) == [TEXT, ROWS]


@pytest.mark.parametrize(
    ("name", "parameter"), [("x", ""), ("text", "classification"), ("text", "shared_memory_region")], ids=str
)
def test_wrong_output_is_refused(name: str, parameter: str) -> None:
    asked = pb.ModelInferRequest(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name)])
    if parameter:
        asked.outputs[0].parameters[parameter].int64_param = 1
    with pytest.raises(InvalidArgument) as refusal:
        chosen(asked, [TEXT])
    assert refusal.value.violations[0].field == ("text" if parameter else "outputs")


def test_response_carries_raw_contents_alone() -> None:
    response = pb.ModelInferResponse()
    add(response, TEXT, [b"a", b"bc"])
    add(response, ROWS, np.ones((1, 3, 2)))
    assert [
        (one.name, one.datatype, list(one.shape), one.HasField("contents")) for one in response.outputs
    ] == [
        ("text", "BYTES", [2], False),
        ("input", "FP32", [1, 3, 2], False),
    ]
    assert [len(raw) for raw in response.raw_output_contents] == [11, 24]
