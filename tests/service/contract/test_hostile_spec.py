"""service.contract: a model.json that was made to cost memory and time, and files that nobody refers to."""

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.contract import files, spec
from tests.service.builders import GRAPH, spec_of

MANY = 500_000
ZEROS = "0," * MANY + "0"
Bomb = Callable[[dict[str, Any]], str]


@pytest.fixture
def version(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models / "prices" / "1", tmp_path / "prices" / "1")


def put(key: str, value: str) -> Bomb:
    """Return a bomb with raw text in place of a field."""

    def make(described: dict[str, Any]) -> str:
        return json.dumps(described | {key: "HERE"}).replace('"HERE"', value)

    return make


BOMBS: dict[str, tuple[Bomb, str]] = {
    "numbers for golden examples": (put("golden", f"[{ZEROS}]"), "golden[0]: expected an object"),
    "empty golden examples": (
        put("golden", "[" + "{}," * MANY + "{}]"),
        "golden[0].steps: expected a value, found no such field",
    ),
    "words for steps": (
        put("golden", '[{"steps": [' + '"a",' * MANY + '"a"], "outputs": []}]'),
        "golden[0].steps[0]: expected a whole number",
    ),
    "numbers for rows": (
        put("golden", '[{"steps": [0], "outputs": [' + ZEROS + "]}]"),
        "golden[0].outputs[0]: expected a list",
    ),
    "numbers for state": (put("state", f"[{ZEROS}]"), "state[0]: expected an object"),
    "unknown keys": (
        put("contract", "1," + ",".join(f'"key{index}":0' for index in range(MANY // 4))),
        "expected at most 4096 keys in all, found more",
    ),
    "words for metrics": (
        put("metrics", "{" + ",".join(f'"{index}":"a"' for index in range(MANY // 4)) + "}"),
        "expected at most 4096 keys in all, found more",
    ),
    "text beyond the bound": (
        put("provenance", '"' + "x" * spec.MAX_SPEC_BYTES + '"'),
        "expected at most 4194304 characters",
    ),
    "digits without end": (put("hidden", "1" * 1_000_000), "expected JSON, found"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_one_short_error(models: Path, name: str) -> None:
    """Each of a million wrong values was an error of its own: 5.5 GB and 27 s for 8 MB of zeros."""
    bomb, expected = BOMBS[name]
    text = bomb(json.loads((models / "prices" / "1" / spec.SPEC_FILE).read_text()))
    tracemalloc.start()
    try:
        with pytest.raises(spec.SpecError) as refusal:
            spec.parse_spec(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert expected in str(refusal.value)
    assert len(str(refusal.value)) < 3000
    assert peak < 100 << 20


def test_wrong_names_make_no_long_error(models: Path) -> None:
    described = json.loads((models / "prices" / "1" / spec.SPEC_FILE).read_text())
    described["forecasting"]["target"] = "x" * 1_000_000
    described["y" * 1_000_000] = 1
    with pytest.raises(spec.SpecError) as refusal:
        spec.parse_spec(json.dumps(described))
    assert len(str(refusal.value)) < 3000


def test_file_that_is_not_referred_to_is_hashed_in_pieces(version: Path) -> None:
    data = bytes(64 << 20)
    (version / "extra").write_bytes(data)
    spec_of(version, files=spec_of(version)["files"] | {"extra": hashlib.sha256(data).hexdigest()})
    del data
    tracemalloc.start()
    try:
        _, _, found = spec.read_version(version)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(found) == {GRAPH}
    assert peak < 16 << 20
    (version / "extra").write_bytes(b"other")
    with pytest.raises(spec.SpecError, match="sha256 of extra"):
        spec.read_version(version)


def test_read_takes_as_much_memory_as_the_file_has(version: Path) -> None:
    tracemalloc.start()
    try:
        files.read_inside(version / GRAPH, version.parents[1], 1 << 31)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * (version / GRAPH).stat().st_size + (1 << 20)


def test_spec_that_was_not_tried_is_refused_unread(version: Path) -> None:
    _, text = spec.read_spec(version)
    tried = spec.hash_of(text)
    assert spec.read_version(version, tried)[1] == text
    (version / spec.SPEC_FILE).write_text("{")
    with pytest.raises(spec.SpecError, match=r"sha256 of model\.json: expected .*, as it was tried"):
        spec.read_version(version, tried)


@pytest.mark.parametrize(
    ("text", "is_name"), [("letters-2.0_a", True), ("", False), ("a\n", False), ("a b", False), ("é", False)]
)
def test_name_of_a_model_is_plain(text: str, is_name: bool) -> None:
    assert spec.is_name(text) is is_name
