"""service.contract.sentences."""

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from service.contract.sections import FeatureInput, Sha256, TokenInput
from service.contract.sentences import MAX_PLACE, MAX_SENTENCE, MAX_SENTENCES, meant, parts_of, sentences
from service.contract.spec import Name, SpecV1


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    size: Annotated[int, Field(ge=1, le=9)] = 1


class Document(Part):
    text: Annotated[str, Field(min_length=1)] = "a"
    number: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    flag: bool = True
    kind: Literal["a", "b"] = "a"
    parts: Annotated[list[Part], Field(max_length=2)] = []
    table: dict[str, int] = {}
    hash: Sha256 = "0" * 64
    name: Name = "a"
    input: Annotated[TokenInput | FeatureInput, Field(discriminator="kind")] | None = None


FIELDS = [*Document.model_fields]


def said(text: str) -> list[str]:
    with pytest.raises(ValidationError) as refusal:
        Document.model_validate_json(text)
    return sentences(refusal.value, text, FIELDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"size": "3"}', 'size: expected a whole number, found "3"'),
        ('{"size": 0}', "size: expected at least 1, found 0"),
        ('{"size": 10}', "size: expected at most 9, found 10"),
        ('{"size": true}', "size: expected a whole number, found true"),
        ('{"text": ""}', 'text: expected 1 or more characters, found ""'),
        ('{"text": [1, 2]}', "text: expected a text, found a list of 2"),
        ('{"number": 0}', "number: expected more than 0, found 0"),
        ('{"number": NaN}', "number: expected a finite number, found NaN"),
        ('{"number": {}}', "number: expected a number, found an object of 0"),
        ('{"flag": 1}', "flag: expected true or false, found 1"),
        ('{"kind": "c"}', "kind: expected 'a' or 'b', found \"c\""),
        ('{"parts": 3}', "parts: expected a list, found 3"),
        ('{"parts": [3]}', "parts[0]: expected an object, found 3"),
        ('{"parts": [{}, {"size": null}]}', "parts[1].size: expected a whole number, found null"),
        ('{"parts": [{}, {}, {}]}', "parts: expected at most 2 items, found a list of 3"),
        ('{"table": {"x": "y"}}', 'table.x: expected a whole number, found "y"'),
        ('{"hash": "0"}', 'hash: expected a sha256, 64 digits of 0-9 and a-f, found "0"'),
        (
            '{"name": "a/b"}',
            'name: expected up to 64 letters, digits and . _ -, a letter or digit first, found "a/b"',
        ),
        (
            '{"input": {"kind": "pictures"}}',
            "input: expected one of 'tokens', 'features' as 'kind', found an object of 1",
        ),
        ('{"input": {"kind": "tokens"}}', "input.size: expected a value, found no such field"),
        ('{"input": {"kind": "tokens", "size": 0}}', "input.size: expected at least 1, found 0"),
        ('{"sizes": 1}', "sizes: no field has that name; did you mean size?"),
        ('{"colour": 1}', "colour: no field has that name"),
        ("[]", "expected an object, found a list of 0"),
        ("{", "expected JSON, found something else: EOF while parsing an object at line 1 column 1"),
    ],
)
def test_refused_value_is_a_sentence(text: str, expected: str) -> None:
    assert said(text) == [expected]


def test_five_things_are_told_at_most() -> None:
    assert len(said('{"a1":1,"a2":1,"a3":1,"a4":1,"a5":1,"a6":1}')) == MAX_SENTENCES


def test_missing_fields_of_a_spec_are_named() -> None:
    with pytest.raises(ValidationError) as refusal:
        SpecV1.model_validate_json("{}")
    found = sentences(refusal.value, "{}", [])
    assert found[0] == "name: expected a value, found no such field"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "x" * 300]), _VALUES, max_size=4))
def test_every_sentence_is_short_and_has_no_word_of_pydantic(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    try:
        Document.model_validate_json(text)
    except ValidationError as error:
        for sentence in sentences(error, text, FIELDS):
            assert len(sentence) <= MAX_PLACE + MAX_SENTENCE
            assert sentence.isprintable()
            assert not any(
                word in sentence for word in ("Input should", "pydantic", "type=", "Field required")
            )


def test_names_that_are_like_none_are_not_guessed() -> None:
    assert meant("zzz", FIELDS) == ""
    assert meant("part", FIELDS, "--") == "; did you mean --parts?"


PARTS = [
    (
        "model.json: golden[0].steps[1]: expected a whole number, found 1.5; layers: expected a list",
        {"place": "golden[0].steps[1]", "expected": "a whole number", "found": "1.5"},
    ),
    (
        "model.json: expected a file, found none in 3",
        {"place": "model.json", "expected": "a file", "found": "none in 3"},
    ),
    (
        "model.json: state[0]: start must be one number or 16, found 15",
        {"place": "state[0]", "expected": "start must be one number or 16", "found": "15"},
    ),
    (
        "model.json: layers[1].direction must be forward for a chunk cell, found both: convert it as whole",
        {
            "place": "layers[1].direction",
            "expected": "be forward for a chunk cell",
            "found": "both: convert it as whole",
        },
    ),
    (
        "model.json: padding must be given for a whole network",
        {"place": "padding", "expected": "be given for a whole network"},
    ),
    (
        "sha256 of model.onnx: expected 00, found 11",
        {"place": "model.onnx", "expected": "00", "found": "11"},
    ),
    (
        "name: expected a, as the folder says, found b",
        {"place": "name", "expected": "a, as the folder says", "found": "b"},
    ),
    ("model.json: extra: no field has that name; did you mean input?", {"place": "extra"}),
    ("exactly the section of task sequences must be given, found those of []", {}),
    ("", {}),
    ("a." * 100_000, {}),
]


@pytest.mark.parametrize(("text", "parts"), PARTS)
def test_sentence_has_parts_for_programs(text: str, parts: dict[str, str]) -> None:
    assert parts_of(text) == parts


@given(st.text(max_size=300))
def test_parts_of_any_text_are_in_it(text: str) -> None:
    assert all(part in text for part in parts_of(text).values())
