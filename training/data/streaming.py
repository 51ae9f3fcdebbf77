"""Keeps long texts as token ids in a file that is mapped into memory, at about their size on disk.

A Python string takes one to four bytes a character, a list of ints eight, int64 ids eight more; here a
character is one byte while the vocabulary has up to 256 characters, and two or four beyond. The text is read
twice: for its characters, then for their ids.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import TrainingError
from training.loop.parallel import local_rank, share
from training.writing import replaced, reserve

# Characters read at once.
BLOCK = 1 << 20

# A text may be read several times.
Text = Callable[[], Iterable[str]]


class Section(NamedTuple):
    """A section of a text, characters `start` to `stop`, and where its ids begin in the file."""

    start: int
    stop: int
    place: int


class Alphabet(NamedTuple):
    """The characters and sizes of texts, as their first reading finds them.

    Attributes:
        vocabulary: its different characters, sorted; a character's index is its token id.
        sizes: characters of each text.
    """

    vocabulary: str
    sizes: tuple[int, ...]


def survey(*texts: Text) -> Alphabet:
    """Read texts once, and return their characters and sizes."""
    characters: set[str] = set()
    sizes = []
    for text in texts:
        size = 0
        for block in text():
            characters.update(block)
            size += len(block)
        sizes.append(size)
    return Alphabet("".join(sorted(characters)), tuple(sizes))


def store(alphabet: Alphabet, sections: Iterable[tuple[Text, list[Section]]], path: Path | None) -> Tensor:
    """Store the ids of all texts, section by section.

    Args:
        alphabet: of the texts.
        sections: each text with the sections that it is cut into, which together fill the result.
        path: the file to keep them in, written under another name and renamed; None: in memory. Of several
            processes on a machine one writes.
    Returns:
        uint8, int16 or int32 (N,), N characters of all texts.
    Raises:
        TrainingError: a text is another than it was when the alphabet was made.
        WriteError: the file cannot be written.
    """
    size = sum(alphabet.sizes)
    kind = next(
        kind for kind in (np.uint8, np.int16, np.int32) if len(alphabet.vocabulary) <= np.iinfo(kind).max + 1
    )
    if path is None:
        ids = np.empty(size, kind)
        _write(alphabet, sections, ids)
        return torch.from_numpy(ids)
    if local_rank() == 0:
        with replaced(path, f".{share().rank}") as beside:
            reserve(beside, size * np.dtype(kind).itemsize)
            ids = np.memmap(beside, kind, "r+", shape=size)
            _write(alphabet, sections, ids)
            ids.flush()
    share().everyone({})  # the others wait until it is there
    # PyTorch has no tensors that cannot be written; what is written to this one stays here and never reaches
    # the file.
    return torch.from_numpy(np.memmap(path, kind, "c", shape=size))


def blocks(lines: Iterable[str], size: int = BLOCK) -> Iterator[str]:
    """Gather lines into texts of about so many characters."""
    waiting: list[str] = []
    length = 0
    for line in lines:
        waiting.append(line)
        length += len(line)
        if length >= size:
            yield "".join(waiting)
            waiting, length = [], 0
    yield "".join(waiting)


def _write(alphabet: Alphabet, sections: Iterable[tuple[Text, list[Section]]], ids: NDArray[Any]) -> None:
    if not alphabet.vocabulary:
        return
    codes = _codes(alphabet.vocabulary)
    id_of = np.zeros(int(codes.max()) + 1, ids.dtype)
    id_of[codes] = np.arange(len(codes))
    for (text, cuts), size in zip(sections, alphabet.sizes, strict=True):
        begins = 0
        for block in text():
            characters = _codes(block)
            if len(characters) and characters.max() >= len(id_of):
                raise _changed(size, begins)
            found = id_of[characters]
            for start, stop, place in cuts:
                first, last = max(start, begins), min(stop, begins + len(found))
                if first < last:
                    ids[place + first - start : place + last - start] = found[first - begins : last - begins]
            begins += len(found)
        if begins != size:
            raise _changed(size, begins)


def _changed(size: int, begins: int) -> TrainingError:
    return TrainingError(
        f"expected the text of {size:,} characters that was read before, found another after {begins:,}: "
        "train on a copy that nothing writes to"
    )


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
