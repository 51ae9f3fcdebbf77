"""Reads a tokenizer file, and refuses what may take without bound longer than the text that it is given.

A trial gives a tokenizer no text, and a caller's text may be any: a padding to millions of tokens, a
replacement that multiplies a text or a regular expression that backtracks would hold every call. So only
those steps and models pass whose work is bounded by the length of the text.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from service.contract.spec import Generation
from service.errors import ModelRefused, shown

_NORMALIZERS = frozenset(
    {"Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents", "BertNormalizer"}
)
_PRE_TOKENIZERS = frozenset(
    {
        "Whitespace",
        "WhitespaceSplit",
        "BertPreTokenizer",
        "Punctuation",
        "Digits",
        "ByteLevel",
        "Metaspace",
        "Split",
    }
)
_POST_PROCESSORS = frozenset({"ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"})
_MODELS = frozenset({"WordLevel", "WordPiece", "BPE", "Unigram"})
_SEQUENCE = "Sequence"
_MAX_STEPS = 16
# Tokens that a post-processor puts before a text.
_MAX_ADDED = 16
# Of the model's own strings, which it hashes or copies for each word or character; and of Unigram's tokens,
# which it all tries at each character.
_MAX_CHARACTERS = 64
_STRINGS = ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")
# WordPiece tries every part of a word; the library's default.
_MAX_WORD = 100


def read_tokenizer(name: str, data: bytes, size: int, *, is_processed: bool = False) -> Tokenizer:
    """Parse a tokenizer file.

    Args:
        name: name of the file, for the error text.
        data: contents of the file.
        size: vocabulary size of the network.
        is_processed: it may have a post-processor, which `check_prompts` or `check_added` looks at.

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
    if is_processed:
        _check_steps("post_processor", tokenizer.post_processor, "processors", _POST_PROCESSORS)
    elif tokenizer.post_processor is not None:
        raise ModelRefused("tokenizer", "no post_processor", shown(tokenizer.post_processor))
    _check_model(tokenizer)
    return tokenizer


def check_prompts(tokenizer: Tokenizer, section: Generation) -> None:
    """Check that the post-processor adds nothing behind a text, which would end a prompt.

    Raises:
        ModelRefused: it does, or it adds too many tokens before a text, or the start token a second time.
    """
    if tokenizer.post_processor is None:
        return
    own, processed = _sample(tokenizer)
    before = len(processed) - len(own)
    if processed[before:] != own:
        raise ModelRefused(
            "tokenizer",
            "a post_processor that adds no token behind a text, so that a prompt can be continued",
            f"one that adds {shown(tokenizer.id_to_token(processed[-1]))}",
        )
    if before > _MAX_ADDED:
        raise ModelRefused(
            "tokenizer", f"a post_processor that adds at most {_MAX_ADDED} tokens", f"{before}"
        )
    if before and section.prepend_start:
        raise ModelRefused(
            "tokenizer",
            "prepend_start to be false beside a post_processor that adds tokens before a text",
            f"true and {shown(tokenizer.id_to_token(processed[0]))}",
        )


def check_added(tokenizer: Tokenizer) -> None:
    """Check the post-processor of a source's tokenizer, which may add tokens before and behind a text.

    Raises:
        ModelRefused: it adds too many.
    """
    if tokenizer.post_processor is None:
        return
    own, processed = _sample(tokenizer)
    if (added := len(processed) - len(own)) > _MAX_ADDED:
        raise ModelRefused("tokenizer", f"a post_processor that adds at most {_MAX_ADDED} tokens", f"{added}")


def _sample(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the tokens of a text without and with those that the post-processor adds."""
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token])
        try:
            own = tokenizer.encode(text, add_special_tokens=False).ids
            if own:
                return own, tokenizer.encode(text).ids
        except Exception:  # noqa: S112 - this text has no token; another one has
            continue
    raise ModelRefused("tokenizer", "a text that has a token", "none")


def _check_parts(tokenizer: Tokenizer) -> None:
    """Check the parts around the model, as the library has read them."""
    for part in ("padding", "truncation"):
        if (found := getattr(tokenizer, part)) is not None:
            raise ModelRefused("tokenizer", f"no {part}", shown(found))
    _check_steps("normalizer", tokenizer.normalizer, "normalizers", _NORMALIZERS)
    _check_steps("pre_tokenizer", tokenizer.pre_tokenizer, "pretokenizers", _PRE_TOKENIZERS)
    _check_splits(tokenizer.pre_tokenizer)


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


def _check_splits(pre_tokenizer: Any) -> None:
    """Check that texts are split at strings alone: a regular expression may backtrack."""
    if pre_tokenizer is None:
        return
    for step in _flat(json.loads(pre_tokenizer.__getstate__()), "pretokenizers"):
        if step["type"] == "Split" and not step["pattern"].get("String"):
            raise ModelRefused("tokenizer", "a Split at a string", shown(step["pattern"]))


def _kinds(step: Mapping[str, Any], inner: str) -> Iterator[str]:
    """Yield the kind of a step, or of each step of a sequence."""
    for one in _flat(step, inner):
        yield one["type"]


def _flat(step: Mapping[str, Any], inner: str) -> Iterator[Mapping[str, Any]]:
    """Yield a step, or each step of a sequence."""
    if step["type"] != _SEQUENCE:
        yield step
        return
    for one in step[inner]:
        yield from _flat(one, inner)


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
