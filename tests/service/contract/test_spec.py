"""service.contract.spec."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import spec
from tests.service.builders import GRAPH, spec_of

Described = dict[str, Any]
NAMES = ("letters", "moods", "prices")


@pytest.fixture
def version(models: Path, tmp_path: Path) -> Path:
    """A version folder of one's own, of the forecasting model."""
    return shutil.copytree(models / "prices" / "1", tmp_path / "prices" / "1")


def described(models: Path, name: str) -> Described:
    loaded: Described = json.loads((models / name / "1" / spec.SPEC_FILE).read_text())
    return loaded


def refusal_of(text: str) -> str:
    with pytest.raises(spec.SpecError) as refusal:
        spec.parse_spec(text)
    return str(refusal.value)


@pytest.mark.parametrize("name", NAMES)
def test_exported_version_is_accepted(models: Path, name: str) -> None:
    read, text = spec.read_spec(models / name / "1")
    assert (read.name, read.version) == (name, 1)
    assert text == (models / name / "1" / spec.SPEC_FILE).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_dump_and_parse_give_the_same_spec(models: Path, name: str) -> None:
    read, _ = spec.read_spec(models / name / "1")
    assert spec.parse_spec(read.model_dump_json()) == read
    assert spec.parse_spec(read.model_dump_json(exclude_none=True, indent=2)) == read


def test_spec_cannot_be_changed(models: Path) -> None:
    read, _ = spec.read_spec(models / "letters" / "1")
    with pytest.raises(ValueError, match="frozen"):
        read.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("", "expected JSON, found", id="empty"),
        pytest.param("not json", "expected JSON, found", id="not JSON"),
        pytest.param("[]", "object", id="a list"),
        pytest.param("{}", "contract: expected a value, found no such field", id="an empty object"),
        pytest.param("[" * 100_000, "expected JSON, found", id="deeply nested"),
    ],
)
def test_text_that_is_no_spec_is_refused(text: str, found: str) -> None:
    message = refusal_of(text)
    assert message.startswith("model.json: ")
    assert found in message


@given(st.text(max_size=40))
def test_any_text_is_either_a_spec_or_refused(text: str) -> None:
    refusal_of(text)


@given(st.sampled_from(NAMES), st.data())
def test_any_damaged_value_is_either_accepted_or_refused_as_a_spec(
    models: Path, name: str, data: st.DataObject
) -> None:
    """Replace a random place of model.json by a random value: no exception but SpecError comes out."""
    changed: Any = described(models, name)
    place: Any = changed
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**70), 100),
            st.floats(),
            st.text(max_size=5),
            st.just([]),
            st.just({}),
            st.just([1]),
        )
    )
    with suppress(spec.SpecError):
        spec.parse_spec(json.dumps(changed))


def change(path: str, value: object) -> Callable[[Described], None]:
    """Set a value at a dotted path."""

    def apply(described: Described) -> None:
        place: Any = described
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
        for part in parents:
            place = place[part]
        place[last] = value

    return apply


def drop(path: str) -> Callable[[Described], None]:
    """Remove a key at a dotted path."""

    def apply(described: Described) -> None:
        place: Any = described
        *parents, last = path.split(".")
        for part in parents:
            place = place[part]
        del place[last]

    return apply


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        pytest.param(
            "letters", change("contract", 3), "contract: expected 1 or 2, found 3", id="another contract"
        ),
        pytest.param(
            "letters", change("nickname", "x"), "nickname: no field has that name", id="extra field"
        ),
        pytest.param(
            "letters",
            change("provenance.mood", "x"),
            "provenance.mood: no field has that name",
            id="extra field inside",
        ),
        pytest.param(
            "letters", drop("golden"), "golden: expected a value, found no such field", id="missing field"
        ),
        pytest.param(
            "letters", change("version", "1"), "version: expected a whole number", id="number as text"
        ),
        pytest.param(
            "letters",
            change("version", 0),
            "version: expected at least 1",
            id="version zero",
        ),
        pytest.param(
            "letters",
            change("version", True),
            "version: expected a whole number",
            id="truth as a number",
        ),
        pytest.param(
            "letters",
            change("name", "../letters"),
            "name: expected up to 64 letters",
            id="name that climbs",
        ),
        pytest.param(
            "letters", change("name", ".hidden"), "name: expected up to 64 letters", id="hidden name"
        ),
        pytest.param(
            "letters",
            change("name", "letters\n"),
            "name: expected up to 64 letters",
            id="name with a newline",
        ),
        pytest.param("letters", change("task", "translation"), "task: expected '", id="unknown task"),
        pytest.param("letters", change("cell", "transformer"), "cell: expected '", id="unknown cell"),
        pytest.param(
            "letters",
            change("cell", "gru"),
            "state must hold 2 tensors, layer0.h, layer1.h, found 4",
            id="state of another cell",
        ),
        pytest.param("letters", change("layers", 3), "state must hold 6 tensors", id="too few state tensors"),
        pytest.param(
            "letters",
            change("hidden", 25),
            "state[0] must be layer0.h and layer0.h.next of size 25",
            id="state of another width",
        ),
        pytest.param(
            "letters",
            change("state.0.output", "layer0.c.next"),
            "state[0] must be layer0.h and layer0.h.next of size 24, found",
            id="state output of another tensor",
        ),
        pytest.param(
            "letters",
            change("state.0.input", "h0"),
            "state[0] must be layer0.h and layer0.h.next of size 24, found",
            id="state name",
        ),
        pytest.param("letters", change("state", []), "state: expected 1 or more items", id="no state"),
        pytest.param("letters", change("variants", {}), "variants must hold fp32, found []", id="no variant"),
        pytest.param("letters", change("variants.fp16", {}), "variants.fp16", id="unknown variant"),
        pytest.param(
            "letters",
            change("variants.fp32.tolerance", 0),
            "tolerance: expected more than 0",
            id="tolerance zero",
        ),
        pytest.param(
            "letters",
            change("variants.fp32.tolerance", float("nan")),
            "tolerance: expected a finite number",
            id="tolerance NaN",
        ),
        pytest.param(
            "letters",
            change("variants.fp32.file", "other.onnx"),
            "files must give the sha256 of other.onnx",
            id="file without a hash",
        ),
        pytest.param(
            "letters", change("files", {"../model.onnx": "0" * 64}), "files must", id="path that climbs"
        ),
        pytest.param(
            "letters",
            change("files", {"model.onnx": "0"}),
            "expected a sha256",
            id="hash too short",
        ),
        pytest.param(
            "letters",
            drop("generation"),
            "exactly the section of task text-generation must be given, found those of []",
            id="no section",
        ),
        pytest.param(
            "letters",
            change("task", "forecasting"),
            "exactly the section of task forecasting must be given",
            id="section of another task",
        ),
        pytest.param(
            "letters",
            change("generation.text.vocabulary", "aab"),
            "characters occur twice",
            id="character twice",
        ),
        pytest.param(
            "letters",
            change("generation.text.vocabulary", ""),
            "vocabulary: expected 1 or more characters",
            id="empty vocabulary",
        ),
        pytest.param(
            "letters",
            change("generation.text.vocabulary", "abc"),
            "input.size must be 3, found 10",
            id="vocabulary of another size",
        ),
        pytest.param(
            "letters",
            change("generation.start_token", 10),
            "start_token must be below 10, found 10",
            id="start token too high",
        ),
        pytest.param(
            "letters",
            change("generation.max_tokens", 0),
            "max_tokens: expected at least 1",
            id="no tokens",
        ),
        pytest.param(
            "letters", change("outputs", 9), "outputs must be 10, found 9", id="outputs unlike the vocabulary"
        ),
        pytest.param(
            "letters",
            change("golden", []),
            "golden: expected 1 or more items",
            id="no golden example",
        ),
        pytest.param(
            "letters",
            change("generation.text.normalisation", {}),
            "generation.text.normalisation: no field has that name; did you mean normalization",
            id="key that this server does not know",
        ),
        pytest.param(
            "prices",
            change("golden.0.text", "a"),
            "golden[0] must hold a text beside tokens alone",
            id="text of features",
        ),
        pytest.param(
            "letters",
            change("golden.0.tokens", [10]),
            "golden[0] must hold tokens below 10",
            id="golden token too high",
        ),
        pytest.param(
            "letters",
            change("golden.0.tokens", [-1]),
            "golden[0] must hold tokens below 10",
            id="golden token negative",
        ),
        pytest.param(
            "letters", change("golden.0.tokens", []), "golden[0] must hold", id="golden example without input"
        ),
        pytest.param(
            "letters",
            change("golden.0.steps", [1]),
            "golden[0].steps must rise within 0..0, found [1]",
            id="golden step past the end",
        ),
        pytest.param(
            "letters",
            change("golden.1.steps", [2, 0, 4]),
            "golden[1].steps must rise",
            id="golden steps out of order",
        ),
        pytest.param(
            "letters",
            change("golden.1.steps", [0, 4]),
            "golden[1].outputs must be 2 rows of 10",
            id="golden rows unlike steps",
        ),
        pytest.param(
            "letters",
            change("golden.0.outputs", [[0.5]]),
            "golden[0].outputs must be 1 rows of 10",
            id="golden rows too narrow",
        ),
        pytest.param(
            "letters",
            change("golden.0.outputs.0.3", float("inf")),
            "outputs[0][3]: expected a finite number",
            id="golden infinity",
        ),
        pytest.param(
            "letters",
            change("golden.0.features", [[0.1]]),
            "golden[0] must hold tokens alone",
            id="golden of both kinds",
        ),
        pytest.param(
            "letters", change("input", {"kind": "features", "size": 10}), "must", id="features for text"
        ),
        pytest.param(
            "moods",
            change("classification.labels", ["one"]),
            "labels: expected 2 or more items",
            id="one label",
        ),
        pytest.param(
            "moods",
            change("classification.labels", ["a", "b", "c"]),
            "outputs must be 3, found 2",
            id="labels unlike outputs",
        ),
        pytest.param(
            "moods",
            change("classification.text.file", "t.json"),
            "files must give the sha256 of t.json",
            id="tokenizer without a hash",
        ),
        pytest.param(
            "moods",
            change("classification.text.file", "../t"),
            "files must give the sha256 of ../t",
            id="tokenizer path that climbs",
        ),
        pytest.param(
            "prices",
            change("forecasting.quantiles", [0.1, 0.4, 0.9]),
            "quantiles must rise and hold 0.5",
            id="no median",
        ),
        pytest.param(
            "prices",
            change("forecasting.quantiles", [0.9, 0.5, 0.1]),
            "quantiles must rise",
            id="falling quantiles",
        ),
        pytest.param(
            "prices", change("forecasting.quantiles", [0.1, 0.5, 1.0]), "less than 1", id="quantile one"
        ),
        pytest.param(
            "prices",
            change("forecasting.quantiles", [0.5, 0.5, 0.9]),
            "quantiles must rise",
            id="quantile twice",
        ),
        pytest.param(
            "prices", change("forecasting.target", "clsoe"), "target must be one of", id="unknown target"
        ),
        pytest.param(
            "prices",
            change("forecasting.scales", [0.1]),
            "scales must be 5, one a step ahead, found 1",
            id="too few scales",
        ),
        pytest.param(
            "prices",
            change("forecasting.columns.0.scale", 0),
            "scale: expected more than 0",
            id="scale zero",
        ),
        pytest.param(
            "prices",
            change("forecasting.columns.0.scale", float("nan")),
            "scale: expected a finite number",
            id="scale NaN",
        ),
        pytest.param(
            "prices",
            change("forecasting.columns.0.reference", "x"),
            "reference of open must be one of",
            id="unknown reference",
        ),
        pytest.param(
            "prices",
            change("forecasting.columns.0.transform", "none"),
            "must have one transform",
            id="transforms that differ",
        ),
        pytest.param(
            "prices",
            change("forecasting.columns.0.name", "close"),
            "column names must differ",
            id="column twice",
        ),
        pytest.param(
            "prices", change("forecasting.horizon", 4), "scales must be 4", id="horizon unlike scales"
        ),
        pytest.param(
            "prices",
            change("golden.0.features.2", [0.1]),
            "golden[0] must hold rows of 5 values",
            id="golden row too narrow",
        ),
        pytest.param(
            "prices", change("input.size", 6), "input.size must be 5, found 6", id="features unlike columns"
        ),
        pytest.param(
            "prices",
            change("metrics.loss", float("nan")),
            "metrics.loss: expected a finite number",
            id="metric NaN",
        ),
    ],
)
def test_damaged_spec_is_refused_with_the_place_and_the_reason(
    models: Path, name: str, damage: Callable[[Described], None], expected: str
) -> None:
    changed = deepcopy(described(models, name))
    damage(changed)
    message = refusal_of(json.dumps(changed))
    assert message.startswith("model.json: ")
    assert expected in message


# The folder.


def folder_refusal_of(folder: Path) -> str:
    with pytest.raises(spec.SpecError) as refusal:
        spec.read_spec(folder)
    return str(refusal.value)


def test_folder_without_a_spec_is_refused(version: Path) -> None:
    (version / spec.SPEC_FILE).unlink()
    assert folder_refusal_of(version) == "model.json: expected a file, found none in 1"


def test_spec_that_is_a_folder_is_refused(version: Path) -> None:
    (version / spec.SPEC_FILE).unlink()
    (version / spec.SPEC_FILE).mkdir()
    assert "model.json: expected readable UTF-8 text, found" in folder_refusal_of(version)


def test_spec_that_is_not_utf8_is_refused(version: Path) -> None:
    (version / spec.SPEC_FILE).write_bytes(b'{"name": "\xff"}')
    assert "model.json: expected readable UTF-8 text, found" in folder_refusal_of(version)


def test_folder_of_another_version_is_refused(version: Path) -> None:
    assert (
        folder_refusal_of(version.rename(version.with_name("2")))
        == "version: expected 2, as the folder says, found 1"
    )


def test_folder_of_another_name_is_refused(version: Path) -> None:
    moved = version.parent.rename(version.parent.with_name("other")) / "1"
    assert folder_refusal_of(moved) == "name: expected other, as the folder says, found prices"


def test_changed_file_is_refused_by_its_hash(version: Path) -> None:
    expected = spec_of(version)["files"][GRAPH]
    with (version / GRAPH).open("ab") as file:
        file.write(b"\0")
    message = folder_refusal_of(version)
    assert message.startswith(f"sha256 of {GRAPH}: expected {expected}, found ")


def test_missing_file_is_refused(version: Path) -> None:
    (version / GRAPH).unlink()
    assert folder_refusal_of(version).endswith("found no such file")


def test_file_that_is_a_folder_is_refused(version: Path) -> None:
    (version / GRAPH).unlink()
    (version / GRAPH).mkdir()
    assert f"{GRAPH}: expected a readable file" in folder_refusal_of(version)


@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "/etc/passwd", "sub/model.onnx", "..", ".", "", "model.onnx/", "a\0b", "x" * 300],
)
def test_file_name_that_is_not_a_plain_one_is_refused(version: Path, name: str) -> None:
    spec_of(version, files=spec_of(version)["files"] | {name: "0" * 64})
    folder_refusal_of(version)
