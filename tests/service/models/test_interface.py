"""service.models.interface: which changes of model.json callers can see, and how the difference is told."""

from collections.abc import Iterator
from inspect import get_annotations
from typing import Any, NamedTuple, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.forecast import Anomaly, Column, ColumnLevel
from service.contract.network import Layer, NamedWidth
from service.contract.sections import Normalization, SpecPart, TokenInput
from service.contract.sequences import FeatureColumn, OutputColumn
from service.contract.spec import ModelSpec, SpecV1, SpecV2
from service.errors import ModelRefused
from service.models.interface import (
    Difference,
    InterfaceChanged,
    accept_any,
    accept_same,
    difference,
    differences,
    interface_of,
    sentence,
)
from tests.service.models.specs import HASH, SPECS, columns


class Change(NamedTuple):
    """A change of one field: of which spec, where, and to what. A number in the path is a list's entry."""

    spec: str
    path: str
    value: Any


# Each field is in one of these two tables, but for those of sections that stand in a free field.
SEEN = {
    "Column.calendar": Change("market", "forecasting.columns.0.calendar", ["hour"]),
    "ModelSpec.task": Change("writer", "task", "sequences"),
    "ModelSpec.input": Change("whole", "input", TokenInput(kind="tokens", size=5)),
    "ModelSpec.outputs": Change("whole", "outputs", 3),
    "ModelSpec.generation": Change("writer", "generation", None),
    "ModelSpec.classification": Change("critic", "classification", None),
    "ModelSpec.forecasting": Change("market", "forecasting", None),
    "ModelSpec.sequences": Change("sensor", "sequences", None),
    "ModelSpec.files": Change("critic", "files", {"model.onnx": HASH, "tokenizer.json": "1" * 64}),
    "SpecV2.kind": Change("caption", "kind", "whole"),
    "SpecV2.init": Change("caption", "init", None),
    "SpecV2.window": Change("sensor", "window", None),
    "SpecV2.pooled": Change("whole", "pooled", False),
    "TokenInput.kind": Change("whole", "input.kind", "features"),
    "TokenInput.size": Change("whole", "input.size", 5),
    "FeatureInput.kind": Change("raw", "input.kind", "tokens"),
    "FeatureInput.size": Change("raw", "input.size", 5),
    "Generation.text": Change("writer", "generation.text", SPECS["critic"].text),
    "Characters.kind": Change("writer", "generation.text", SPECS["critic"].text),
    "Characters.vocabulary": Change("writer", "generation.text.vocabulary", "ba'"),
    "Characters.normalization": Change("writer", "generation.text.normalization", None),
    "Normalization.line_ends": Change("writer", "generation.text.normalization.line_ends", True),
    "Normalization.form": Change("writer", "generation.text.normalization.form", "none"),
    "Normalization.characters": Change("writer", "generation.text.normalization.characters", {}),
    "Classification.text": Change("critic", "classification.text", SPECS["writer"].text),
    "TokenizerFile.kind": Change("critic", "classification.text", SPECS["writer"].text),
    "Classification.labels": Change("critic", "classification.labels", ["negative", "positive"]),
    "ForecastSpec.columns": Change("market", "forecasting.columns", [Column(**columns("a")[0])]),
    "Column.name": Change("market", "forecasting.columns.0.name", "c"),
    "Column.unit": Change("market", "forecasting.columns.0.unit", "km"),
    "Column.transform": Change("market", "forecasting.columns.0.transform", "log"),
    "ForecastSpec.target": Change("market", "forecasting.target", "b"),
    "ForecastSpec.horizon": Change("market", "forecasting.horizon", 2),
    "ForecastSpec.quantiles": Change("market", "forecasting.quantiles", [0.5, 0.9]),
    "ForecastSpec.least_observations": Change("market", "forecasting.least_observations", 3),
    "SequencesSpec.text": Change("caption", "sequences.text", None),
    "SequencesSpec.columns": Change("sensor", "sequences.columns", [FeatureColumn(name="a", unit="g")]),
    "SequencesSpec.output": Change(
        "sensor", "sequences.output", cast("Any", SPECS["whole"].sequences).output
    ),
    "FeatureColumn.name": Change("sensor", "sequences.columns.0.name", "c"),
    "FeatureColumn.unit": Change("sensor", "sequences.columns.0.unit", "m/s2"),
    "FeatureColumn.transform": Change("sensor", "sequences.columns.0.transform", "log"),
    "OutputSpec.kind": Change("sensor", "sequences.output.kind", "probabilities"),
    "OutputSpec.labels": Change("sensor", "sequences.output.labels", ["walk", "rest"]),
    "OutputSpec.exclusive": Change("sensor", "sequences.output.exclusive", False),
    "OutputSpec.columns": Change("caption", "sequences.output.columns", [OutputColumn(name="x", unit="m")]),
    "OutputSpec.steps": Change("sensor", "sequences.output.steps", "every"),
    "OutputColumn.name": Change("caption", "sequences.output.columns.0.name", "x"),
    "OutputColumn.unit": Change("caption", "sequences.output.columns.0.unit", "km"),
    "InitGraph.inputs": Change("caption", "init.inputs", [NamedWidth(name="sound", size=1)]),
    "InitGraph.source": Change("translator", "init.source", None),
    "SourceSpec.input": Change("translator", "init.source.input", TokenInput(kind="tokens", size=5)),
    "SourceSpec.text": Change("translator", "init.source.text", None),
    "SourceSpec.columns": Change("pilot", "init.source.columns", [FeatureColumn(name="y", unit="m")]),
    "SourceSpec.max_steps": Change("translator", "init.source.max_steps", 8),
    "NamedWidth.name": Change("caption", "init.inputs.0.name", "sound"),
    "NamedWidth.size": Change("caption", "init.inputs.0.size", 2),
    "Window.to": Change("sensor", "window.to", 2),
    "Window.longer": Change("sensor", "window.longer", "keep_last"),
}
FREE = {
    "Column.level": Change("market", "forecasting.columns.0.level", ColumnLevel(mean=0.0, scale=1.0)),
    "ForecastSpec.anomaly": Change(
        "market", "forecasting.anomaly", Anomaly(threshold=2.0, false_alarm_rate=0.01)
    ),
    "ModelSpec.name": Change("writer", "name", "other"),
    "ModelSpec.version": Change("writer", "version", 4),
    "ModelSpec.variants": Change("writer", "variants", {}),
    "ModelSpec.golden": Change("writer", "golden", []),
    "ModelSpec.metrics": Change("writer", "metrics", {}),
    "ModelSpec.provenance": Change(
        "writer", "provenance", SPECS["old"].provenance.model_copy(update={"seed": 1})
    ),
    "SpecV1.contract": Change("old", "contract", 2),
    "SpecV1.cell": Change("old", "cell", "lstm"),
    "SpecV1.layers": Change("old", "layers", 2),
    "SpecV1.hidden": Change("old", "hidden", 8),
    "SpecV1.state": Change("old", "state", []),
    "SpecV2.contract": Change("writer", "contract", 1),
    "SpecV2.layers": Change("writer", "layers", [Layer(kind="lstm", width=9)]),
    "SpecV2.state": Change("writer", "state", []),
    "SpecV2.padding": Change("whole", "padding", "none"),
    "Generation.start_token": Change("writer", "generation.start_token", 1),
    "Generation.prepend_start": Change("writer", "generation.prepend_start", True),
    "Generation.end_tokens": Change("writer", "generation.end_tokens", [1]),
    "Generation.max_tokens": Change("writer", "generation.max_tokens", 9),
    "TokenizerFile.file": Change("critic", "classification.text.file", "other.json"),
    "TokenizerFile.normalization": Change("critic", "classification.text.normalization", Normalization()),
    "Column.reference": Change("market", "forecasting.columns.0.reference", "b"),
    "Column.scale": Change("market", "forecasting.columns.0.scale", 2.0),
    "ForecastSpec.scales": Change("market", "forecasting.scales", [2.0]),
    "FeatureColumn.mean": Change("sensor", "sequences.columns.0.mean", 1.0),
    "FeatureColumn.scale": Change("sensor", "sequences.columns.0.scale", 2.0),
    "OutputColumn.mean": Change("caption", "sequences.output.columns.0.mean", 1.0),
    "OutputColumn.scale": Change("caption", "sequences.output.columns.0.scale", 2.0),
    "InitGraph.file": Change("caption", "init.file", "model.onnx"),
    "SourceSpec.layers": Change("translator", "init.source.layers", []),
    "Window.side": Change("sensor", "window.side", "right"),
    "Window.value": Change("sensor", "window.value", 1.0),
}


def parts_of(annotation: Any) -> Iterator[type[SpecPart]]:
    """Yield the sections that a type names."""
    if isinstance(annotation, type) and issubclass(annotation, SpecPart):
        yield annotation
    for argument in get_args(annotation):
        yield from parts_of(argument)


def fields_of(part: type[SpecPart]) -> Iterator[str]:
    """Yield each field of a section and of the sections in it, but for those in a free field."""
    for name, field in part.model_fields.items():
        declaring = next(one for one in part.__mro__ if name in get_annotations(one))
        yield (key := f"{declaring.__name__}.{name}")
        if key not in FREE:
            for inner in parts_of(field.annotation):
                yield from fields_of(inner)


def changed(value: Any, path: list[str], new: Any) -> Any:
    """Return a copy of a section or list with one field changed; the checks of the contract are not run."""
    if not path:
        return new
    name, *rest = path
    if isinstance(value, list):
        index = int(name)
        return [*value[:index], changed(value[index], rest, new), *value[index + 1 :]]
    return value.model_copy(update={name: changed(getattr(value, name), rest, new)})


def after(change: Change) -> ModelSpec:
    return cast("ModelSpec", changed(SPECS[change.spec], change.path.split("."), change.value))


def test_every_field_of_both_contracts_is_either_compared_or_free() -> None:
    """A new field of model.json has to be put into one of the tables."""
    found = {*fields_of(SpecV1), *fields_of(SpecV2)}
    assert found == SEEN.keys() | FREE.keys()
    assert not SEEN.keys() & FREE.keys()


@pytest.mark.parametrize("field", SEEN)
def test_change_that_callers_see_is_a_difference(field: str) -> None:
    before, now = SPECS[SEEN[field].spec], after(SEEN[field])
    found = differences(interface_of(before), interface_of(now))
    assert found
    assert all(one.expected != one.found for one in found)
    with pytest.raises(InterfaceChanged):
        accept_same(before)(now)


@pytest.mark.parametrize("field", FREE)
def test_change_that_no_caller_sees_is_none(field: str) -> None:
    before, now = SPECS[FREE[field].spec], after(FREE[field])
    assert now != before
    assert interface_of(now) == interface_of(before)
    accept_same(before)(now)


@given(st.sampled_from(sorted(SPECS)), st.sets(st.sampled_from(sorted(FREE))))
def test_retrained_model_never_differs(name: str, free: set[str]) -> None:
    now = SPECS[name]
    for change in (FREE[field] for field in sorted(free)):
        if change.spec == name:
            now = cast("ModelSpec", changed(now, change.path.split("."), change.value))
    assert differences(interface_of(SPECS[name]), interface_of(now)) == []


def test_contract_is_no_part_of_the_interface() -> None:
    assert interface_of(SPECS["old"]) == interface_of(SPECS["writer"])


@pytest.mark.parametrize("before", SPECS)
@pytest.mark.parametrize("now", SPECS)
def test_models_of_different_use_differ(before: str, now: str) -> None:
    is_same = before == now or {before, now} == {"old", "writer"}
    found = differences(interface_of(SPECS[before]), interface_of(SPECS[now]))
    assert (found == []) is is_same
    if SPECS[before].task != SPECS[now].task:
        assert [one.field for one in found] == ["task"]


words = st.text(max_size=90)
lists = st.lists(words | st.tuples(words, words), max_size=30).map(tuple)
interfaces = st.dictionaries(st.sampled_from(["labels", "columns", "outputs", "window"]), words | lists)


@given(interfaces, interfaces)
def test_interfaces_differ_in_the_fields_whose_values_do(before: Any, now: Any) -> None:
    found = differences(before, now)
    assert bool(found) is (before != now)
    assert all(before.get(one.field) != now.get(one.field) for one in found)
    assert all(len(text) <= 500 and text.isprintable() for one in found for text in one[1:])


def told(before: Any, now: Any, field: str = "labels") -> tuple[str, str]:
    [found] = differences({field: before}, {field: now})
    return found.expected, found.found


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (("a", "b"), ("b", "a"), ("a, b", "b, a")),
        (None, ("a",), ("none", "a")),
        ((), ("a",), ("none", "a")),
        ((" ", "a,b", ""), ("\n",), ("' ', 'a,b', ''", "'\\n'")),
        ((("close", "USD", "positive"), ("x", "", "")), ("x",), ("close (USD, positive), x", "x")),
        (
            tuple("ab" * 60),
            (*"ab" * 60, "c"),
            ("120 entries (number 121 is none)", "121 entries (number 121 is c; 1 new)"),
        ),
        (
            tuple("ab" * 60),
            tuple("ba" * 60),
            ("120 entries (number 1 is a)", "120 entries (number 1 is b; 0 new)"),
        ),
        (tuple("ab" * 60), None, ("120 entries", "none")),
        ("1", "2\n", ("1", "'2\\n'")),
    ],
)
def test_values_are_told_whole_or_by_where_they_differ(
    before: Any, now: Any, expected: tuple[str, str]
) -> None:
    assert told(before, now) == expected


def test_refusal_is_one_sentence_that_says_what_to_do() -> None:
    now = changed(SPECS["critic"], ["classification", "labels"], ["positive", "negative", "neutral"])
    with pytest.raises(ModelRefused) as refused:
        accept_same(SPECS["critic"])(now)
    assert str(refused.value) == (
        "labels: expected positive, negative as version 3 serves, found positive, negative, neutral; "
        "load it with allow_interface_change if callers know"
    )
    assert (refused.value.check, refused.value.expected, refused.value.found) == (
        "interface",
        "labels: positive, negative",
        "labels: positive, negative, neutral",
    )


def test_width_that_follows_from_labels_is_not_told_beside_them() -> None:
    now = changed(SPECS["sensor"], ["sequences", "output", "labels"], ["walk", "run", "rest"])
    assert difference(SPECS["sensor"], changed(now, ["outputs"], 3)) == (
        "labels: expected walk, run as version 3 has, found walk, run, rest"
    )


def test_differences_beyond_the_third_are_told_by_their_fields() -> None:
    found = [Difference(str(number), "a", "b") for number in range(5)]
    assert sentence(found, "as version 1 has") == (
        "0: expected a as version 1 has, found b; 1: expected a as version 1 has, found b; "
        "2: expected a as version 1 has, found b; also different: 3, 4"
    )


def test_any_interface_is_accepted_where_changes_are_allowed() -> None:
    for spec in SPECS.values():
        accept_any(spec)
