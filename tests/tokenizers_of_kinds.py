"""Small tokenizers of each kind that a language model may have, trained on a few lines."""

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LINES = (
    "the cat sat on the mat, and the dog barked at it.",
    "a quick brown fox's jump; won't stop! caf\u00e9 na\u00efve",
    "\u4f60\u597d\u4e16\u754c \u6771\u4eac \U0001f642\U0001f642 h\u00e9llo h\u00e9llo",
)
KINDS = ("words", "byte-level", "bpe", "word-piece", "metaspace", "fallback")
START, END = "<s>", "</s>"
_SPECIAL = [START, END, "<unk>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(0x100)]


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    """Return the tokenizer of a kind: ids 0, 1 and 2 are those of start, end and unknown words."""
    made, trainer = _MADE[kind]()
    if trainer is not None:
        made.train_from_iterator(LINES, trainer)
    return made


def _words() -> tuple[Tokenizer, trainers.Trainer]:
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made, trainers.WordLevelTrainer(special_tokens=_SPECIAL)


def _byte_level() -> tuple[Tokenizer, trainers.Trainer]:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return made, _bpe_trainer(300, initial_alphabet=alphabet)


def _bpe() -> tuple[Tokenizer, trainers.Trainer]:
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.BPEDecoder()
    return made, _bpe_trainer(100, end_of_word_suffix="</w>")


def _word_piece() -> tuple[Tokenizer, trainers.Trainer]:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    return made, trainers.WordPieceTrainer(vocab_size=110, special_tokens=_SPECIAL, show_progress=False)


def _metaspace() -> tuple[Tokenizer, trainers.Trainer]:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made, _bpe_trainer(100)


def _fallback() -> tuple[Tokenizer, None]:
    parts = [*_SPECIAL, *_BYTES, "\u2581", *"abcdefghijklmnopqrstuvwxyz", "\u2581t", "\u2581th", "\u2581the"]
    merges = [("\u2581", "t"), ("\u2581t", "h"), ("\u2581th", "e")]
    vocabulary = {part: token for token, part in enumerate(parts)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    made.add_special_tokens(_SPECIAL)
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = (
        decoders.Replace("\u2581", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    )
    made.decoder = decoders.Sequence(list(steps))
    return made, None


def _bpe_trainer(size: int, **options: Any) -> trainers.Trainer:
    return trainers.BpeTrainer(vocab_size=size, special_tokens=_SPECIAL, show_progress=False, **options)


_MADE = {
    "words": _words,
    "byte-level": _byte_level,
    "bpe": _bpe,
    "word-piece": _word_piece,
    "metaspace": _metaspace,
    "fallback": _fallback,
}
