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
# Prompts kept at most: a lookup tries each of their lengths.
MAX_ENTRIES = 1024
# What an array takes beside its numbers, with its share of what holds the entry.
_ARRAY_BYTES = 200


class Prefix(NamedTuple):
    """A cached prefix of a prompt: how many steps it has, and the state after them."""

    steps: int
    state: StateRow


class _Entry(NamedTuple):
    tokens: NDArray[np.integer]
    state: StateRow

    @property
    def size_bytes(self) -> int:
        return self.tokens.nbytes + _ARRAY_BYTES + sum(tensor.nbytes + _ARRAY_BYTES for tensor in self.state)


class _Part:
    """The prompts of one scope, the least recently used first, and how many there are of each length."""

    def __init__(self) -> None:
        self.entries: OrderedDict[int, _Entry] = OrderedDict()
        self.lengths: Counter[int] = Counter()
        self.size_bytes = 0

    def add(self, key: int, entry: _Entry) -> None:
        self.entries[key] = entry
        self.lengths[len(entry.tokens)] += 1
        self.size_bytes += entry.size_bytes

    def drop(self, key: int) -> None:
        entry = self.entries.pop(key)
        self.size_bytes -= entry.size_bytes
        self.lengths[len(entry.tokens)] -= 1
        if not self.lengths[len(entry.tokens)]:
            del self.lengths[len(entry.tokens)]


class PromptCache:
    """The most recently used prompts, by a hash of their tokens, those of each scope apart.

    Whoever sends a prompt can measure whether its prefix is cached. So a prompt is found only in the scope in
    which it was kept. The scope with the most bytes makes room, so none drives out what others keep.

    Args:
        max_bytes: of tokens and states kept; 0: nothing is kept.
        is_shared: all scopes are one.
    """

    def __init__(self, max_bytes: int, is_shared: bool = False) -> None:
        self._max_bytes = max_bytes
        self._is_shared = is_shared
        self._parts: OrderedDict[str, _Part] = OrderedDict()  # the least recently used first
        self._count = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return self._count

    def find(self, tokens: NDArray[np.integer], scope: str = "") -> Prefix | None:
        """Return the longest cached prefix of the tokens, integers (T,), T >= 1, None where there is none."""
        scope = "" if self._is_shared else scope
        part = self._parts.get(scope)
        lengths = sorted((one for one in part.lengths if one <= len(tokens)), reverse=True) if part else []
        if part is None or not lengths:
            return None
        hashes = _prefix_hashes(tokens)[np.array(lengths) - 1]
        for length, key in zip(lengths, hashes.tolist(), strict=True):
            entry = part.entries.get(key)
            if entry is not None and np.array_equal(entry.tokens, tokens[:length]):
                part.entries.move_to_end(key)
                self._parts.move_to_end(scope)
                return Prefix(length, entry.state)
        return None

    def keep(self, tokens: NDArray[np.integer], state: StateRow, scope: str = "") -> None:
        """Keep the state after the tokens; the least recently used entries of the largest scope make room.

        Args:
            tokens: integers (T,), T >= 1; must not change afterwards.
            state: float32 (H,) a state tensor; must not change afterwards.
            scope: where it may be found.
        """
        entry = _Entry(tokens, state)
        if entry.size_bytes > self._max_bytes:
            return
        scope = "" if self._is_shared else scope
        key = int(_prefix_hashes(tokens)[-1])
        part = self._parts.setdefault(scope, _Part())
        self._parts.move_to_end(scope)
        if key in part.entries:
            self._drop(part, key)
        part.add(key, entry)
        self._count += 1
        self.size_bytes += entry.size_bytes
        while self.size_bytes > self._max_bytes or self._count > MAX_ENTRIES:
            scope, largest = max(self._parts.items(), key=lambda item: item[1].size_bytes)
            self._drop(largest, next(iter(largest.entries)))
            if not largest.entries:
                del self._parts[scope]

    def _drop(self, part: _Part, key: int) -> None:
        self._count -= 1
        self.size_bytes -= part.entries[key].size_bytes
        part.drop(key)


def _prefix_hashes(tokens: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Hash every prefix in one pass, uint64 (T,): sums of words that each depend on a token and its place."""
    places = np.arange(1, len(tokens) + 1, dtype=np.uint64)
    return np.cumsum(mix(mix(tokens.astype(np.uint64)) + places * GAMMA))


def prompt_of(request: Request) -> NDArray[np.integer] | None:
    """Return the tokens that chunk ticks run for a prompt, None where its state is not worth keeping."""
    if request.goal is not Goal.GENERATE or request.state is not None or request.prefill_steps < MIN_STEPS:
        return None
    return request.inputs[:-1]
