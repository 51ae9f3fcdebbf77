"""States after prompts that were just run: a prompt whose prefix is known starts there, and one prompt asked
for many times is run once.

States are exact copies, so for a model whose answers do not depend on the batch a kept prefix changes no bit
of an answer.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import GAMMA, mix
from service.engine.sequence import Goal, Sequence, StateRow

# Below so many steps a prompt costs less than looking it up.
LEAST_STEPS = 16
# What an array takes beside its numbers, with its share of what holds the entry.
_ARRAY_BYTES = 200


class Known(NamedTuple):
    """A prefix that was run before: how many steps it has, and the state after them."""

    steps: int
    state: StateRow


class _Entry(NamedTuple):
    tokens: NDArray[np.int64]
    state: StateRow

    @property
    def size_bytes(self) -> int:
        return self.tokens.nbytes + _ARRAY_BYTES + sum(tensor.nbytes + _ARRAY_BYTES for tensor in self.state)


class PromptCache:
    """The least recently used prompts make room for new ones.

    Args:
        most_bytes: of tokens and states kept; 0: nothing is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._lengths: Counter[int] = Counter()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tokens: NDArray[np.int64]) -> Known | None:
        """The longest kept prefix of the tokens, int64 (T,), T >= 1."""
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
                return Known(length, entry.state)
        return None

    def keep(self, tokens: NDArray[np.int64], state: StateRow) -> None:
        """Remember the state, float32 (H,) a tensor, after the tokens, int64 (T,), T >= 1. Neither may change
        afterwards.
        """
        entry = _Entry(tokens, state)
        if entry.size_bytes > self._most_bytes:
            return
        key = int(_prefix_hashes(tokens)[-1])
        self._drop(key)
        self._entries[key] = entry
        self._lengths[len(tokens)] += 1
        self.size_bytes += entry.size_bytes
        while self.size_bytes > self._most_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes
            self._lengths[len(entry.tokens)] -= 1
            if not self._lengths[len(entry.tokens)]:
                del self._lengths[len(entry.tokens)]


def _prefix_hashes(tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of every prefix in one pass, uint64 (T,): sums of words that each depend on a token and its
    place.
    """
    places = np.arange(1, len(tokens) + 1, dtype=np.uint64)
    return np.cumsum(mix(mix(tokens.astype(np.uint64)) + places * GAMMA))


class Prompts:
    """What is known of prompts: the kept ones, and those that are being run right now, with who waits for
    them.

    Args:
        most_bytes: of the cache.
    """

    def __init__(self, most_bytes: int) -> None:
        self._cache = PromptCache(most_bytes)
        self._leaders: dict[bytes, Sequence] = {}
        self._followers: dict[Sequence, list[Sequence]] = {}
        self._leader_of: dict[Sequence, Sequence] = {}

    @property
    def num_following(self) -> int:
        """Sequences that wait for another's prompt."""
        return len(self._leader_of)

    def find(self, sequence: Sequence) -> Known | None:
        """What is known of a sequence's prompt."""
        return self._cache.find(_prompt(sequence)) if _is_eligible(sequence) else None

    def follow(self, sequence: Sequence) -> bool:
        """Whether its very prompt is being run: then it waits for that, holding no slot."""
        key = key_of_prompt(sequence) if self._leaders else None
        leader = None if key is None else self._leaders.get(key)
        if leader is None:
            return False
        self._followers[leader].append(sequence)
        self._leader_of[sequence] = leader
        return True

    def lead(self, sequence: Sequence) -> None:
        """Its prompt is being run from now on."""
        key = key_of_prompt(sequence)
        if key is not None:
            self._leaders[key] = sequence
            self._followers[sequence] = []

    def finish(self, sequence: Sequence, state: StateRow) -> list[Sequence]:
        """Its prompt has been run. Returns those who waited for it, first come first."""
        if _is_eligible(sequence):
            self._cache.keep(_prompt(sequence), state)
        return self.end(sequence)

    def end(self, sequence: Sequence) -> list[Sequence]:
        """A sequence leads or follows no more. Returns those who waited for it, first come first."""
        leader = self._leader_of.pop(sequence, None)
        if leader is not None:
            self._followers[leader].remove(sequence)
        followers = self._followers.pop(sequence, None)
        if followers is None:
            return []
        del self._leaders[_prompt(sequence).tobytes()]
        for follower in followers:
            del self._leader_of[follower]
        return followers

    def followers(self) -> Iterable[Sequence]:
        """All who wait for another's prompt."""
        return self._leader_of.keys()


def key_of_prompt(sequence: Sequence) -> bytes | None:
    """What equal prompts have in common, None where a prompt is not kept."""
    return _prompt(sequence).tobytes() if _is_eligible(sequence) else None


def _is_eligible(sequence: Sequence) -> bool:
    return sequence.goal is Goal.GENERATE and sequence.state is None and sequence.prefill_steps >= LEAST_STEPS


def _prompt(sequence: Sequence) -> NDArray[np.int64]:
    """The part of its input that chunk ticks run."""
    return sequence.inputs[:-1]
