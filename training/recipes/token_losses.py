"""Measures language models over tokens in nats a character, beside an n-gram over characters.

The loss of a token is spread evenly over the bytes that it writes, and a character's loss is that of its
bytes. Sums are those of the tokens, and models with other tokens have as many losses of the same characters.
"""

import re
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from training.data.subwords import SPACE
from training.data.token_store import Stretch, blocks_of
from training.networks.network import RecurrentNetwork
from training.recipes.chance import Floats
from training.recipes.text_losses import NGRAM_TEXT, losses_of, ngram_losses
from training.recipes.token_corpus import Text

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def token_sizes(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Return how many bytes of UTF-8 each token writes: int64 (V,)."""
    names: dict[str, int] = tokenizer.get_vocab()
    sizes = np.zeros(len(names), np.int64)
    has_bytes_alone = "<0x00>" not in names
    for name, token in names.items():
        is_byte = has_bytes_alone or _BYTE.fullmatch(name)
        sizes[token] = 1 if is_byte else len(name.replace(SPACE, " ").encode("utf-8", "surrogatepass"))
    return sizes


def by_character(losses: Floats, ids: Tensor, tokenizer: Tokenizer, text: str) -> Floats:
    """Spread the losses of tokens over the characters of the text that they write.

    Args:
        losses: float64 (N,), nats of each token.
        ids: integers (N,).
        tokenizer: of the tokens.
        text: of C characters.

    Returns:
        Nats of each character, float64 (C,), with the same sum.
    """
    sizes = token_sizes(tokenizer)[ids.numpy()]
    written = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    assert sizes.sum() == len(written), "the tokens write the text"
    # Bytes 0b10...... continue a character.
    starts = np.flatnonzero(written & 0xC0 != 0x80)
    spread: Floats = np.add.reduceat(np.repeat(losses / sizes, sizes), starts)
    return spread


def with_start(ids: Tensor, start: int) -> Tensor:
    """Return ids after the start token, so that the first of them has a loss, too: int64 (N + 1,)."""
    return torch.cat([torch.tensor([start]), ids.long()])


def token_losses(network: RecurrentNetwork, ids: Tensor, start: int, device: str) -> Floats:
    """Return nats of each token after the start token: float64 (N,)."""
    losses: Floats = losses_of(network, with_start(ids, start), device).double().numpy()
    return losses


def character_baseline(text: Text) -> Floats:
    """Return the losses of the n-gram over characters on the held-out part, as `charlm` measures it: nats of
    characters 2..N, float64 (N - 1,). Of a long text it counts the last part.
    """
    alphabet = text.alphabet.vocabulary
    counted = [_tail(part, alphabet, NGRAM_TEXT) for part in (text.parts.train, text.parts.develop)]
    held_out = _tail(text.parts.held_out, alphabet, text.characters(text.parts.held_out))
    return ngram_losses(np.concatenate(counted), held_out, len(alphabet))


def _tail(part: Iterable[Stretch], alphabet: str, size: int) -> NDArray[np.int64]:
    """Return the places in an alphabet of the last `size` characters of a part."""
    order = np.array([ord(one) for one in alphabet], np.uint32)
    kept: list[NDArray[np.uint32]] = []
    length = 0
    for block in blocks_of(part):
        kept.append(np.frombuffer(block.encode("utf-32-le", "surrogatepass"), np.uint32))
        length += len(block)
        while length - len(kept[0]) >= size:
            length -= len(kept.pop(0))
    codes = np.concatenate([np.zeros(0, np.uint32), *kept])[-size:]
    return np.searchsorted(order, codes).astype(np.int64)
