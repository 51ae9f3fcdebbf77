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
        *(
            pytest.param(
                request(tensor("input", datatype, [1, 1, 2]), raw=[b"\0" * 4]),
                "input",
                f"expected FP32 [n, time, 2], found {datatype!r} [1, 1, 2]",
                id=datatype,
            )
            for datatype in ("FP16", "BF16", "fp32", "BOOL", "BYTES")
        ),
        pytest.param(
            request(tensor("input", "FP32", [2**63 - 1, 2**63 - 1, 2], [0.0])),
            "input",
            f"with n of at most 100, found {2**63 - 1}",
            id="product over 64 bits",
        ),
        pytest.param(
            request(tensor("input", "FP32", [-(2**63), 1, 2], [0.0])),
            "input",
            f"found FP32 [{-(2**63)}, 1, 2]",
            id="least size",
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
            "expected FP32 [n, time, 2] with sizes of at least 1, found FP32 [-1, -1, 2]",
            id="negative",
        ),
        pytest.param(
            request(tensor("input", "FP32", [0, 1, 2])),
            "input",
            "with sizes of at least 1, found FP32 [0, 1, 2]",
            id="zero",
        ),
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


def output(name: str, parameter: str = "", value: Any = 1) -> pb.ModelInferRequest.InferRequestedOutputTensor:
    """A requested output, with a parameter where one is named."""
    asked = pb.ModelInferRequest.InferRequestedOutputTensor(name=name)
    if parameter:
        asked.parameters[parameter].CopyFrom(parameter_of(value))
    return asked


def parameter_of(value: Any) -> pb.InferParameter:
    fields = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return pb.InferParameter(**{fields[type(value)]: value})


@pytest.mark.parametrize("value", [5, "5", 5.0, "5.0"], ids=repr)
def test_size_of_raw_contents_that_is_true_is_accepted(value: Any) -> None:
    sent = tensor("text", "BYTES", [1])
    sent.parameters["binary_data_size"].CopyFrom(parameter_of(value))
    assert read(request(sent, raw=[b"\1\0\0\0a"]), [TEXT]) == {"text": [b"a"]}


@pytest.mark.parametrize(
    ("name", "value", "field", "text"),
    [
        ("binary_data_size", 6, "text.binary_data_size", "expected 5, the bytes of raw contents, found 6"),
        ("binary_data_size", True, "text.binary_data_size", "found True"),
        ("binary_data_sise", 5, "text", "did you mean binary_data_size?"),
        (
            "content_type",
            "base64",
            "text",
            "expected parameters among binary_data_size, found 'content_type'",
        ),
        ("shared_memory_region", "mine", "text", "expected contents in the message, found the parameter"),
        ("shared_memory_offset", 0, "text", "expected contents in the message, found the parameter"),
    ],
)
def test_parameter_of_an_input_that_is_not_honoured_is_refused(
    name: str, value: Any, field: str, text: str
) -> None:
    sent = tensor("text", "BYTES", [1])
    sent.parameters[name].CopyFrom(parameter_of(value))
    found = refused(request(sent, raw=[b"\1\0\0\0a"]), TEXT)
    assert found[0] == field
    assert text in found[1]


def test_size_of_raw_contents_is_refused_beside_typed_ones() -> None:
    sent = tensor("text", "BYTES", [1], [b"a"])
    sent.parameters["binary_data_size"].int64_param = 5
    assert refused(request(sent), TEXT) == (
        "text.binary_data_size",
        "expected none beside typed contents, found 5",
    )


def test_empty_contents_beside_raw_ones_hold_nothing() -> None:
    sent = tensor("text", "BYTES", [1])
    sent.contents.SetInParent()
    assert read(request(sent, raw=[b"\1\0\0\0a"]), [TEXT]) == {"text": [b"a"]}


def test_outputs_are_those_asked_for() -> None:
    asked = pb.ModelInferRequest(outputs=[output("lengths"), output("text")])
    assert chosen(asked, [TEXT, ROWS, LENGTHS]) == [LENGTHS, TEXT]
    assert chosen(pb.ModelInferRequest(), [TEXT, ROWS]) == [TEXT, ROWS]


@pytest.mark.parametrize(
    ("name", "value"),
    [("binary_data", True), ("binary_data", "true"), ("classification", 0), ("classification", "0")],
)
def test_output_that_asks_for_what_is_sent_anyway_is_accepted(name: str, value: Any) -> None:
    assert chosen(pb.ModelInferRequest(outputs=[output("text", name, value)]), [TEXT]) == [TEXT]


@pytest.mark.parametrize(
    ("outputs", "field", "text"),
    [
        pytest.param([output("x")], "outputs", "tensors among text, lengths, found 'x'", id="unknown"),
        pytest.param([output("txt")], "outputs", "found 'txt'; did you mean text?", id="near miss"),
        pytest.param([output("text")] * 2, "outputs", "expected text once, found it twice", id="twice"),
        pytest.param(
            [output("text", "classification", 2)],
            "text.classification",
            "expected none or 0, since the tensor itself is sent, found 2",
            id="classification",
        ),
        pytest.param(
            [output("text", "binary_data", False)],
            "text.binary_data",
            "expected true, since answers are always raw, found false",
            id="not raw",
        ),
        pytest.param([output("text", "binary_data")], "text.binary_data", "found 1", id="no truth value"),
        pytest.param(
            [output("text", "shared_memory_region", "mine")], "text", "contents in the message", id="shared"
        ),
        pytest.param(
            [output("text", "content_type", "np")],
            "text",
            "expected parameters among binary_data, classification, found 'content_type'",
            id="unknown parameter",
        ),
    ],
)
def test_wrong_output_is_refused(
    outputs: list[pb.ModelInferRequest.InferRequestedOutputTensor], field: str, text: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        chosen(pb.ModelInferRequest(outputs=outputs), [TEXT, LENGTHS])
    [violation] = refusal.value.violations
    assert violation.field == field
    assert text in violation.description


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
