"""service.tasks.unknown_text: texts of which a part has no token are refused, and no other ones."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from service.contract.normalizing import Normalizer
from service.contract.spec import Normalization
from service.errors import InvalidArgument
from service.tasks.unknown_text import TextCoverage
from tests.tokenizers_of_kinds import KINDS, tokenizer_of

PLAIN = Normalizer(None)
LETTERS = {"a": 0, "b": 1, "ab": 2, "c</w>": 3, "##a": 4}
BYTES = {"a": 0, "\u0120": 1, "\u00c3": 2}  # of the two bytes of e acute the first


def coverage(model: models.Model, before: Any = None) -> TextCoverage:
    made = Tokenizer(model)
    made.pre_tokenizer = before or pre_tokenizers.Whitespace()
    return TextCoverage("letters", made)


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_has_tokens_where_unknown_parts_have_one(kind: str) -> None:
    found = TextCoverage("any", tokenizer_of(kind)).encode(
        "the \u1234 \U0001f600 x", PLAIN, "prompt", begins=True
    )
    assert found.tolist() == tokenizer_of(kind).encode("the \u1234 \U0001f600 x").ids
    assert len(found)


@pytest.mark.parametrize(
    ("model", "before", "text", "position"),
    [
        pytest.param(models.BPE(LETTERS, [("a", "b")]), None, "ab a zab", 5, id="BPE"),
        pytest.param(models.BPE(LETTERS, [("a", "b")]), None, "ab abz", 5, id="BPE, at the end of a word"),
        pytest.param(
            models.BPE(LETTERS, [], end_of_word_suffix="</w>"), None, "ac ab", 4, id="BPE with a suffix"
        ),
        pytest.param(
            models.BPE(LETTERS, [], continuing_subword_prefix="##"), None, "aa ab", 4, id="BPE with a prefix"
        ),
        pytest.param(models.BPE(LETTERS, [], unk_token="?"), None, "ab z", 3, id="BPE without its unknown"),
        pytest.param(
            models.BPE(BYTES, []),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            "a \u00e9",
            1,
            id="bytes, by the word",
        ),
        pytest.param(models.WordLevel(LETTERS, unk_token="?"), None, "ab a z", 5, id="words"),
        pytest.param(models.WordPiece(LETTERS, unk_token="?"), None, "aa z", 3, id="word pieces"),
        pytest.param(models.Unigram([("a", 0.0), ("b", 0.0)]), None, "a b z", 4, id="unigram"),
    ],
)
def test_part_without_a_token_is_refused_with_its_position(
    model: models.Model, before: Any, text: str, position: int
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        coverage(model, before).encode(text, PLAIN, "prompt", begins=True)
    [violation] = refusal.value.violations
    assert violation.field == "prompt"
    assert violation.description == (
        f"character {text[position]!r} (U+{ord(text[position]):04X}) at position {position} begins a part "
        "without a token in model letters, whose tokenizer has none for unknown text"
    )


@pytest.mark.parametrize(
    ("model", "text", "tokens"),
    [
        (models.BPE(LETTERS, [("a", "b")]), "ab  b\n a", [2, 1, 0]),
        (models.BPE(LETTERS, [], end_of_word_suffix="</w>"), "ac", [0, 3]),
        (models.BPE(LETTERS, [], continuing_subword_prefix="##"), "aa", [0, 4]),
        (models.BPE(LETTERS, [], ignore_merges=True), "ab a", [2, 0]),
        (models.BPE(LETTERS | {"<0xC3>": 5, "<0xA9>": 6}, [], byte_fallback=True), "\u00e9", [5, 6]),
        (models.BPE(LETTERS, []), " \n", []),
    ],
)
def test_text_whose_parts_all_have_tokens_is_encoded(
    model: models.Model, text: str, tokens: list[int]
) -> None:
    assert coverage(model).encode(text, PLAIN, "prompt", begins=True).tolist() == tokens


def test_position_is_that_in_the_text_before_normalization() -> None:
    rules = Normalizer(Normalization(line_ends=True, characters={"\u2014": "aa"}))
    with pytest.raises(InvalidArgument, match=r"character 'z' \(U\+007A\) at position 5"):
        coverage(models.BPE(LETTERS, [])).encode("\u2014\r\na z", rules, "prompt", begins=True)
    assert coverage(models.BPE(LETTERS, [])).encode("\u2014", rules, "prompt", begins=True).tolist() == [0, 0]


def test_own_normalizer_of_the_tokenizer_comes_first() -> None:
    made = Tokenizer(models.BPE(LETTERS, []))
    made.normalizer = normalizers.Lowercase()
    found = TextCoverage("letters", made)
    assert found.encode("AB", PLAIN, "prompt", begins=True).tolist() == [0, 1]
    with pytest.raises(InvalidArgument, match="'Z'"):
        found.encode("AZ", PLAIN, "prompt", begins=True)
