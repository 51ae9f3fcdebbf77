"""Reads a text for a language model, and cuts it by position into training, development and held-out part.

The held-out part is the same whatever a model's tokens are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from seqserve.tables.files import UTF8
from service.contract.normalizing import Normalizer
from service.contract.sections import Normalization
from training.data.files import iter_lines, read_whole
from training.data.normalization import COMPOSED
from training.data.sources import Source
from training.data.streaming import Alphabet, Section, Text, blocks, store, survey
from training.errors import TrainingError
from training.recipes.sizes import LONG_TEXT

HELD_OUT_SHARE = 0.1
DEVELOPMENT_SHARE = 0.03
FEWEST_CHARACTERS = 1000
TOKENS_FILE = "tokens.bin"


class Cut(NamedTuple):
    """Places in a text of `length` characters.

    The development part is [develop, after), the held-out part [held_out, length); all other characters are
    trained on. The development part is cut from the middle: in a text of several works, what comes just
    before the held-out part introduces the names that it goes on with.
    """

    develop: int
    after: int
    held_out: int
    length: int


def cut_of(length: int) -> Cut:
    """Return where a text of so many characters is cut."""
    held_out = round(length * (1 - HELD_OUT_SHARE))
    size = round(held_out * DEVELOPMENT_SHARE)
    start = (held_out - size) // 2
    return Cut(start, start + size, held_out, length)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text as token ids, cut by position: training, development (picks the epoch), held out (reported).

    Attributes:
        vocabulary: the characters, sorted; a character's index is its token id.
        train, develop, held_out: (N,), of the smallest integers that hold the ids.
    """

    vocabulary: str
    train: Tensor
    develop: Tensor
    held_out: Tensor

    @property
    def is_long(self) -> bool:
        """Return whether it is more than a network of ours can learn by heart."""
        return len(self.train) >= LONG_TEXT


def texts_of(source: Source, rules: Normalization = COMPOSED) -> tuple[Text, Text]:
    """Return the two texts of a source, normalized; the second is empty where there is no further file."""
    normalized = Normalizer(rules).normalized

    def text_of(path: Path | None) -> Text:
        return lambda: blocks(map(normalized, iter_lines(path, source.encoding))) if path else ()

    return text_of(source.path), text_of(source.more)


def read_corpus(source: Source, folder: Path) -> Corpus:
    """Read the files of a source; their ids are kept in a file in the run's folder.

    Raises:
        TrainingError: no text in that encoding, or too short to train and hold out from.
    """
    text, more = texts_of(source)
    alphabet = survey(text, more)
    check_text(source, alphabet)
    return _cut(text, more, alphabet, folder / TOKENS_FILE)


def check_text(source: Source, alphabet: Alphabet) -> None:
    """Check that there is enough text to train on and to hold out from.

    Raises:
        TrainingError: there is not.
    """
    if alphabet.sizes[0] < FEWEST_CHARACTERS:
        raise TrainingError(
            f"{source.path}: expected at least {FEWEST_CHARACTERS} characters, found {alphabet.sizes[0]}"
        )
    if source.more and not alphabet.sizes[1]:
        raise TrainingError(f"{source.more}: expected text to train on, found none")
    if len(alphabet.vocabulary) < 2:
        raise TrainingError(
            f"{source.path}: expected two or more different characters, found {alphabet.vocabulary!r} alone"
        )


def read_text(path: Path, encoding: str = UTF8) -> str:
    """Read a text file.

    Raises:
        TrainingError: no text in that encoding.
    """
    return read_whole(path, encoding)


def split(text: str, more: str = "") -> Corpus:
    """Cut a text in memory.

    Args:
        text: cut into the three parts.
        more: trained on, too.
    """
    texts = (lambda: [text]), (lambda: [more])
    return _cut(*texts, survey(*texts), None)


def _cut(text: Text, more: Text, alphabet: Alphabet, path: Path | None) -> Corpus:
    """Return ids stored in the order of training part, development part, held-out part."""
    length, further = alphabet.sizes
    cut = cut_of(length)
    size = cut.after - cut.develop
    train = further + cut.held_out - size
    sections = [
        Section(0, cut.develop, further),
        Section(cut.develop, cut.after, train),
        Section(cut.after, cut.held_out, further + cut.develop),
        Section(cut.held_out, length, further + cut.held_out),
    ]
    ids = store(alphabet, [(text, sections), (more, [Section(0, further, 0)])], path)
    return Corpus(alphabet.vocabulary, ids[:train], ids[train : train + size], ids[train + size :])
