# ruff: noqa: RUF001 - letters of other scripts are what this file is about
"""Tokenizers of classifiers: what they know of texts in many scripts, and when that is too little."""

import re
import unicodedata

import pytest
from tokenizers import Tokenizer

from service.contract.normalizing import Normalizer
from service.models.tokenizer_file import read_tokenizer
from tests.training.data.languages import LANGUAGES
from training.data.label_normalization import rules_for
from training.data.label_tokenizers import chosen_kind, label_tokenizer, word_tokenizer
from training.data.normalization import choose
from training.data.tokenizing import (
    KINDS,
    REFUSED_SHARE,
    UNKNOWN,
    UNKNOWN_ID,
    Kind,
    Tokenizing,
    Unknown,
    check_known,
    unknown_of,
)
from training.errors import TrainingError


def _texts(name: str) -> list[str]:
    first, second, _ = LANGUAGES[name]
    texts = [first, second, f"{second} {first}"]
    normalizer = Normalizer(rules_for(texts))
    return [normalizer.normalized(text) for text in texts] * 3


def _small(text: str) -> str:
    """Return a text as the tokenizers' normalizer leaves it."""
    return "".join(one.lower() for one in unicodedata.normalize("NFKC", text))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LANGUAGES)
def test_what_was_trained_on_is_known_and_the_service_reads_the_file(name: str, kind: Kind) -> None:
    texts = _texts(name)
    tokenizer = label_tokenizer(Tokenizing(kind), texts).tokenizer
    assert unknown_of(tokenizer, texts).share == 0
    assert tokenizer.token_to_id(UNKNOWN) == UNKNOWN_ID
    size = tokenizer.get_vocab_size()
    read = read_tokenizer("tokenizer.json", tokenizer.to_str().encode(), size)
    assert read.encode(texts[0]).ids == tokenizer.encode(texts[0]).ids


@pytest.mark.parametrize("kind", ["bpe", "characters", "bytes"])
@pytest.mark.parametrize("name", LANGUAGES)
def test_text_comes_back_in_small_letters(name: str, kind: Kind) -> None:
    texts = _texts(name)
    tokenizer = label_tokenizer(Tokenizing(kind), texts).tokenizer
    # The tokenizer of sub-words writes a space as U+2581.
    expected = _small(texts[2]).replace("\u2581", " ") if kind == "bpe" else _small(texts[2])
    assert tokenizer.decode(tokenizer.encode(texts[2]).ids) == expected


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
@pytest.mark.parametrize("name", LANGUAGES)
def test_no_text_is_unknown_to_subwords_and_bytes(name: str, kind: Kind) -> None:
    tokenizer = label_tokenizer(Tokenizing(kind), ["only Latin letters"] * 3).tokenizer
    assert unknown_of(tokenizer, _texts(name)).share == 0
    assert UNKNOWN_ID not in tokenizer.encode(_texts(name)[0]).ids


@pytest.mark.parametrize(
    ("kind", "trained", "asked", "share"),
    [
        ("word", ["good film"] * 2, "good plot, bad film!", 0.5),
        ("word", ["今天天气很好"] * 2, "今天很好,天气", 1.0),
        ("characters", ["今天天气很好"] * 2, "今天很糟", 0.25),
        ("word", ["a"] * 2, "?! ...", 0.0),
    ],
)
def test_share_of_unknown_words_leaves_signs_out(
    kind: Kind, trained: list[str], asked: str, share: float
) -> None:
    assert unknown_of(label_tokenizer(Tokenizing(kind), trained).tokenizer, [asked]).share == share


def test_text_that_is_unknown_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        TrainingError,
        match=re.escape("found 97.0 % of them unknown, such as '今天很好': use --tokenizer bpe"),
    ):
        check_known("word", Unknown(0.97, "今天很好"))
    check_known("word", Unknown(REFUSED_SHARE, "seldom"))


def test_auto_takes_words_where_they_come_again_and_subwords_else() -> None:
    spaced = [f"the {color} cat is {mood}" for color in ("red", "blue") for mood in ("fine", "ill")] * 5
    unspaced = [
        f"这只{color}色的猫今天很{mood}{index}" for color in "红蓝" for mood in "好病" for index in "一二三"
    ]
    assert chosen_kind(spaced) == "word"
    assert chosen_kind(unspaced) == "bpe"
    assert label_tokenizer(Tokenizing("auto"), unspaced).kind == "bpe"


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("Turkish", "IŞIK İSTANBUL", "ışık istanbul"),
        ("Arabic", "كَتَبَ", "كتب"),
        ("Arabic", "كـــتب", "كتب"),
        ("Hebrew", "שָׁלוֹם", "שלום"),
        ("Greek", "ΛΟΓΟΣ", "λογος"),
        ("Japanese", "ガソリン", "ｶﾞｿﾘﾝ"),
        ("German, decomposed", "MU\u0308DE", "müde"),
        ("English", "CAN\u2019T", "can't"),
        ("Persian", "می\u200cخواهم", "میخواهم"),
        ("emoji", "❤\ufe0f", "❤"),
    ],
)
def test_spellings_of_a_word_are_one(name: str, one: str, other: str) -> None:
    normalizer = Normalizer(rules_for(LANGUAGES[name][:2]))
    tokenizer: Tokenizer = word_tokenizer([normalizer.normalized(other)] * 2)
    found, expected = (tokenizer.encode(normalizer.normalized(text)).ids for text in (one, other))
    assert found == expected
    assert UNKNOWN_ID not in found


def test_rules_of_a_text_in_latin_letters_are_those_of_every_model() -> None:
    assert rules_for(["A plain text.", "İstanbul is a city"] * 20) == choose(kept=())


@pytest.mark.parametrize("name", ["Hindi", "Tamil", "Thai", "Khmer"])
def test_combining_marks_are_parts_of_words(name: str) -> None:
    texts = _texts(name)
    for kind in ("word", "bpe"):
        tokens = label_tokenizer(Tokenizing(kind), texts).tokenizer.encode(texts[0]).tokens
        assert not [one for one in tokens if unicodedata.category(one[0]).startswith("M")]


def test_number_of_tokens_is_kept_and_refused() -> None:
    texts = [f"{one}{other}{one}" for one in "abcdefghij" for other in "klmnopqrst"] * 3
    sizes: dict[Kind, int] = {"word": 20, "characters": 10, "bpe": 330}
    for kind, size in sizes.items():
        assert label_tokenizer(Tokenizing(kind, size), texts).tokenizer.get_vocab_size() == size
    with pytest.raises(TrainingError, match="expected 320 to 200,000 tokens for --tokenizer bpe, found 300"):
        label_tokenizer(Tokenizing("bpe", 300), texts)
    with pytest.raises(TrainingError, match="found one of bytes"):
        label_tokenizer(Tokenizing("bytes", 256), texts)
