"""service.api.rest.json_tensors."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.api.open_inference.tensors import DTYPES, to_raw
from service.api.rest.json_tensors import elements_of, raw_of
from service.errors import InvalidArgument

KINDS = {
    "FP32": (np.float32, st.floats(allow_nan=False, allow_infinity=False, width=32)),
    "INT32": (np.int32, st.integers(-(2**31), 2**31 - 1)),
    "INT64": (np.int64, st.integers(-(2**63), 2**63 - 1)),
}


async def read_back(datatype: str, raw: bytes) -> Any:
    return json.loads(b"[" + b"".join([part async for part in elements_of(datatype, raw)]) + b"]")


@pytest.mark.parametrize("datatype", KINDS)
@given(data=st.data())
async def test_elements_nested_or_flat_become_raw_and_come_back(datatype: Any, data: st.DataObject) -> None:
    dtype, elements = KINDS[datatype]
    array = data.draw(arrays(dtype, array_shapes(max_dims=3, max_side=4), elements=elements))
    nested = json.loads(json.dumps(array.tolist()))
    flat = array.ravel().tolist()
    raw = array.astype(DTYPES[datatype]).tobytes()
    assert raw_of("x", datatype, array.shape, nested) == raw
    assert raw_of("x", datatype, array.shape, flat) == raw
    assert await read_back(datatype, raw) == flat


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=5))
async def test_texts_become_raw_and_come_back(texts: list[str]) -> None:
    raw = to_raw("BYTES", [one.encode() for one in texts])
    assert raw_of("x", "BYTES", [len(texts)], texts) == raw
    assert await read_back("BYTES", raw) == texts


async def test_long_answers_come_in_parts() -> None:
    array = np.arange(2500, dtype="<i8")
    parts = [part async for part in elements_of("INT64", array.tobytes())]
    assert len(parts) == 3
    assert json.loads(b"[" + b"".join(parts) + b"]") == array.tolist()
    raw = to_raw("BYTES", [b"x" * 50_000] * 4)
    assert len([part async for part in elements_of("BYTES", raw)]) == 2


async def test_number_that_is_not_finite_is_null() -> None:
    raw = np.array([1, math.nan, math.inf], "<f4").tobytes()
    assert await read_back("FP32", raw) == [1.0, None, None]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "expected"),
    [
        ("FP32", [2], [1, "a"], "x: expected numbers for FP32, found text among the elements"),
        ("FP32", [2], [1, True], "x: expected numbers for FP32, found a truth value among the elements"),
        ("FP32", [2], [1, None], "x: expected numbers for FP32, found null among the elements"),
        ("FP32", [1], [1e39], "x: expected numbers that FP32 holds, found a larger one"),
        ("FP32", [1], [10**400], "x: expected numbers that FP32 holds, found a larger one"),
        ("INT32", [1], [2**31], "x: expected numbers that INT32 holds, found a larger one"),
        ("INT64", [1], [2**63], "x: expected numbers that INT64 holds, found a larger one"),
        ("INT64", [1], [1.0], "x: expected whole numbers for INT64, found 1.0 among the elements"),
        ("BYTES", [1], [1], "x: expected text for BYTES, found a number among the elements"),
        ("BYTES", [1], "abc", "x.data: expected a list of elements, found text"),
        ("BYTES", [1], None, "x.data: expected a list of elements, found null"),
        ("INT64", [2], [1], "x: expected 2 elements, as its shape says, found 1"),
        ("INT64", [1, 2], [[1], [2]], "x.data: expected one flat list, or lists nested as the shape"),
        ("INT64", [2, 2], [[1, 2], [3]], "x.data: expected one flat list, or lists nested as the shape"),
        ("INT64", [2, 2], [[1, 2], 3], "x.data: expected one flat list, or lists nested as the shape"),
        ("INT64", [1], [[1]], "x: expected whole numbers for INT64, found a list among the elements"),
    ],
)
def test_other_elements_are_refused(datatype: str, shape: list[int], data: Any, expected: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        raw_of("x", datatype, shape, data)
    assert str(refusal.value).startswith(expected)


@pytest.mark.parametrize(
    ("datatype", "shape"), [("FP64", [1]), ("INT64", [0]), ("INT64", [-1]), ("INT64", [])]
)
def test_what_no_tensor_has_is_left_to_the_check_of_the_spec(datatype: str, shape: list[int]) -> None:
    assert raw_of("x", datatype, shape, [1]) == b""
