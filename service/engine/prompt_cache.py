"""States after prompts that were run: a prompt that begins with one of them starts there.

States are exact copies, so for a model whose answers do not depend on the batch a cached prefix changes no
bit of an answer.
"""

from collections import Counter, OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.request import Goal, Request, StateRow
from service.engine.sampling import GAMMA, mix

# Below so many steps running a prompt costs less than looking it up.
MIN_STEPS = 16
# What an array takes beside its numbers, with its share of what holds the entry.
_ARRAY_BYTES = 200


class Prefix(NamedTuple):
    """A cached prefix of a prompt: how many steps it has, and the state after them."""

    steps: int
    state: StateRow


class _Entry(NamedTuple):
    tokens: NDArray[np.int64]
    state: StateRow

    @property
    def size_bytes(self) -> int:
        return self.tokens.nbytes + _ARRAY_BYTES + sum(tensor.nbytes + _ARRAY_BYTES for tensor in self.state)


class PromptCache:
    """The most recently used prompts, by a hash of their tokens.

    Args:
        max_bytes: of tokens and states kept; 0: nothing is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._lengths: Counter[int] = Counter()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tokens: NDArray[np.int64]) -> Prefix | None:
        """Return the longest cached prefix of the tokens, int64 (T,), T >= 1, None where there is none."""
        if not self._entries:
            return None
        hashes = _prefix_hashes(tokens)
        for length in sorted(self._lengths, reverse=True):
            if length > len(tokens):
                continue
            key = int(hashes[length - 1])
            entry = self._entries.get(key)
            if entry is not None and np.array_equal(entry.tokens, tokens[:length]):
                self._entries.move_to_end(key)
                return Prefix(length, entry.state)
        return None

    def keep(self, tokens: NDArray[np.int64], state: StateRow) -> None:
        """Keep the state after the tokens; the least recently used entries make room.

        Args:
            tokens: int64 (T,), T >= 1; must not change afterwards.
            state: float32 (H,) a state tensor; must not change afterwards.
        """
        entry = _Entry(tokens, state)
        if entry.size_bytes > self._max_bytes:
            return
        key = int(_prefix_hashes(tokens)[-1])
        self._drop(key)
        self._entries[key] = entry
        self._lengths[len(tokens)] += 1
        self.size_bytes += entry.size_bytes
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes
            self._lengths[len(entry.tokens)] -= 1
            if not self._lengths[len(entry.tokens)]:
                del self._lengths[len(entry.tokens)]


def _prefix_hashes(tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash every prefix in one pass, uint64 (T,): sums of words that each depend on a token and its place."""
    places = np.arange(1, len(tokens) + 1, dtype=np.uint64)
    return np.cumsum(mix(mix(tokens.astype(np.uint64)) + places * GAMMA))


def prompt_of(request: Request) -> NDArray[np.int64] | None:
    """Return the tokens that chunk ticks run for a prompt, None where its state is not worth keeping."""
    if request.goal is not Goal.GENERATE or request.state is not None or request.prefill_steps < MIN_STEPS:
        return None
    return request.inputs[:-1]
