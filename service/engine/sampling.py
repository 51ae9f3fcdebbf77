"""Logits to tokens, vectorised over rows.

A token is a function of (logits, options, seed, position) alone, whatever rows are beside it.

Every operation is row-wise: numpy reduces and accumulates along the last axis of each row by itself, so a
row's bits do not depend on its neighbours.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Tokens = NDArray[np.int64]

# Constants of SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA
# 2014).
GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3, _SHIFT_53 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options of one sequence.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: only the so many most likely tokens; 0: all.
        top_p: only the fewest most likely tokens whose probabilities sum to at least this; 1: all.
        seed: of the random numbers, 0..2**64 - 1.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64-bit words whose output bits each depend on all input bits."""
    values = (values ^ (values >> _SHIFT_1)) * _MIX_1
    values = (values ^ (values >> _SHIFT_2)) * _MIX_2
    return values ^ (values >> _SHIFT_3)


def key_of(seed: int) -> np.uint64:
    """The stream of a seed. Mixed, so that neighbouring seeds do not give shifted copies of one stream."""
    return np.uint64(mix(np.array([seed], np.uint64) + GAMMA)[0])


def uniforms(keys: NDArray[np.uint64], positions: NDArray[np.uint64]) -> Floats:
    """Return counter-based random numbers: the `position`-th output of SplitMix64 started at `key`.

    Args:
        keys: uint64 (B,), from `key_of`.
        positions: uint64 (B,).

    Returns:
        float64 (B,) in [0, 1), 53 random bits each.
    """
    words = mix(keys + (positions + np.uint64(1)) * GAMMA)
    return (words >> _SHIFT_53).astype(np.float64) * _TO_UNIT


def log_softmax(logits: NDArray[np.float32]) -> Floats:
    """Natural-log probabilities of each row, (B, V), in double precision."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def logprobs_of(logits: NDArray[np.float32], targets: Tokens) -> NDArray[np.float32]:
    """The log-probability that each row gives to its target: (B, V), (B,) -> float32 (B,)."""
    return log_softmax(logits)[np.arange(len(targets)), targets].astype(np.float32)


def with_alternatives(logits: NDArray[np.float32], logprobs: NDArray[np.float32], count: int) -> Floats:
    """Return log-probabilities of tokens beside the k most likely tokens of each row.

    Args:
        logits: float32 (B, V).
        logprobs: float32 (B,), of the tokens that were scored.
        count: number of tokens wanted; k is that or V, whichever is less.

    Returns:
        float64 (B, 1 + 2 k): the row's own log-probability, k token ids, most likely first, and their k
        log-probabilities.
    """
    count = min(count, logits.shape[1])
    # A partition is linear in V, where a sort of a large vocabulary would hold up the rows beside it.
    found = np.sort(np.argpartition(-logits, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(logits, found, axis=1), axis=1, kind="stable")
    ranked = np.take_along_axis(found, order, axis=1)
    theirs = np.take_along_axis(log_softmax(logits), ranked, axis=1)
    return np.concatenate([logprobs[:, None], ranked, theirs], axis=1, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Options:
    """Sampling options of B rows, prepared for many ticks: parts that change nothing are None.

    Attributes:
        is_greedy: bool (B,).
        divisors: float64 (B, 1), of the logits; None: 1 for all.
        cut: rows that top_k or top_p cut, int64.
        top_k: int64, of those.
        top_p: float64, of those.
    """

    is_greedy: NDArray[np.bool_] | None
    divisors: Floats | None
    cut: Tokens | None
    top_k: Tokens
    top_p: Floats


def options_of(temperature: Floats, top_k: Tokens, top_p: Floats, vocabulary: int) -> Options:
    """The options of rows.

    Args:
        temperature: float64 (B,), >= 0; 0 is greedy (the first of equal maxima).
        top_k: int64 (B,), 0: off.
        top_p: float64 (B,), in (0, 1]; 1: off. Applied after temperature and top_k, to their renormalised
            probabilities (Holtzman et al. 2020).
        vocabulary: V.
    """
    is_greedy = temperature == 0.0
    divisors = np.where(is_greedy, 1.0, temperature)[:, None]
    cut = (((top_k > 0) & (top_k < vocabulary)) | (top_p < 1.0)).nonzero()[0]
    return Options(
        is_greedy if is_greedy.any() else None,
        divisors if (divisors != 1.0).any() else None,
        cut if len(cut) else None,
        top_k[cut],
        top_p[cut],
    )


def pick(
    logits: NDArray[np.float32], options: Options, keys: NDArray[np.uint64], positions: NDArray[np.uint64]
) -> Tokens:
    """Pick one token a row.

    Args:
        logits: float32 (B, V).
        options: of the rows.
        keys: uint64 (B,), from `key_of`.
        positions: uint64 (B,).

    Returns:
        int64 (B,), in 0..V-1.

    Raises:
        FloatingPointError: the largest logit of a row is infinite or no number, so that no token is likely.
    """
    if options.is_greedy is not None and options.is_greedy.all():
        return _most_likely(logits)
    # A temperature so low that the division overflows means greedy; the shift by the maximum first keeps the
    # largest logit at 0 and no row at NaN.
    scaled = logits.astype(np.float64)
    highest = scaled.max(axis=1, keepdims=True)
    _check_finite(highest)
    scaled -= highest
    if options.divisors is not None:
        with np.errstate(over="ignore"):
            scaled /= options.divisors
    weights = np.exp(scaled)  # (B, V), the largest of each row 1
    if options.cut is not None:
        weights[options.cut] = _cut(logits[options.cut], weights[options.cut], options.top_k, options.top_p)
    cumulative = weights.cumsum(axis=1)
    # Inverse of the cumulative distribution. A draw is at most 1 - 2**-53, and that times the total rounds
    # below the total, so the first token whose sum exceeds it exists and has positive weight.
    drawn = uniforms(keys, positions)[:, None] * cumulative[:, -1:]
    picked: Tokens = (cumulative > drawn).argmax(axis=1)
    return picked if options.is_greedy is None else np.where(options.is_greedy, _most_likely(logits), picked)


def _most_likely(logits: NDArray[np.float32]) -> Tokens:
    """The first of equal maxima of each row."""
    tokens: Tokens = logits.argmax(axis=1)  # the first that is no number, if there is one
    _check_finite(logits[np.arange(len(tokens)), tokens])
    return tokens


def _check_finite(highest: NDArray[np.floating]) -> None:
    """Raise FloatingPointError unless the largest logits of rows are finite numbers."""
    # The sum in double precision is finite if and only if all are, and faster to look at.
    if not math.isfinite(highest.sum(dtype=np.float64)):
        raise FloatingPointError("expected logits whose largest is a finite number, found others")


def _cut(logits: NDArray[np.float32], weights: Floats, top_k: Tokens, top_p: Floats) -> Floats:
    """Set to zero what top_k and top_p exclude; of equal logits those of lower token ids are kept."""
    # Ranked by logits, not weights: at a high temperature weights that differ round to the same.
    order = np.argsort(-logits, axis=1, kind="stable")  # (B, V), most likely first
    ranked = np.take_along_axis(weights, order, axis=1)
    width = weights.shape[1]
    ranked[np.arange(width)[None, :] >= np.where(top_k > 0, top_k, width)[:, None]] = 0.0
    before = ranked.cumsum(axis=1) - ranked  # weight of those more likely
    total = ranked.sum(axis=1, keepdims=True)
    ranked[(before >= top_p[:, None] * total) & (top_p < 1.0)[:, None]] = 0.0
    kept = np.empty_like(weights)
    np.put_along_axis(kept, order, ranked, axis=1)
    return kept
