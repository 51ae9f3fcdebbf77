"""service.tasks.detokenizer: texts in pieces are those of all tokens at once, and no piece has half a
character.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from service.errors import ModelRefused
from service.tasks.detokenizer import BROKEN, Detokenizer, TokenTexts, context_after, token_texts
from service.tasks.states import NEW_TEXT
from tests.tokenizers_of_kinds import KINDS, LINES, tokenizer_of

HIDDEN = (0, 1, 2)
TEXTS = {kind: token_texts(tokenizer_of(kind), HIDDEN[:2]) for kind in KINDS}
# The library drops a whole run of bytes with one wrong byte, which is known only at its end.
COMPARED = [kind for kind in KINDS if kind != "fallback"]


def ids_of(kind: str, *names: str) -> list[int]:
    """Return the ids of tokens of the vocabulary."""
    return [tokenizer_of(kind).get_vocab()[name] for name in names]


def pieces_of(texts: TokenTexts, ids: list[int], sizes: list[int]) -> tuple[list[str], list[int]]:
    """Return the text of each piece of tokens and of the end, and how many tokens were whole after each."""
    detokenizer, pieces, counts, start = Detokenizer(texts), [], [], 0
    for size in [*sizes, len(ids)]:
        found = detokenizer.push(ids[start : start + size])
        pieces.append(found.text)
        counts.append(len(found.ends))
        start += size
    last = detokenizer.flush()
    return [*pieces, last.text], [*counts, len(last.ends)]


@pytest.mark.parametrize("kind", COMPARED)
@settings(max_examples=60)
@given(data=st.data(), sizes=st.lists(st.integers(0, 5), max_size=12))
def test_pieces_are_the_text_of_all_tokens_at_once(kind: str, data: st.DataObject, sizes: list[int]) -> None:
    size = tokenizer_of(kind).get_vocab_size()
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=24))
    pieces, counts = pieces_of(TEXTS[kind], ids, sizes)
    assert "".join(pieces) == tokenizer_of(kind).decode(ids)
    assert sum(counts) == len(ids)


@pytest.mark.parametrize("kind", ["byte-level", "fallback"])
@given(data=st.data())
def test_no_piece_has_a_part_of_a_character(kind: str, data: st.DataObject) -> None:
    """A broken character is shown where bytes are none, not where a character is cut between two pieces."""
    text = data.draw(st.sampled_from(LINES)) + data.draw(st.text("a\u00e9\u4e16\U0001f642", max_size=8))
    ids = tokenizer_of(kind).encode(text, add_special_tokens=False).ids
    pieces, _ = pieces_of(TEXTS[kind], ids, [1] * len(ids))
    assert not any(BROKEN in piece for piece in pieces)
    assert "".join(pieces) == tokenizer_of(kind).decode(ids)


def test_byte_fallback_shows_bytes_that_are_no_character_and_keeps_those_beside() -> None:
    ids = ids_of("fallback", "a", "<0xC3>", "<0xA9>", "<0xE4>", "<0xB8>", "b", "<0xF0>")
    assert pieces_of(TEXTS["fallback"], ids, [1] * 7)[0] == [
        "a",
        "",
        "\u00e9",
        "",
        "",
        BROKEN + "b",
        "",
        "",
        BROKEN,
    ]


def test_broken_end_is_shown_once_at_the_very_end() -> None:
    ids = ids_of("byte-level", "\u00f0", "\u0141", "\u013b")  # bytes F0 9F 99, three of four
    assert pieces_of(TEXTS["byte-level"], ids, [1, 1, 1])[0] == ["", "", "", "", BROKEN]


def test_surrogate_bytes_are_not_waited_for() -> None:
    ids = ids_of("byte-level", "\u00ed", "\u0142")  # bytes ED A0
    assert pieces_of(TEXTS["byte-level"], ids, [1, 1])[0] == ["", BROKEN * 2, "", ""]


def test_tokens_of_one_character_are_whole_together() -> None:
    first, second, third, letter = ids_of("byte-level", "\u00e4", "\u00b8", "\u0138", "a")  # E4 B8 96
    detokenizer = Detokenizer(TEXTS["byte-level"])
    found = detokenizer.push([letter, first, second])
    assert (found.text, list(found.after), list(found.ends)) == ("a", [1, 1, 1], [1])
    found = detokenizer.push([third, letter])
    assert (found.text, list(found.after), list(found.ends)) == ("\u4e16a", [1, 2], [1, 1, 1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_not_shown(kind: str) -> None:
    word = tokenizer_of(kind).encode("the", add_special_tokens=False).ids
    pieces, counts = pieces_of(TEXTS[kind], [0, *word, 2, 1], [])
    assert ("".join(pieces), sum(counts)) == ("the", 3 + len(word))


@pytest.mark.parametrize(
    ("kind", "text"),
    [("words", " cat"), ("bpe", " cat"), ("word-piece", " cat"), ("metaspace", " cat"), ("fallback", " cat")],
)
def test_text_after_a_prompt_begins_with_the_space_between_them(kind: str, text: str) -> None:
    tokenizer, texts = tokenizer_of(kind), TEXTS[kind]
    prompt, word = (tokenizer.encode(one, add_special_tokens=False).ids for one in ("the", "cat"))
    after = Detokenizer(texts, context_after(texts, NEW_TEXT, [*prompt, 1]))
    assert after.push(word).text == text
    assert Detokenizer(texts, context_after(texts, NEW_TEXT, [0])).push(word).text == "cat"


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_context_continues_a_text(kind: str, data: st.DataObject) -> None:
    size = tokenizer_of(kind).get_vocab_size()
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=16))
    cut = data.draw(st.integers(0, len(ids)))
    whole = "".join(pieces_of(TEXTS[kind], ids, [])[0])
    first = Detokenizer(TEXTS[kind])
    begun = first.push(ids[:cut]).text + first.pause().text
    second = Detokenizer(TEXTS[kind], first.context)
    assert begun + second.push(ids[cut:]).text + second.flush().text == whole


# Admission.


def words(**decoder: decoders.Decoder) -> Tokenizer:
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    for one in decoder.values():
        made.decoder = one
    return made


def test_decoder_that_looks_at_several_tokens_is_refused() -> None:
    """CTC drops a token that repeats the one before it, so that no token has a text of its own."""
    with pytest.raises(ModelRefused, match="a decoder that decodes one token after the other") as refusal:
        token_texts(words(decoder=decoders.CTC("c", " ", cleanup=False)), ())
    assert refusal.value.check == "tokenizer"


FUSED = decoders.Fuse()


@pytest.mark.parametrize(
    ("decoder", "found"),
    [
        (decoders.CTC(), "'CTC'"),
        (decoders.Sequence([FUSED, decoders.Replace("qqq", "")]), "'Replace' after Fuse"),
        (decoders.Sequence([decoders.ByteLevel(), decoders.Replace("qqq", "")]), "'Replace' after ByteLevel"),
        (decoders.Sequence([FUSED, decoders.Strip(" ", 1, 1)]), "Strip of 1 characters before and 1 behind"),
        (decoders.Sequence([FUSED, decoders.Strip(" ", 2, 0)]), "Strip of 2 characters before and 0 behind"),
        (decoders.Strip("a", 1, 1), "one that fails: '"),
    ],
    ids=[
        "repeats dropped",
        "text replaced",
        "text of bytes replaced",
        "end stripped",
        "two stripped",
        "panic",
    ],
)
def test_decoder_that_no_try_may_find_out_is_refused(decoder: decoders.Decoder, found: str) -> None:
    """Of 30,000 tokens hardly two in a row are equal in the sequences that are tried."""
    with pytest.raises(ModelRefused, match=f"one token after the other, found {found}") as refusal:
        token_texts(words(decoder=decoder), ())
    assert refusal.value.check == "tokenizer"


def test_decoder_that_strips_the_first_space_decodes_tokens_one_by_one() -> None:
    texts = token_texts(words(decoder=decoders.Sequence([FUSED, decoders.Strip(" ", 1, 0)])), ())
    assert texts.later == ["a", "b", "c"]


def test_ids_with_a_gap_are_refused() -> None:
    made = Tokenizer(models.WordLevel({"a": 0, "b": 2}, unk_token="a"))
    with pytest.raises(ModelRefused, match=r"expected tokens of ids 0\.\.1, found none of id 1"):
        token_texts(made, ())


def test_tokenizer_that_shows_nothing_is_refused() -> None:
    with pytest.raises(ModelRefused, match="expected a token that has a text, found none"):
        token_texts(words(), (0, 1, 2))
