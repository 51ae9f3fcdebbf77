"""service.tasks.text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split, Whitespace

from service.contract.normalizing import Normalizer
from service.contract.spec import Normalization
from service.errors import InvalidArgument, ModelFailure
from service.tasks.text import Characters, tokenize

VOCABULARY = "abcdefg"
LETTERS = Characters("letters", VOCABULARY)


@given(st.text(VOCABULARY, max_size=50))
def test_decode_undoes_encode(text: str) -> None:
    assert LETTERS.decode(LETTERS.encode(text, "prompt").tolist()) == text


def test_token_id_is_the_place_in_the_vocabulary() -> None:
    encoded = LETTERS.encode("gab", "prompt")
    assert encoded.tolist() == [6, 0, 1]


@pytest.mark.parametrize(
    ("size", "dtype"), [(7, np.int8), (128, np.int8), (129, np.int16), (40_000, np.int32)]
)
def test_token_ids_are_as_narrow_as_the_vocabulary_allows(size: int, dtype: type) -> None:
    vocabulary = [chr(65 + index) for index in range(size)]
    encoded = Characters("wide", vocabulary).encode(vocabulary[-1] + vocabulary[0], "prompt")
    assert encoded.tolist() == [size - 1, 0]
    assert encoded.dtype == dtype


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("abXa", "character 'X' (U+0058) at position 2"),
        ("é", "character 'é' (U+00E9) at position 0"),
        ("a\U0001f600b€", "character '\U0001f600' (U+1F600) at position 1"),
    ],
)
def test_unknown_character_is_named_with_its_place(text: str, found: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        LETTERS.encode(text, "texts[3]")
    assert str(refusal.value) == f"texts[3]: {found} is not among the 7 of model letters"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({"[UNK]": 0, "good": 1, "bad": 2, "film": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return made


def test_tokenize_gives_int32_ids_a_text(tokenizer: Tokenizer) -> None:
    found = tokenize(tokenizer, ["good film", "zebra"])
    assert [ids.tolist() for ids in found] == [[1, 3], [0]]
    assert {ids.dtype for ids in found} == {np.dtype(np.int32)}


@pytest.mark.parametrize("text", ["", " \n\t "], ids=["empty", "nothing but space"])
def test_text_without_a_token_names_its_index(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"texts\[1\]: expected at least one token, found none"):
        tokenize(tokenizer, ["good", text])


def test_text_without_a_token_names_its_index_in_the_request(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidArgument, match=r"texts\[8\]: expected at least one token, found none"):
        tokenize(tokenizer, ["good", ""], first=7)


def test_panic_of_the_tokenizer_is_a_failure_of_the_model_without_its_text() -> None:
    """It is no Exception: it went past every handler, and ended what ran it."""
    panicking = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    panicking.pre_tokenizer = Split(Regex("^(a+)+$"), "isolated")
    with pytest.raises(ModelFailure) as failure:
        tokenize(panicking, ["a" * 40 + "!"])
    assert str(failure.value) == "the tokenizer failed on a text"
    assert failure.value.__suppress_context__


TYPOGRAPHIC = Normalizer(
    Normalization(line_ends=True, form="NFC", characters={"\u2014": "aa", "\u00ad": "", "\u2019": "b"})
)
NORMALIZED = Characters("letters", "\nabcdefg\u00e9", TYPOGRAPHIC)


def test_text_is_encoded_as_its_normalized_form() -> None:
    encoded = NORMALIZED.encode("c\u2014\u00ad\u2019\r\ne\u0301", "prompt")
    assert NORMALIZED.decode(encoded.tolist()) == "caab\n\u00e9"


def test_what_the_model_wrote_is_not_normalized() -> None:
    with pytest.raises(InvalidArgument, match=r"\(U\+2014\) at position 1"):
        NORMALIZED.encode_own("c\u2014", "generated")


@given(st.text("a\u2014\u00ad\u2019\r\n\u0301e", max_size=20).filter(lambda text: "\u0301" not in text[:1]))
def test_unknown_character_is_the_callers_own_at_its_place_in_the_callers_text(before: str) -> None:
    text = before + "X\u2014"
    try:
        NORMALIZED.encode(before, "prompt")
    except InvalidArgument:
        return  # an accent that composes with nothing is itself unknown
    with pytest.raises(InvalidArgument) as refusal:
        NORMALIZED.encode(text, "prompt")
    assert f"character 'X' (U+0058) at position {len(before)} is not among" in str(refusal.value)


def test_tokens_are_those_of_the_normalized_text(tokenizer: Tokenizer) -> None:
    rules = Normalizer(Normalization(characters={"\u00a0": " ", "\u00ad": ""}))
    (found,) = tokenize(tokenizer, ["go\u00adod\u00a0film"], normalizer=rules)
    assert found.tolist() == [1, 3]


def test_text_that_normalizes_to_nothing_names_its_index(tokenizer: Tokenizer) -> None:
    rules = Normalizer(Normalization(characters={"\u00ad": ""}))
    with pytest.raises(InvalidArgument, match=r"texts\[0\]: expected at least one token, found none"):
        tokenize(tokenizer, ["\u00ad"], normalizer=rules)
