"""Reads a tokenizer file, and refuses what may take without bound longer than the text that it is given.

A trial gives a tokenizer no text, and a caller's text may be any: a padding to millions of tokens, a
replacement that multiplies a text or a regular expression that backtracks would hold every call. So only
those steps and models pass whose work is bounded by the length of the text.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from service.errors import ModelRefused, shown

_NORMALIZERS = frozenset(
    {"Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents", "BertNormalizer"}
)
_PRE_TOKENIZERS = frozenset(
    {"Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Punctuation", "Digits", "ByteLevel", "Metaspace"}
)
_MODELS = frozenset({"WordLevel", "WordPiece", "BPE", "Unigram"})
_SEQUENCE = "Sequence"
_MAX_STEPS = 16
# Of the model's own strings, which it hashes or copies for each word or character; and of Unigram's tokens,
# which it all tries at each character.
_MAX_CHARACTERS = 64
_STRINGS = ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")
# WordPiece tries every part of a word; the library's default.
_MAX_WORD = 100


def read_tokenizer(name: str, data: bytes, size: int) -> Tokenizer:
    """Parse a tokenizer file.

    Args:
        name: name of the file, for the error text.
        data: contents of the file.
        size: vocabulary size of the network.

    Raises:
        ModelRefused: the file is not a tokenizer, it has a part that is not allowed, or its vocabulary has
            another size.
    """
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:
        raise ModelRefused("tokenizer", f"a tokenizer in {name}", str(error)) from error
    if tokenizer.get_vocab_size() != size:
        raise ModelRefused(
            "tokenizer", f"{size} tokens, as the network has", f"{tokenizer.get_vocab_size()} in {name}"
        )
    _check_parts(tokenizer)
    _check_model(tokenizer)
    return tokenizer


def _check_parts(tokenizer: Tokenizer) -> None:
    """Check the parts around the model, as the library has read them."""
    for part in ("padding", "truncation", "post_processor"):
        if (found := getattr(tokenizer, part)) is not None:
            raise ModelRefused("tokenizer", f"no {part}", shown(found))
    _check_steps("normalizer", tokenizer.normalizer, "normalizers", _NORMALIZERS)
    _check_steps("pre_tokenizer", tokenizer.pre_tokenizer, "pretokenizers", _PRE_TOKENIZERS)


def _check_steps(part: str, found: Any, inner: str, allowed: frozenset[str]) -> None:
    """Check the kind and number of steps of a normalizer or pre-tokenizer, None where there is none."""
    if found is None:
        return
    # What is pickled is the same JSON as in the file.
    kinds = list(_kinds(json.loads(found.__getstate__()), inner))
    for kind in kinds:
        if kind not in allowed:
            raise ModelRefused("tokenizer", f"a {part} of {', '.join(sorted(allowed))}", shown(kind))
    if len(kinds) > _MAX_STEPS:
        raise ModelRefused("tokenizer", f"a {part} of at most {_MAX_STEPS} steps", f"{len(kinds)}")


def _kinds(step: Mapping[str, Any], inner: str) -> Iterator[str]:
    """Yield the kind of a step, or of each step of a sequence."""
    if step["type"] != _SEQUENCE:
        yield step["type"]
        return
    for one in step[inner]:
        yield from _kinds(one, inner)


def _check_model(tokenizer: Tokenizer) -> None:
    """Check that the model's answer depends on the text alone, and its time on the text's length."""
    model = tokenizer.model
    if (kind := type(model).__name__) not in _MODELS:
        raise ModelRefused("tokenizer", f"a model of {', '.join(sorted(_MODELS))}", shown(kind))
    for field in _STRINGS:
        if len(getattr(model, field, None) or "") > _MAX_CHARACTERS:
            raise ModelRefused(
                "tokenizer",
                f"{field} of at most {_MAX_CHARACTERS} characters",
                f"{len(getattr(model, field))}",
            )
    if dropout := getattr(model, "dropout", None):
        raise ModelRefused("tokenizer", "no dropout", f"{dropout:g}")
    if (longest := getattr(model, "max_input_chars_per_word", 0)) > _MAX_WORD:
        raise ModelRefused("tokenizer", f"max_input_chars_per_word of at most {_MAX_WORD}", f"{longest}")
    if kind == "Unigram" and (longest := max(map(len, tokenizer.get_vocab()))) > _MAX_CHARACTERS:
        raise ModelRefused("tokenizer", f"tokens of at most {_MAX_CHARACTERS} characters", f"{longest}")
