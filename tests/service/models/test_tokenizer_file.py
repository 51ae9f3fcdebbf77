"""service.models.tokenizer_file: tokenizers that are allowed, and those that would hold every call."""

import json
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from service.contract import spec
from service.errors import ModelRefused
from service.models.tokenizer_file import check_prompts, read_tokenizer
from service.tasks.text import tokenize
from tests.integration.process import ROOT

WORDS = {"[UNK]": 0, "a": 1, "b": 2}


def words() -> Tokenizer:
    return Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))


def read(tokenizer: Tokenizer, **changes: Any) -> Tokenizer:
    """Read a tokenizer from its file, in which some fields have other values."""
    text = json.dumps(json.loads(tokenizer.to_str()) | changes)
    return read_tokenizer("tokenizer.json", text.encode(), len(WORDS))


def refusal_of(tokenizer: Tokenizer, **changes: Any) -> str:
    with pytest.raises(ModelRefused) as refusal:
        read(tokenizer, **changes)
    assert refusal.value.check == "tokenizer"
    return str(refusal.value).removeprefix("check 'tokenizer' failed: expected ")


def test_file_that_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ModelRefused, match=r"expected a tokenizer in tokenizer\.json, found"):
        read_tokenizer("tokenizer.json", b"{}", 1)


def test_shipped_tokenizers_pass() -> None:
    paths = list((ROOT / "exported").glob("*/*/tokenizer.json"))
    assert paths
    for path in paths:
        size = Tokenizer.from_file(str(path)).get_vocab_size()
        assert read_tokenizer(path.name, path.read_bytes(), size).get_vocab_size() == size


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel(WORDS, unk_token="[UNK]"),
        models.WordPiece(WORDS, unk_token="[UNK]"),
        models.BPE(WORDS, [], unk_token="[UNK]"),
        models.Unigram([(word, 0.0) for word in WORDS], unk_id=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_usual_tokenizer_passes_and_gives_the_same_tokens(model: models.Model) -> None:
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Sequence([normalizers.Lowercase(), normalizers.StripAccents()])]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    made.decoder = decoders.WordPiece()
    found, expected = (tokenize(one, ["A b, c"])[0].tolist() for one in (read(made), made))
    assert found == expected


def padded() -> Tokenizer:
    made = words()
    made.enable_padding(length=20_000_000)
    return made


def truncated() -> Tokenizer:
    made = words()
    made.enable_truncation(8)
    return made


def processed() -> Tokenizer:
    made = words()
    made.post_processor = processors.TemplateProcessing(single="$A a", special_tokens=[("a", 1)])
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [(padded, "no padding"), (truncated, "no truncation"), (processed, "no post_processor")],
)
def test_part_that_adds_or_takes_tokens_is_refused(made: Any, expected: str) -> None:
    """A padding to 20 million tokens held every call for six seconds."""
    message = refusal_of(made())
    assert message.startswith(f"{expected}, found ")
    assert len(message) < 200


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Replace("a", "a" * 100),
        normalizers.Replace(Regex("^(a+)+$"), ""),
        normalizers.Prepend("a" * 1000),
        normalizers.Sequence(
            [normalizers.Lowercase(), normalizers.Sequence([normalizers.Replace("a", "b")])]
        ),
    ],
)
def test_normalizer_that_may_blow_a_text_up_is_refused_by_its_kind(normalizer: Any) -> None:
    made = words()
    made.normalizer = normalizer
    assert refusal_of(made).startswith(
        "a normalizer of BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Strip,"
    )
    assert refusal_of(made).endswith(("found 'Replace'", "found 'Prepend'"))


def test_pre_tokenizer_with_an_expression_is_refused_by_its_kind() -> None:
    """It backtracked until Rust panicked, which no handler of exceptions catches."""
    made = words()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex("^(a+)+$"), "isolated")]
    )
    assert refusal_of(made).startswith("a Split at a string, found")
    assert "(a+)+" in refusal_of(made)


def test_pre_tokenizer_that_splits_at_a_string_passes() -> None:
    made = words()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Whitespace()]
    )
    assert read(made).encode("a\nb").ids == made.encode("a b").ids


def test_pre_tokenizer_of_another_kind_is_refused_by_its_kind() -> None:
    made = words()
    made.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    assert refusal_of(made).startswith("a pre_tokenizer of BertPreTokenizer, ByteLevel, Digits, Metaspace,")
    assert refusal_of(made).endswith("found 'UnicodeScripts'")


def test_normalizer_of_too_many_steps_is_refused() -> None:
    made = words()
    made.normalizer = normalizers.Sequence([normalizers.NFKC() for _ in range(17)])
    assert refusal_of(made) == "a normalizer of at most 16 steps, found 17"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            models.WordPiece(WORDS, unk_token="[UNK]", max_input_chars_per_word=1 << 40),
            "max_input_chars_per_word of at most 100, found 1099511627776",
        ),
        (
            models.WordPiece(WORDS, unk_token="[UNK]", continuing_subword_prefix="#" * 65),
            "continuing_subword_prefix of at most 64 characters, found 65",
        ),
        (models.WordLevel(WORDS, unk_token="?" * 65), "unk_token of at most 64 characters, found 65"),
        (models.BPE(WORDS, [], dropout=0.5), "no dropout, found 0.5"),
        (
            models.Unigram([("[UNK]", 0.0), ("a", 0.0), ("a" * 65, 0.0)], unk_id=0),
            "tokens of at most 64 characters, found 65",
        ),
    ],
)
def test_model_without_a_bound_is_refused(model: models.Model, expected: str) -> None:
    assert refusal_of(Tokenizer(model)) == expected


# Tokenizers of language models.

SECTION = spec.Generation(
    text=spec.TokenizerFile(kind="tokenizer", file="tokenizer.json"), start_token=0, max_tokens=9
)


def adding(template: str) -> Tokenizer:
    made = words()
    made.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[UNK]", 0), ("a", 1)]
    )
    return made


@pytest.mark.parametrize(
    "processor",
    [
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="a:0 $A:0", special_tokens=[("a", 1)]),
    ],
    ids=["nothing", "before"],
)
def test_language_model_may_have_a_post_processor(processor: Any) -> None:
    made = words()
    made.post_processor = processor
    found = read_tokenizer("tokenizer.json", made.to_str().encode(), len(WORDS), is_processed=True)
    check_prompts(found, SECTION)
    assert found.encode("b").ids == made.encode("b").ids


@pytest.mark.parametrize(
    ("template", "prepends", "expected"),
    [
        ("$A:0 a:0", False, "a post_processor that adds no token behind a text, .* found one that adds 'a'"),
        ("a:0 $A:0 a:0", False, "a post_processor that adds no token behind a text"),
        ("a:0 " * 17 + "$A:0", False, "a post_processor that adds at most 16 tokens, found 17"),
        ("a:0 $A:0", True, "prepend_start to be false beside a post_processor .* found true and 'a'"),
    ],
    ids=["behind", "both", "many", "twice"],
)
def test_post_processor_that_spoils_prompts_is_refused(template: str, prepends: bool, expected: str) -> None:
    section = SECTION.model_copy(update={"prepend_start": prepends})
    with pytest.raises(ModelRefused, match=expected) as refusal:
        check_prompts(adding(template), section)
    assert refusal.value.check == "tokenizer"


def test_tokenizer_without_any_text_is_refused() -> None:
    made = Tokenizer(models.BPE({"\u0301": 0}, []))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.normalizer = normalizers.StripAccents()
    made.post_processor = processors.ByteLevel()
    with pytest.raises(ModelRefused, match="expected a text that has a token, found none"):
        check_prompts(made, SECTION)
