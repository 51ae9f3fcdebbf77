"""Trains sub-words that lose nothing: pieces of words, single characters, and bytes for what is neither.

Text is cut at spaces, at the ends of lines, at digits and around signs before pairs are merged (byte-pair
encoding, Sennrich et al. 2016). Combining marks stay with their letters: those of Devanagari, Thai or Arabic
are parts of words. A space is the first character of the word that it precedes, written as `SPACE`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training.data.tokenizing import BYTES, MIN_FREQUENCY, UNKNOWN

# Stands for a space in the names of tokens, as SentencePiece has it.
SPACE = "\u2581"
# Of the vocabulary; rarer characters are bytes. Chinese has thousands of them, most of them rare.
_ALPHABET_SHARE = 0.5


def pieces() -> pre_tokenizers.PreTokenizer:
    """Return what cuts a text into the pieces that are merged within: it keeps every character."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("contiguous"),
        ]
    )


def byte_pairs(
    texts: Iterable[str],
    vocabulary: int,
    *,
    has_unknown: bool,
    normalizer: normalizers.Normalizer | None = None,
) -> Tokenizer:
    """Train byte-pair encoding over characters.

    Args:
        texts: read once; a text ends where a word ends.
        vocabulary: largest number of tokens, those of the bytes among them.
        has_unknown: begin the vocabulary with the unknown token, which no text needs.
        normalizer: of the tokenizer.
    """
    room = vocabulary - BYTES - has_unknown
    trained = _untrained(models.BPE(), normalizer)
    trained.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=room,
            min_frequency=MIN_FREQUENCY,
            limit_alphabet=max(1, int(room * _ALPHABET_SHARE)),
            show_progress=False,
        ),
    )
    learnt = json.loads(trained.to_str())["model"]
    merges = [(first, second) for first, second in learnt["merges"]]
    return _lossless(_by_id(learnt["vocab"]), merges, has_unknown=has_unknown, normalizer=normalizer)


def whole_words(texts: Sequence[str] | Iterable[str], vocabulary: int, alphabet: Iterable[str]) -> Tokenizer:
    """Make a tokenizer of whole words, which spells those that it does not know.

    Args:
        texts: read once.
        vocabulary: largest number of tokens.
        alphabet: characters that are tokens, the most important first.
    """
    trained = _untrained(models.WordLevel(unk_token=UNKNOWN), None)
    trained.train_from_iterator(
        texts,
        trainers.WordLevelTrainer(
            vocab_size=vocabulary, min_frequency=MIN_FREQUENCY, special_tokens=[UNKNOWN], show_progress=False
        ),
    )
    room = vocabulary - BYTES
    letters = [SPACE, *(one for one in alphabet if one not in (" ", SPACE))][: int(room * _ALPHABET_SHARE)]
    # `UNKNOWN` was of use to the trainer alone.
    words = [word for word in _by_id(trained.get_vocab()) if word != UNKNOWN and word not in set(letters)]
    return _lossless([*letters, *words][:room], [], has_unknown=False, whole=True)


def single_bytes(*, has_unknown: bool, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """Make the tokenizer whose tokens are the bytes of UTF-8.

    Args:
        has_unknown: begin the vocabulary with the unknown token, which no text needs.
        normalizer: of the tokenizer.
    """
    names = [*([UNKNOWN] if has_unknown else []), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(_ids(names), [], unk_token=UNKNOWN if has_unknown else None))
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return _with_unknown(made, has_unknown=has_unknown)


def single_characters(alphabet: Iterable[str], normalizer: normalizers.Normalizer) -> Tokenizer:
    """Make the tokenizer whose tokens are characters; others are the unknown token.

    Args:
        alphabet: the characters.
        normalizer: of the tokenizer.
    """
    made = Tokenizer(models.BPE(_ids([UNKNOWN, *alphabet]), [], unk_token=UNKNOWN))
    made.normalizer = normalizer
    made.decoder = decoders.Fuse()
    return _with_unknown(made, has_unknown=True)


def _untrained(model: models.Model, normalizer: normalizers.Normalizer | None) -> Tokenizer:
    made = Tokenizer(model)
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pieces()
    return made


def _lossless(
    learnt: Sequence[str],
    merges: list[tuple[str, str]],
    *,
    has_unknown: bool,
    whole: bool = False,
    normalizer: normalizers.Normalizer | None = None,
) -> Tokenizer:
    """Return a tokenizer of learnt pieces that falls back to bytes."""
    names = [*([UNKNOWN] if has_unknown else []), *(f"<0x{byte:02X}>" for byte in range(BYTES)), *learnt]
    model = models.BPE(
        _ids(names),
        merges,
        unk_token=UNKNOWN if has_unknown else None,
        byte_fallback=True,
        ignore_merges=whole,
    )
    made = _untrained(model, normalizer)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence(steps)
    return _with_unknown(made, has_unknown=has_unknown)


def _with_unknown(tokenizer: Tokenizer, *, has_unknown: bool) -> Tokenizer:
    """Mark the unknown token, so that it is never written."""
    if has_unknown:
        tokenizer.add_special_tokens([AddedToken(UNKNOWN, special=True)])
    return tokenizer


def _by_id(vocabulary: Mapping[str, int]) -> list[str]:
    """Return tokens in the order of their ids."""
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _ids(names: Sequence[str]) -> dict[str, int]:
    return {name: token for token, name in enumerate(names)}
