"""service.api.rest.json_values."""

import asyncio
import json
import time
from itertools import pairwise
from typing import Any

import pytest

from service.api.rest import json_values
from service.api.rest.json_values import MAX_PARTS, MAX_VALUES, JsonBodies, objects_in, text_in
from service.errors import InvalidArgument


async def parse(body: bytes) -> dict[str, Any]:
    return await JsonBodies().parse(body)


async def test_object_is_parsed() -> None:
    content = {"a": [1, 2.5, "x", None, True, {"b": 2**63}]}
    assert await parse(json.dumps(content).encode()) == content


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"a": 1} x',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"\xff",
        b"{'a': 1}",
    ],
)
async def test_other_bodies_are_refused_in_a_sentence(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^body: expected a JSON object, "):
        await parse(body)


async def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"^body: "):
        await parse(b'{"a": "\\ud800"}')


async def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"^body: "):
        await parse(b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}")


async def test_number_of_values_is_bounded() -> None:
    def body(count: int) -> bytes:
        return b'{"a": [' + b",".join([b"1"] * count) + b"]}"

    assert len((await parse(body(MAX_VALUES)))["a"]) == MAX_VALUES
    with pytest.raises(InvalidArgument, match=f"at most {MAX_VALUES} values, found more; send the elements"):
        await parse(body(MAX_VALUES + 2))


@pytest.mark.parametrize("part", [b"[]", b"{}", b'""'])
async def test_number_of_lists_objects_and_texts_is_bounded(part: bytes) -> None:
    with pytest.raises(InvalidArgument, match=f"at most {MAX_PARTS} lists, objects and texts"):
        await parse(b'{"a": [' + b",".join([part] * (MAX_PARTS + 1)) + b"]}")


async def test_large_bodies_are_parsed_one_at_a_time_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[float, float]] = []

    def parsed(_: bytes) -> dict[str, Any]:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.02:
            pass
        spans.append((began, time.perf_counter()))
        return {}

    monkeypatch.setattr(json_values, "_parsed", parsed)
    bodies, body = JsonBodies(), b" " * 10_000
    await asyncio.gather(*(bodies.parse(body) for _ in range(3)))
    for before, after in pairwise(spans):
        assert after[0] - before[1] >= before[1] - before[0]


def test_values_of_other_types_are_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match=r"^inputs\[0\].name: expected text, found a number"):
        text_in("inputs[0].", {"name": 1}, "name")
    with pytest.raises(InvalidArgument, match=r"^inputs\[1\]: expected an object, found null"):
        objects_in("", {"inputs": [{}, None]}, "inputs")
    assert text_in("", {"id": None}, "id") == ""
    assert objects_in("", {}, "inputs") == []
