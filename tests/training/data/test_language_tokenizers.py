"""Tokenizers of language models: nothing is lost, in any script, and the service decodes them alike."""

import unicodedata

import pytest

from service.contract.normalizing import Normalizer
from service.models.tokenizer_file import read_tokenizer
from service.tasks.detokenizer import Detokenizer, token_texts
from tests.training.data.languages import LANGUAGES
from training.data.language_tokenizers import (
    MOST_CHARACTERS,
    SAMPLE,
    FileKind,
    chosen_kind,
    language_tokenizer,
    num_subwords,
    rules_for,
    sample,
)
from training.data.subwords import SPACE
from training.data.tokenizing import Tokenizing
from training.errors import TrainingError

KINDS: tuple[FileKind, ...] = ("word", "bpe", "bytes")
NEVER_SEEN = " Щ\u4e00\U0001f9ff\u0e01"


def _trained_text(name: str) -> str:
    first, second, _ = LANGUAGES[name]
    return unicodedata.normalize("NFC", f"{first}\n{second} {first}\n" * 20).replace(SPACE, "_")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LANGUAGES)
def test_any_text_comes_back_as_it_was_normalized(name: str, kind: FileKind) -> None:
    trained = _trained_text(name)
    tokenizer = language_tokenizer(kind, [trained], len(trained))
    rules = rules_for(kind, "".join(sorted(set(trained))))
    text = Normalizer(rules).normalized("".join(LANGUAGES[name][:2]) + NEVER_SEEN)
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    served = Detokenizer(
        token_texts(
            read_tokenizer("tokenizer.json", tokenizer.to_str().encode(), tokenizer.get_vocab_size()), []
        )
    )
    assert served.push(ids).text + served.flush().text == text


@pytest.mark.parametrize("name", ["Hindi", "Tamil", "Thai", "Arabic", "Hebrew"])
def test_combining_marks_are_parts_of_words(name: str) -> None:
    trained = _trained_text(name)
    tokens = language_tokenizer("bpe", [trained], len(trained), 400).encode(LANGUAGES[name].first).tokens
    assert not [one for one in tokens if unicodedata.category(one[0]).startswith("M")]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_no_token_reaches_over_the_end_of_a_line(kind: FileKind) -> None:
    """So that a text has the same tokens whether it is read whole or a line at a time."""
    trained = "one two\nthree\n\nfour.\n" * 50
    tokenizer = language_tokenizer(kind, [trained], len(trained))
    by_line = [token for line in trained.splitlines(keepends=True) for token in tokenizer.encode(line).ids]
    assert tokenizer.encode(trained).ids == by_line


def test_words_are_whole_and_unknown_ones_are_spelled() -> None:
    trained = "the cat sat.\n" * 20
    tokenizer = language_tokenizer("word", [trained], len(trained))
    assert tokenizer.encode("the cat tasted\u00e9").tokens == [
        *("the", "\u2581cat", "\u2581", "t", "a", "s", "t", "e"),
        *("<0x64>", "<0xC3>", "<0xA9>"),
    ]


def test_vocabulary_is_as_large_as_was_asked_for() -> None:
    trained = "".join(f"{one}{other} {other}{one}a " for one in "abcdefghij" for other in "klmnopqrst") * 9
    for kind in ("bpe", "word"):
        assert language_tokenizer(kind, [trained], len(trained), 330).get_vocab_size() <= 330
    assert language_tokenizer("bpe", [trained], len(trained), 330).get_vocab_size() == 330


def test_default_number_of_subwords_holds_the_alphabet() -> None:
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))
    assert num_subwords([many], 200_000) == 256 + 3 * 1000
    assert num_subwords(["abc"], 200_000) == 1000
    assert num_subwords(["abc"], 1) == 512
    assert num_subwords([many], 1 << 30) == 8000


def test_auto_takes_characters_unless_there_are_many() -> None:
    few = "".join(map(chr, range(0x4E00, 0x4E00 + MOST_CHARACTERS)))
    assert chosen_kind(Tokenizing("auto"), few) == "characters"
    assert chosen_kind(Tokenizing("auto"), few + "a") == "bpe"
    assert chosen_kind(Tokenizing("auto", 400), few) == "bpe"
    assert chosen_kind(Tokenizing("bytes"), few) == "bytes"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Tokenizing("bpe", 256), "expected 320 to 200,000 tokens for --tokenizer bpe, found 256"),
        (Tokenizing("bytes", 300), "--vocabulary: expected for a tokenizer whose size can be chosen"),
        (Tokenizing("characters", 300), "found one of characters"),
    ],
)
def test_vocabulary_that_cannot_be_is_refused(wanted: Tokenizing, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        chosen_kind(wanted, "abc")


def test_sample_of_a_long_text_is_bounded_and_spread_over_it() -> None:
    blocks = (chr(ord("a") + index) * 100_000 for index in range(20))
    found = "".join(sample(blocks, 2_000_000, 500_000))
    assert 440_000 <= len(found) <= 560_000
    assert {found[0], found[-1]} <= set("abcdqrst")
    assert "".join(sample(["ab", "c"], 3, SAMPLE)) == "abc"
