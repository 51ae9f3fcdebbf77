"""service.contract.normalizing: what texts become, and where their characters come from."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.contract.normalizing import Normalizer
from service.contract.spec import Characters, Normalization

RULES = Normalization(
    line_ends=True,
    form="NFC",
    characters={
        "\u2019": "'",
        "\u2014": "--",
        "\u2026": "...",
        "\u00ad": "",
        "\ufeff": "",
        "\ufb01": "fi",
        "\t": " ",
    },
)
NORMALIZER = Normalizer(RULES)
MARK = "\u2603"
# What composes, reorders, expands, vanishes, or is left alone.
TRICKY = (
    "ae\u0301\u0307\u0323\u1100\u1161\u11a8\uac00\u2019\u2014\u2026\u00ad\ufeff\ufb01\t\r\n '\U0001f600\u212b"
)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("can\u2019t", "can't"),
        ("a\u2014b\u2026", "a--b..."),
        ("\ufeffso\u00adft", "soft"),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufb01ne\tday", "fine day"),
        ("a\r\nb\rc\n", "a\nb\nc\n"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_text_is_normalized(text: str, normalized: str) -> None:
    assert NORMALIZER.normalized(text) == normalized


@given(st.text(TRICKY, max_size=30))
def test_normalizing_again_changes_nothing(text: str) -> None:
    once = NORMALIZER.normalized(text)
    assert NORMALIZER.normalized(once) == once


@given(st.text(TRICKY + MARK))
def test_without_rules_every_text_stays(text: str) -> None:
    assert Normalizer(None).normalized(text) is text


@given(st.text(TRICKY, max_size=30), st.text(TRICKY, max_size=30))
def test_place_is_that_of_the_character_in_the_callers_text(before: str, after: str) -> None:
    text = before + MARK + after
    position = NORMALIZER.normalized(text).index(MARK)
    assert NORMALIZER.place(text, position) == len(before)


@given(st.text(TRICKY, max_size=30))
def test_places_are_those_of_each_position(text: str) -> None:
    found = NORMALIZER.places(text)
    count = len(NORMALIZER.normalized(text))
    assert found == [*(NORMALIZER.place(text, position) for position in range(count)), len(text)]


@pytest.mark.parametrize("text", ["", "abc\r\n\u2026"])
def test_places_without_rules_are_the_positions(text: str) -> None:
    assert Normalizer(None).places(text) == list(range(len(text) + 1))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"characters": {"a": "b", "b": "c"}}, "must hold nothing that is replaced itself"),
        ({"line_ends": True, "characters": {"a": "\r"}}, "must hold nothing that is replaced itself"),
        ({"form": "NFC", "characters": {"a": "e\u0301"}}, "must hold nothing that is replaced itself"),
        ({"characters": {"ab": "c"}}, "at most 1 character"),
        ({"characters": {"a": "bcdef"}}, "at most 4 characters"),
        ({"form": "NFKC"}, "Input should be 'none' or 'NFC'"),
        ({"case": "lower"}, "Extra inputs are not permitted"),
    ],
)
def test_rules_that_could_surprise_are_refused(rules: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Normalization.model_validate(rules)


@pytest.mark.parametrize(
    ("vocabulary", "rules", "message"),
    [
        ("ab'", {"characters": {"'": "b"}}, "must leave the vocabulary as it is"),
        ("ab\r\n", {"line_ends": True}, "must leave the vocabulary as it is"),
        ("ab\u212b", {"form": "NFC"}, "must leave the vocabulary as it is"),
        ("ab", {"characters": {"\u2019": "'"}}, "replacements must be of the vocabulary"),
        ("ab", {"line_ends": True}, "replacements must be of the vocabulary"),
    ],
)
def test_rules_that_do_not_fit_the_vocabulary_are_refused(
    vocabulary: str, rules: dict[str, object], message: str
) -> None:
    """What the model writes comes back in `generated` and in prompts, and must stay what it is."""
    with pytest.raises(ValidationError, match=message):
        Characters.model_validate({"kind": "characters", "vocabulary": vocabulary, "normalization": rules})


def test_a_section_without_rules_is_written_as_before() -> None:
    section = Characters(kind="characters", vocabulary="ab")
    assert json.loads(section.model_dump_json(exclude_none=True)) == {
        "kind": "characters",
        "vocabulary": "ab",
    }
