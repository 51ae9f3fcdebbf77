"""Counts n-grams of token ids into a table that a graph can look up, whatever the tokenizer.

Each n-gram that was seen has a number, and a number stands for the n-gram as a context of the next token. The
follower `token` of the context `number` has the number `base[number] + token`, if `context` has the context's
number there (row displacement: Tarjan & Yao 1979); so one addition and one comparison find it, for one token
or for all. The followers of different contexts interleave, so that the table is as long as there are n-grams.

The distribution is interpolated Witten-Bell (Witten & Bell 1991): with N the count of a context and D the
number of its different followers, P(token | context) = (count + D * P(token | shorter context)) / (N + D),
down to 1 / vocabulary. Contexts are left out as wholes, the rarest first, so it stays a distribution: a
context that is left out says what the next shorter one says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Integers = NDArray[np.int32]
Floats = NDArray[np.float32]

# Numbers of the context that was not seen, whose followers are none, and of the empty context.
UNSEEN, EMPTY = 0, 1
# Marks a place in the table that belongs to no context.
FREE = -1
# Bytes of a place in the table: base, context and count.
PLACE_BYTES = 12
# Places that are tried at first for the followers of a context.
_TRIED = 64


@dataclass(frozen=True, slots=True)
class NgramTable:
    """The n-grams of a text, up to `order` tokens long; arrays have a place for each number.

    Attributes:
        order: most tokens of an n-gram, 2 or more: one that follows, and its context.
        vocabulary: number of token ids V.
        base: int32 (P,), of each context, 0..P-V: where the numbers of its followers begin.
        context: int32 (P,), the number of the context that the n-gram of this number extends; FREE: none has
            this number.
        count: float32 (P,), how often the n-gram of this number was seen; integers below 2**24.
    """

    order: int
    vocabulary: int
    base: Integers
    context: Integers
    count: Floats

    @property
    def size(self) -> int:
        """Return the number of n-grams."""
        return int((self.context != FREE).sum())

    def contexts(self, ids: Ids) -> Integers:
        """Return the contexts after each token of a text.

        Args:
            ids: (T,) below V; nothing is known before the first.
        Returns:
            int32 (T, order - 1): the numbers of the last 1, 2, ... tokens, or UNSEEN.
        """
        found = np.full((self.order - 1, len(ids)), UNSEEN, np.int32)
        before = np.full(len(ids), EMPTY, np.int32)
        for row in found:
            row[:] = self._followers(before, ids)
            before = np.concatenate([[UNSEEN], row[:-1]]).astype(np.int32)
        return found.T

    def probabilities(self, contexts: Integers) -> NDArray[np.float64]:
        """Return the distribution of the next token after each row of contexts: float64 (T, V)."""
        given = np.full((len(contexts), self.vocabulary), 1 / self.vocabulary)
        tokens = np.arange(self.vocabulary)
        for level in range(self.order):
            one = contexts[:, level - 1] if level else np.full(len(contexts), EMPTY, np.int32)
            places = self.base[one][:, None] + tokens
            counts = np.where(self.context[places] == one[:, None], self.count[places], 0).astype(np.float64)
            followers = (counts > 0).sum(axis=1, keepdims=True)
            total = counts.sum(axis=1, keepdims=True) + followers
            given = np.where(total > 0, (counts + followers * given) / np.maximum(total, 1), given)
        return given

    def _followers(self, before: Integers, ids: Ids) -> Integers:
        """Return the number of the n-gram that each token makes of the context before it, or UNSEEN."""
        places = self.base[before] + ids
        return np.where(self.context[places] == before, places, UNSEEN).astype(np.int32)


class _Grams(NamedTuple):
    """The n-grams of one length.

    Attributes:
        parent: (G,), index of its context among the n-grams one token shorter.
        token: (G,), the token that follows.
        counts: (G,).
    """

    parent: Ids
    token: Ids
    counts: Ids


def count_ngrams(ids: Ids, vocabulary: int, order: int, max_bytes: int) -> NgramTable:
    """Count the n-grams of a text.

    Args:
        ids: (N,) token ids below `vocabulary`, at least one.
        vocabulary: number of token ids.
        order: most tokens of an n-gram, 2 or more.
        max_bytes: about how large the table may get. The rarest contexts are left out for it, longer ones
            first.
    Returns:
        The table.
    """
    levels = list(_levels(ids, vocabulary, order))
    kept = _kept(levels, max(1, max_bytes // PLACE_BYTES - vocabulary))
    return _packed(levels, kept, vocabulary, order)


def _levels(ids: Ids, vocabulary: int, order: int) -> Iterator[_Grams]:
    """Yield the n-grams of 1, 2, ..., `order` tokens."""
    gram = np.zeros(len(ids) + 1, np.int64)  # of the tokens before each position, an index
    for length in range(min(order, len(ids))):
        # The first `length` positions have no whole context.
        context, token = gram[length : len(ids)], ids[length:]
        keys, index, counts = np.unique(context * vocabulary + token, return_inverse=True, return_counts=True)
        yield _Grams(keys // vocabulary, keys % vocabulary, counts)
        gram[length + 1 :] = index


def _kept(levels: list[_Grams], most: int) -> list[NDArray[np.bool_]]:
    """Return for the n-grams of each length which stay, at most so many: those of the most frequent contexts.

    A context is never more frequent than its own beginning, so a context that stays can be reached.
    """
    frequencies = [np.bincount(one.parent, one.counts) for one in levels]
    followers = [np.bincount(one.parent) for one in levels]
    depths = np.concatenate([np.full(len(one), depth) for depth, one in enumerate(frequencies)])
    ranking = np.lexsort((depths, -np.concatenate(frequencies)))
    fits = np.cumsum(np.concatenate(followers)[ranking]) <= most
    is_kept = np.zeros(len(ranking), bool)
    is_kept[ranking] = fits
    is_kept[0] = True  # the empty context
    bounds = np.cumsum([len(one) for one in frequencies])[:-1]
    return [contexts[one.parent] for contexts, one in zip(np.split(is_kept, bounds), levels, strict=True)]


def _packed(levels: list[_Grams], kept: list[NDArray[np.bool_]], vocabulary: int, order: int) -> NgramTable:
    """Return the table of the n-grams that stay."""
    places = _Places(vocabulary, sum(int(one.sum()) for one in kept))
    numbers = np.array([EMPTY])
    for level, is_kept in zip(levels, kept, strict=True):
        chosen = np.flatnonzero(is_kept)  # sorted by context
        following = np.full(len(is_kept), UNSEEN)
        is_alone = np.bincount(level.parent)[level.parent[chosen]] == 1
        several, alone = chosen[~is_alone], chosen[is_alone]
        starts = np.flatnonzero(np.diff(level.parent[several], prepend=-1))
        groups = np.split(several, starts[1:]) if len(several) else []
        for group in sorted(groups, key=len, reverse=True):
            number = int(numbers[level.parent[group[0]]])
            following[group] = places.put(number, level.token[group], level.counts[group])
        following[alone] = places.put_alone(
            numbers[level.parent[alone]], level.token[alone], level.counts[alone]
        )
        numbers = following
    return NgramTable(order, vocabulary, *places.arrays())


class _Places:
    """Assigns places to the followers of contexts, the first free ones that fit.

    Args:
        vocabulary: V.
        count: of the n-grams that will come.
    """

    def __init__(self, vocabulary: int, count: int) -> None:
        self._vocabulary = vocabulary
        # No n-gram has a number below V, so that a base is never negative.
        self._first = self._searched = max(vocabulary, EMPTY + 1)
        self._followers = 0
        size = self._first + 2 * count + 2 * vocabulary
        self._base = np.zeros(size, np.int32)
        self._context = np.full(size, FREE, np.int32)
        self._count = np.zeros(size, np.float32)

    def put(self, number: int, tokens: Ids, counts: Ids) -> Ids:
        """Give the followers of a context their numbers, and return these."""
        self._skip_taken()
        # Where others of as many followers found no place, these hardly will.
        is_alike = len(tokens) == self._followers
        start, tried = self._searched if is_alike else self._first, _TRIED
        while True:
            self._grow(start + tried + self._vocabulary)
            bases = start + np.flatnonzero(self._context[start : start + tried] == FREE) - tokens[0]
            fits = (self._context[bases[:, None] + tokens] == FREE).all(axis=1)
            if fits.any():
                break
            start, tried = start + tried, 2 * tried
        self._followers, self._searched = len(tokens), start
        base = int(bases[fits.argmax()])
        places = base + tokens
        self._base[number] = base
        self._context[places] = number
        self._count[places] = counts
        return places

    def put_alone(self, numbers: Ids, tokens: Ids, counts: Ids) -> Ids:
        """Give the only followers of some contexts their numbers, and return these."""
        self._grow(len(self._context) + len(numbers))
        places = self._first + np.flatnonzero(self._context[self._first :] == FREE)[: len(numbers)]
        self._base[numbers] = places - tokens
        self._context[places] = numbers
        self._count[places] = counts
        return places

    def arrays(self) -> tuple[Integers, Integers, Floats]:
        """Return the arrays, as long as the last base needs."""
        used = np.flatnonzero(self._context != FREE)
        size = max(int(used.max(initial=0)) + 1, int(self._base.max()) + self._vocabulary)
        return self._base[:size], self._context[:size], self._count[:size]

    def _skip_taken(self) -> None:
        """Move the first place that is tried to a free one."""
        while self._context[self._first] != FREE:
            ahead = self._context[self._first : self._first + _TRIED] == FREE
            self._first += int(ahead.argmax()) if ahead.any() else len(ahead)
            self._grow(self._first + 1)

    def _grow(self, size: int) -> None:
        if size > len(self._context):
            more = max(size - len(self._context), len(self._context) // 2)
            self._base = np.concatenate([self._base, np.zeros(more, np.int32)])
            self._context = np.concatenate([self._context, np.full(more, FREE, np.int32)])
            self._count = np.concatenate([self._count, np.zeros(more, np.float32)])
