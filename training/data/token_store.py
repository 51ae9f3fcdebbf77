"""Keeps a long text as token ids of a tokenizer in a file that is mapped into memory.

The text is cut into its parts by characters, so that the held-out part is the same whatever the tokenizer. A
part is encoded a line at a time, since no token reaches over the end of a line: memory holds a block and its
ids alone.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from training.data.streaming import Text
from training.loop.parallel import local_rank, share
from training.writing import replaced

# Lines that are encoded together, and the characters of a line that is not cut.
_LINES = 1024
_LONGEST_LINE = 1 << 20


class Stretch(NamedTuple):
    """Characters `start` to `stop` of a text."""

    text: Text
    start: int
    stop: int


class Parts(NamedTuple):
    """The stretches of texts that are trained on, that pick the epoch, and that are held out."""

    train: tuple[Stretch, ...]
    develop: tuple[Stretch, ...]
    held_out: tuple[Stretch, ...]


def blocks_of(stretches: Iterable[Stretch]) -> Iterator[str]:
    """Yield the blocks of stretches, one after the other."""
    for text, start, stop in stretches:
        begins = 0
        for block in text():
            first, last = max(start, begins), min(stop, begins + len(block))
            if first < last:
                yield block[first - begins : last - begins]
            begins += len(block)


def store_tokens(tokenizer: Tokenizer, parts: Parts, path: Path | None) -> tuple[Tensor, Tensor, Tensor]:
    """Store the token ids of all parts, one part after the other.

    Args:
        tokenizer: of all texts.
        parts: which may be read several times.
        path: the file to keep them in, written under another name and renamed; None: in memory. Of several
            processes on a machine one writes.

    Returns:
        The ids of each part, int16 or int32 (N,).

    Raises:
        WriteError: the file cannot be written.
    """
    kind = np.int16 if tokenizer.get_vocab_size() <= np.iinfo(np.int16).max + 1 else np.int32
    if path is None:
        held = [np.concatenate(list(_encoded(tokenizer, part, kind))) for part in parts]
        train, develop, held_out = map(torch.from_numpy, held)
        return train, develop, held_out
    mine: dict[str, Any] = {}
    if local_rank() == 0:
        with replaced(path, f".{share().rank}") as beside, beside.open("wb") as file:
            mine["sizes"] = [_write(tokenizer, part, kind, file) for part in parts]
    # The others wait until it is there; on every machine the file is the same.
    sizes = next(one["sizes"] for one in share().everyone(mine) if "sizes" in one)
    # What is written to a tensor of it stays in memory: PyTorch has no tensors that cannot be written.
    ids = torch.from_numpy(np.memmap(path, kind, "c", shape=sum(sizes)))
    train, develop, held_out = torch.split(ids, sizes)
    return train, develop, held_out


def _write(
    tokenizer: Tokenizer, part: Iterable[Stretch], kind: type[np.signedinteger], file: BinaryIO
) -> int:
    """Append the ids of a part to a file, and return their number."""
    count = 0
    for ids in _encoded(tokenizer, part, kind):
        file.write(ids.tobytes())
        count += len(ids)
    return count


def _encoded(
    tokenizer: Tokenizer, part: Iterable[Stretch], kind: type[np.signedinteger]
) -> Iterator[NDArray[np.signedinteger]]:
    yield np.zeros(0, kind)
    for lines in _in_lines(blocks_of(part)):
        for encoding in tokenizer.encode_batch_fast(lines):
            yield np.array(encoding.ids, kind)


def _in_lines(blocks: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of the lines of a text, with their ends; a line of more than `_LONGEST_LINE` is cut."""
    rest = ""
    for block in blocks:
        *lines, rest = (rest + block).split("\n")
        whole = [f"{line}\n" for line in lines]
        while len(rest) > _LONGEST_LINE:
            whole.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        for start in range(0, len(whole), _LINES):
            yield whole[start : start + _LINES]
    if rest:
        yield [rest]
