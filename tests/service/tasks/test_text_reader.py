"""service.tasks.text_reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Split, Whitespace

from service.contract import spec
from service.errors import InvalidArgument, ModelFailure
from service.tasks.text_reader import TextReader, Tokens

RULES = spec.Normalization(line_ends=True, form="NFC", characters={"\u2026": "...", "\u00ad": ""})
CHARACTERS = spec.Characters(kind="characters", vocabulary="abcé. \n", normalization=RULES)
FILE = spec.TokenizerFile(kind="tokenizer", file="tokenizer.json", normalization=RULES)
WORDS = ("[UNK]", "caf\u00e9", "soft", "...", "a")
# Characters that stay, compose, expand, vanish, or join.
TRICKY = "abe\u0301\u2026\u00ad\r\n. \u00e9"


def words() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def byte_pairs() -> Tokenizer:
    """A byte-level tokenizer without merges: a token a byte."""
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({one: index for index, one in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return tokenizer


def characters_of(text: str) -> Tokens:
    [tokens] = TextReader("model", CHARACTERS, None).read([text], ["inputs[0].text"], with_spans=True)
    return tokens


def shown(text: str, tokens: Tokens) -> list[str]:
    assert tokens.spans is not None
    return [text[start:end] for start, end in tokens.spans]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("abc", ["a", "b", "c"], id="as it is"),
        pytest.param("ce\u0301a", ["c", "e\u0301", "a"], id="a letter and its accent"),
        pytest.param("a\r\nb\rc", ["a", "\r\n", "b", "\r", "c"], id="line ends"),
        pytest.param("a\u2026b", ["a", "\u2026", "\u2026", "\u2026", "b"], id="one that stands for three"),
        pytest.param("a\u00adb", ["a\u00ad", "b"], id="one that is dropped"),
    ],
)
def test_each_character_has_its_place_in_the_callers_text(text: str, parts: list[str]) -> None:
    assert shown(text, characters_of(text)) == parts


@given(st.text(st.sampled_from(TRICKY), min_size=1, max_size=30))
def test_spans_rise_within_the_text_and_skip_nothing_but_what_is_dropped(text: str) -> None:
    try:
        tokens = characters_of(text)
    except InvalidArgument:  # nothing is left, or an accent that composes with nothing
        return
    assert tokens.spans is not None
    assert len(tokens.spans) == len(tokens.ids)
    assert all(0 <= start < end <= len(text) for start, end in tokens.spans)
    assert tokens.spans == sorted(tokens.spans)
    covered = {index for start, end in tokens.spans for index in range(start, end)}
    assert {text[index] for index in set(range(len(text))) - covered} <= {"\u00ad"}


def test_words_have_their_places_in_the_callers_text() -> None:
    text = "cafe\u0301  so\u00adft\u2026 zzz"
    [tokens] = TextReader("model", FILE, words()).read([text], ["text"], with_spans=True)
    assert tokens.ids.tolist() == [1, 2, 3, 0]
    assert shown(text, tokens) == ["cafe\u0301", "so\u00adft", "\u2026", "zzz"]


def test_bytes_of_one_character_share_its_place() -> None:
    text = "a\u00e9\U0001f600"
    [tokens] = TextReader("model", FILE, byte_pairs()).read([text], ["text"], with_spans=True)
    assert shown(text, tokens) == ["a", *["\u00e9"] * 2, *["\U0001f600"] * 4]


@pytest.mark.parametrize("with_spans", [False, True])
def test_ids_are_the_same_with_and_without_spans(with_spans: bool) -> None:
    texts, paths = ["a soft a", "caf\u00e9"], ["one", "other"]
    read = TextReader("model", FILE, words()).read(texts, paths, with_spans)
    assert [one.ids.tolist() for one in read] == [[4, 2, 4], [1]]
    assert [one.spans is not None for one in read] == [with_spans] * 2


@pytest.mark.parametrize(
    ("section", "tokenizer", "text"),
    [(CHARACTERS, None, ""), (CHARACTERS, None, "\u00ad"), (FILE, words(), " \n")],
)
def test_text_without_a_token_is_refused_by_its_path(
    section: spec.Characters | spec.TokenizerFile, tokenizer: Tokenizer | None, text: str
) -> None:
    with pytest.raises(InvalidArgument, match="expected at least one token, found none") as refusal:
        TextReader("model", section, tokenizer).read(["a", text], ["one", "other"], with_spans=False)
    assert refusal.value.violations[0].field == "other"


def test_unknown_character_is_named_by_its_place() -> None:
    with pytest.raises(InvalidArgument, match=r"'x' \(U\+0078\) at position 2"):
        characters_of("a\u00adx")


def test_part_without_a_token_is_named_where_the_tokenizer_refuses_the_text() -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    reader = TextReader("model", FILE, tokenizer)
    assert [one.ids.tolist() for one in reader.read(["a b"], ["inputs[0].text"], False)] == [[0, 1]]
    with pytest.raises(InvalidArgument) as refused:
        reader.read(["a b", "a zz b"], ["inputs[0].text", "inputs[1].text"], False)
    [violation] = refused.value.violations
    assert violation.field == "inputs[1].text"
    assert violation.description.startswith("character 'z' (U+007A) at position 2 begins a part without a")


def test_part_that_a_tokenizer_would_drop_is_named() -> None:
    tokenizer = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.pre_tokenizer = Whitespace()
    reader = TextReader("model", FILE, tokenizer)
    assert [one.ids.tolist() for one in reader.read(["a ab"], ["inputs[0].text"], False)] == [[0, 2]]
    with pytest.raises(InvalidArgument, match=r"character 'z' .* at position 2") as refused:
        reader.read(["a b", "a zz b"], ["inputs[0].text", "inputs[1].text"], False)
    assert refused.value.violations[0].field == "inputs[1].text"


def test_panic_is_a_failure_of_the_model_and_is_not_asked_for_again() -> None:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("^(a+)+$"), "isolated")
    with pytest.raises(ModelFailure, match="the tokenizer failed on a text"):
        TextReader("model", FILE, tokenizer).read(["a" * 40 + "!"], ["inputs[0].text"], False)
