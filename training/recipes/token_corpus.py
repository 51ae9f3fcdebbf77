"""Reads a text and cuts it by characters, makes a tokenizer from its training part, and encodes all parts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from service.contract.spec import Normalization
from training.data.language_tokenizers import FileKind, language_tokenizer
from training.data.sources import Source
from training.data.streaming import Alphabet, survey
from training.data.subwords import SPACE
from training.data.token_store import Parts, Stretch, blocks_of, store_tokens
from training.loop import parallel
from training.recipes.text_corpus import TOKENS_FILE, check_text, cut_of, texts_of
from training.recipes.text_losses import STRETCH

# Lengths of the golden examples, in characters.
EXAMPLE_LENGTHS = (1, 2, 5, 11, 24, 64, 160)


@dataclass(frozen=True, slots=True)
class Text:
    """A text, normalized and cut, before it has tokens.

    Attributes:
        parts: by characters.
        alphabet: of the whole text, and the number of its characters.
        trained: the different characters of the training part, sorted.
    """

    parts: Parts
    alphabet: Alphabet
    trained: str

    def characters(self, part: Iterable[Stretch]) -> int:
        """Return the number of characters of a part."""
        return sum(stop - start for _, start, stop in part)


@dataclass(frozen=True, slots=True)
class TokenCorpus:
    """Token ids of a text's parts.

    Attributes:
        tokenizer: that made them.
        train, develop, held_out: integers (N,).
    """

    tokenizer: Tokenizer
    train: Tensor
    develop: Tensor
    held_out: Tensor


def read_text(source: Source) -> Text:
    """Read and cut the files of a source, as a model over characters does.

    Raises:
        TrainingError: no text in that encoding, or too short to train and hold out from.
    """
    # The tokenizers of words and sub-words write a space so.
    text, more = texts_of(source, Normalization(form="NFC", characters={SPACE: "_"}))
    alphabet = survey(text, more)
    check_text(source, alphabet)
    cut = cut_of(alphabet.sizes[0])
    parts = Parts(
        train=(
            Stretch(more, 0, alphabet.sizes[1]),
            Stretch(text, 0, cut.develop),
            Stretch(text, cut.after, cut.held_out),
        ),
        develop=(Stretch(text, cut.develop, cut.after),),
        held_out=(Stretch(text, cut.held_out, cut.length),),
    )
    return Text(parts, alphabet, survey(lambda: blocks_of(parts.train)).vocabulary)


def tokenized(text: Text, kind: FileKind, size: int | None, folder: Path | None) -> TokenCorpus:
    """Make the tokenizer of a text's training part, and encode all parts.

    Args:
        text: whose parts are encoded.
        kind: of the tokenizer.
        size: largest number of tokens; None: by the text.
        folder: of the run, to keep the ids in; None: in memory.
    """
    made = parallel.share().from_leader(
        lambda: language_tokenizer(
            kind, blocks_of(text.parts.train), text.characters(text.parts.train), size
        ).to_str()
    )
    tokenizer = Tokenizer.from_str(made)
    path = folder / TOKENS_FILE if folder else None
    return TokenCorpus(tokenizer, *store_tokens(tokenizer, text.parts, path))


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """Return the token ids of a normalized text: int64 (T,)."""
    return torch.tensor(tokenizer.encode(text).ids)


def encode_lines(tokenizer: Tokenizer, text: str) -> Tensor:
    """Return the ids of a long text, encoded line by line as the parts of a corpus are: integers (N,)."""
    whole = (Stretch(lambda: [text], 0, len(text)),)
    return store_tokens(tokenizer, Parts((), (), whole), None)[2]


def start_token(corpus: TokenCorpus) -> int:
    """Return what an empty prompt begins with: a line's end, or the most frequent token of a text without
    lines.
    """
    [*_, line_end] = corpus.tokenizer.encode("\n").ids
    counts = torch.bincount(corpus.train.long(), minlength=corpus.tokenizer.get_vocab_size())
    return int(line_end) if counts[line_end] else int(counts.argmax())


def examples(text: Text, seed: int) -> list[str]:
    """Return pieces of the held-out part of several lengths, from its first characters."""
    held = ""
    for block in blocks_of(text.parts.held_out):
        held += block
        if len(held) >= STRETCH:
            break
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for length in EXAMPLE_LENGTHS:
        if length <= len(held):
            start = int(torch.randint(len(held) - length + 1, (), generator=generator))
            pieces.append(held[start : start + length])
    return pieces
