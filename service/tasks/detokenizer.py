"""Tokens to text as they come: never a part of a character, and in all the text that they have at once.

What a token adds to a text is looked up in tables that are made when a model is loaded, so that a token costs
the same however long the text is.
"""

import codecs
import json
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from service.errors import ModelRefused, shown
from service.tasks.states import NEW_TEXT, TextContext

# Stands for bytes that are no character.
BROKEN = "\ufffd"
_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Sequences of tokens that the tables must decode as the library does.
_TRIED, _TRIED_TOKENS = 256, 12
_BYTE_LEVEL, _BYTE_FALLBACK, _BPE = "ByteLevel", "ByteFallback", "BPEDecoder"
_FUSE, _STRIP = "Fuse", "Strip"
# Decoders whose text of a token depends on no other one. Tries alone would miss one that drops repeated
# tokens, or replaces what rarely comes up, in a large vocabulary.
_DECODERS = frozenset({_BYTE_LEVEL, _BYTE_FALLBACK, _BPE, _FUSE, _STRIP, "Metaspace", "Replace", "WordPiece"})


@dataclass(frozen=True, slots=True)
class TokenTexts:
    """Text that each token adds, by id; bytes where they are no text by themselves.

    Attributes:
        first: as the first token of a text.
        later: as any other.
        between: what follows a token once there is another one; most have none.
        hidden: tokens that add nothing, such as those for start and end.
    """

    first: Sequence[str | bytes]
    later: Sequence[str | bytes]
    between: Mapping[int, str]
    hidden: frozenset[int]

    @property
    def max_bytes(self) -> int:
        """Bytes of the longest text of a token in UTF-8, with what may come before it."""
        # A byte that is no character becomes one of three bytes.
        own = (
            len(one.encode()) if isinstance(one, str) else 3 * len(one) for one in (*self.first, *self.later)
        )
        return max(own) + max((len(one) for one in self.between.values()), default=0) + 3


class Detokenized(NamedTuple):
    """The text that tokens have released.

    Attributes:
        text: whole characters.
        after: how many characters of `text` were there after each token.
        ends: for each token whose text is now whole, in order: how many characters of `text` are there up to
            its end. Tokens that waited for the rest of a character come first.
    """

    text: str
    after: Sequence[int]
    ends: Sequence[int]


class Detokenizer:
    """Decodes the tokens of one text.

    Args:
        texts: what each token adds.
        context: where the text goes on.
    """

    def __init__(self, texts: TokenTexts, context: TextContext = NEW_TEXT) -> None:
        self._texts = texts
        self._has_begun, self._between, self._held = context.has_begun, context.between, context.held
        self._waiting = 0  # tokens whose text is not whole

    @property
    def context(self) -> TextContext:
        """State of the text before the next token."""
        return TextContext(self._has_begun, self._between, self._held)

    def push(self, ids: Sequence[int]) -> Detokenized:
        """Take tokens; the bytes of a character are held back until it is whole."""
        parts: list[str] = []
        after: list[int] = []
        ends: list[int] = []
        length = 0
        for token in ids:
            text = self._text_of(token)
            if text and self._waiting:
                ends += [length + 1] * self._waiting  # they are part of the first character
                self._waiting = 0
            length += len(text)
            parts.append(text)
            after.append(length)
            if self._held:
                self._waiting += 1
            else:
                ends.append(length)
        return Detokenized("".join(parts), after, ends)

    def flush(self) -> Detokenized:
        """Return what is held back: the text ends here."""
        text, self._held = BROKEN if self._held else "", b""
        return self._settled(text)

    def pause(self) -> Detokenized:
        """Wait no longer for the rest of a character, which `context` keeps: another text goes on from it."""
        return self._settled("")

    def _settled(self, text: str) -> Detokenized:
        waiting, self._waiting = self._waiting, 0
        return Detokenized(text, [], [len(text)] * waiting)

    def _text_of(self, token: int) -> str:
        """Return the whole characters that are there with one more token."""
        texts = self._texts
        if token in texts.hidden:
            return ""
        own = (texts.later if self._has_begun else texts.first)[token]
        between, self._between = self._between, texts.between.get(token, "")
        self._has_begun = True
        if isinstance(own, str) and not self._held:
            return between + own
        text, self._held = _decoded(
            self._held + between.encode() + (own.encode() if isinstance(own, str) else own)
        )
        return text


def _decoded(data: bytes) -> tuple[str, bytes]:
    """Return the text of bytes, and those at its end that begin a character."""
    text, used = codecs.utf_8_decode(data, "replace", False)
    held = data[used:]
    # Python waits for the third byte of a surrogate, which is no character whatever comes.
    if held[:1] == b"\xed" and held[1:] >= b"\xa0":
        return text + BROKEN * len(held), b""
    return text, held


def context_after(texts: TokenTexts, context: TextContext, ids: Sequence[int]) -> TextContext:
    """Return the context after the tokens of a prompt, whose own text nobody reads.

    A character that a prompt interrupts is not shown: its rest cannot come any more.
    """
    last = next((token for token in reversed(ids) if token not in texts.hidden), None)
    if last is None:
        return context
    return TextContext(has_begun=True, between=texts.between.get(last, ""))


def token_texts(tokenizer: Tokenizer, hidden: Collection[int]) -> TokenTexts:
    """Make the tables of a tokenizer, and try them against its own decoder.

    Args:
        tokenizer: with the ids 0..size-1.
        hidden: tokens that are not shown, beside the special ones of the file.

    Raises:
        ModelRefused: an id has no token, or texts are not those of their tokens one after the other.
    """
    size = tokenizer.get_vocab_size()
    names: list[str] = []
    for token in range(size):
        name = tokenizer.id_to_token(token)
        if name is None:
            raise ModelRefused("tokenizer", f"tokens of ids 0..{size - 1}", f"none of id {token}")
        names.append(name)
    added = tokenizer.get_added_tokens_decoder()
    specials = {token for token, one in added.items() if one.special}
    decoder = tokenizer.decoder
    steps = [] if decoder is None else list(_steps(json.loads(decoder.__getstate__())))
    _check_steps(steps)
    try:
        texts = _tables(tokenizer, names, steps, frozenset(specials | set(hidden)))
        _try_tables(tokenizer, texts)
    except BaseException as error:
        # A panic in Rust is no Exception; its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise _not_in_order(f"one that fails: {shown(str(error))}") from None
    return texts


def _check_steps(steps: Sequence[Mapping[str, Any]]) -> None:
    """Check that the text of a token depends on no other one.

    After Fuse and ByteLevel, which join the tokens, a step sees the whole text.
    """
    kinds = [step["type"] for step in steps]
    for kind in kinds:
        if kind not in _DECODERS:
            raise _not_in_order(shown(kind))
    joining = next((place for place, kind in enumerate(kinds) if kind in (_FUSE, _BYTE_LEVEL)), len(kinds))
    for step in steps[joining + 1 :]:
        if step["type"] not in (_FUSE, _STRIP):
            raise _not_in_order(f"{shown(step['type'])} after {kinds[joining]}")
        if step["type"] == _STRIP and (step["start"] > 1 or step["stop"] > 0):
            raise _not_in_order(
                f"{_STRIP} of {step['start']} characters before and {step['stop']} behind the text"
            )


def _tables(
    tokenizer: Tokenizer,
    names: Sequence[str],
    steps: Sequence[Mapping[str, Any]],
    hidden: frozenset[int],
) -> TokenTexts:
    kinds = [step["type"] for step in steps]
    if kinds == [_BYTE_LEVEL]:
        own = [_shortest(_bytes_of(name)) for name in names]
        return TokenTexts(own, own, {}, hidden)
    if kinds == [_BPE] and (suffix := steps[0]["suffix"]):
        own = [name.removesuffix(suffix) for name in names]
        between = {token: " " for token, name in enumerate(names) if name.endswith(suffix)}
        return TokenTexts(own, own, between, hidden)
    in_bytes = dict(_fallback_bytes(names)) if _BYTE_FALLBACK in kinds else {}
    first, later = _asked_tables(tokenizer, hidden | in_bytes.keys())
    for token, byte in in_bytes.items():
        if byte >= 0x80:
            first[token] = later[token] = bytes([byte])
    return TokenTexts(first, later, {}, hidden)


def _steps(decoder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a decoder, or each decoder of a sequence."""
    if decoder["type"] != "Sequence":
        yield decoder
        return
    for one in decoder["decoders"]:
        yield from _steps(one)


def _asked_tables(
    tokenizer: Tokenizer, excluded: frozenset[int]
) -> tuple[list[str | bytes], list[str | bytes]]:
    """Ask the library for the text of each token: alone, and behind one that is not excluded."""
    ids = range(tokenizer.get_vocab_size())
    first: list[str | bytes] = list(tokenizer.decode_batch([[token] for token in ids]))
    anchor = next((token for token in ids if token not in excluded and first[token]), None)
    if anchor is None:
        raise ModelRefused("tokenizer", "a token that has a text", "none")
    start = first[anchor]
    assert isinstance(start, str), "the library gives texts"
    later: list[str | bytes] = []
    for token, pair in zip(ids, tokenizer.decode_batch([[anchor, token] for token in ids]), strict=True):
        if not pair.startswith(start):
            raise _not_in_order(f"{shown(pair)} for tokens {anchor} and {token}")
        later.append(pair.removeprefix(start))
    return first, later


def _bytes_of(name: str) -> bytes:
    """Return the bytes of a token of a byte-level vocabulary; one that was added stands for its own text."""
    try:
        return bytes(map(BYTE_OF_CHARACTER.__getitem__, name))
    except KeyError:
        return name.encode()


def _byte_characters() -> dict[str, int]:
    """Return the byte of each character of a byte-level alphabet, as GPT-2 has defined it.

    Printable bytes stand for themselves; the others are the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


# The byte that each character of a byte-level vocabulary stands for.
BYTE_OF_CHARACTER = _byte_characters()


def _shortest(data: bytes) -> str | bytes:
    """Return the text of bytes where they are one."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _fallback_bytes(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the tokens such as <0xE2>, with the byte that each stands for."""
    for token, name in enumerate(names):
        if found := _FALLBACK.fullmatch(name):
            yield token, int(found[1], 16)


def _try_tables(tokenizer: Tokenizer, texts: TokenTexts) -> None:
    """Compare random sequences with the library's text of them.

    Of byte fallback only whole characters are compared: the library drops a run of bytes with one wrong byte
    as a whole, which cannot be known before the run ends.
    """
    visible = [token for token in range(len(texts.first)) if token not in texts.hidden]
    if texts.first is not texts.later:
        visible = [token for token in visible if isinstance(texts.first[token], str)]
    if not visible:
        raise ModelRefused("tokenizer", "a token that has a text", "none")
    drawn = random.Random(0)  # noqa: S311 - the same sequences in every process
    for _ in range(_TRIED):
        ids = drawn.choices(visible, k=drawn.randint(1, _TRIED_TOKENS))
        detokenizer = Detokenizer(texts)
        found = detokenizer.push(ids).text + detokenizer.flush().text
        if (expected := tokenizer.decode(ids, skip_special_tokens=False)) != found:
            raise _not_in_order(f"{shown(expected)} for tokens {ids[:8]}")


def _not_in_order(found: str) -> ModelRefused:
    return ModelRefused("tokenizer", "a decoder that decodes one token after the other", found)
