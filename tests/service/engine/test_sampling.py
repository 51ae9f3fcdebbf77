"""Tests of service.engine.sampling.

Random tests here use fixed seeds: their outcome never changes, and the odds stated are those of the first
run.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.sampling import (
    key_of,
    log_softmax,
    logprobs_of,
    mix,
    uniforms,
    with_alternatives,
)
from tests.service.engine.fakes import sample

LARGEST = float(np.finfo(np.float32).max)


class Row(NamedTuple):
    """One row to sample: its logits, its options, its place in the stream of its seed."""

    logits: tuple[float, ...]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    position: int = 0


def sample_rows(rows: list[Row]) -> list[int]:
    tokens: list[int] = sample(
        np.array([row.logits for row in rows], np.float32),
        np.array([row.temperature for row in rows], np.float64),
        np.array([row.top_k for row in rows], np.int64),
        np.array([row.top_p for row in rows], np.float64),
        np.array([key_of(row.seed) for row in rows], np.uint64),
        np.array([row.position for row in rows], np.uint64),
    ).tolist()
    return tokens


def sample_many(row: Row, count: int) -> NDArray[np.int64]:
    """Tokens of one distribution for seeds 0..count-1."""
    return sample(
        np.tile(np.array(row.logits, np.float32), (count, 1)),
        np.full(count, row.temperature),
        np.full(count, row.top_k, np.int64),
        np.full(count, row.top_p),
        np.array([key_of(seed) for seed in range(count)], np.uint64),
        np.full(count, row.position, np.uint64),
    )


def uniform(seed: int, position: int) -> float:
    return float(uniforms(np.array([key_of(seed)], np.uint64), np.array([position], np.uint64))[0])


def kept_weights(row: Row) -> list[float]:
    """The unnormalised probabilities after temperature, top_k and top_p in plain Python; unclear cases are
    assumed away.
    """
    peak = max(row.logits)
    weights = [math.exp((logit - peak) / row.temperature) for logit in row.logits]
    order = sorted(range(len(weights)), key=lambda token: (-row.logits[token], token))
    if row.top_k:
        order = order[: row.top_k]
    if row.top_p < 1:
        total = sum(weights[token] for token in order)
        nucleus, mass = [], 0.0
        for token in order:
            assume(abs(mass - row.top_p * total) > 1e-9)
            if mass >= row.top_p * total:
                break
            nucleus.append(token)
            mass += weights[token]
        order = nucleus
    return [weight if token in order else 0.0 for token, weight in enumerate(weights)]


def slow_sample(row: Row) -> int:
    """One row in plain Python: the first token whose cumulative weight exceeds the draw."""
    if row.temperature == 0:
        return row.logits.index(max(row.logits))
    weights = kept_weights(row)
    drawn = uniform(row.seed, row.position) * sum(weights)
    reached = 0.0
    for token, weight in enumerate(weights):
        reached += weight
        assume(weight == 0 or abs(reached - drawn) > 1e-9)
        if reached > drawn:
            return token
    raise AssertionError("the draw is below the total")


def total_variation(tokens: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    frequencies = np.bincount(tokens, minlength=len(probabilities)) / len(tokens)
    return float(np.abs(frequencies - probabilities).sum() / 2)


logits_f32 = st.floats(-30, 30, width=32)
seeds = st.integers(0, 2**64 - 1)
positions = st.integers(0, 2**63)


def rows_of(width: int, logits: st.SearchStrategy[float] = logits_f32) -> st.SearchStrategy[Row]:
    return st.builds(
        Row,
        st.tuples(*[logits] * width),
        st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        st.integers(0, width + 2),
        st.sampled_from([1.0, 0.95, 0.5, 0.1, 1e-12]),
        seeds,
        positions,
    )


batches = st.integers(1, 9).flatmap(lambda width: st.lists(rows_of(width), min_size=1, max_size=9))
coarse_batches = st.integers(1, 6).flatmap(
    lambda width: st.lists(rows_of(width, st.integers(-2, 2).map(float)), min_size=1, max_size=6)
)


def test_uniforms_are_the_published_outputs_of_splitmix64() -> None:
    # The first outputs for seed 1234567 that implementations of SplitMix64 are commonly checked by (Rosetta
    # Code).
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = uniforms(np.full(5, 1234567, np.uint64), np.arange(5, dtype=np.uint64))
    assert found.tolist() == [(word >> 11) * 2.0**-53 for word in published]


@given(seeds, positions)
def test_uniforms_lie_in_the_half_open_unit_interval(seed: int, position: int) -> None:
    assert 0.0 <= uniform(seed, position) < 1.0


def test_largest_word_gives_a_uniform_below_one() -> None:
    assert (2**64 - 1 >> 11) * 2.0**-53 < 1.0


@pytest.mark.parametrize("axis", ["seeds", "positions"])
def test_neighbouring_uniforms_are_uniform_and_uncorrelated(axis: str) -> None:
    """Five standard deviations each: for true random numbers, odds of a false alarm below 1 in 200,000."""
    count = 50_000
    run = np.arange(count, dtype=np.uint64)
    keys = (
        np.array([key_of(seed) for seed in range(count)], np.uint64)
        if axis == "seeds"
        else np.full(count, key_of(3), np.uint64)
    )
    drawn = uniforms(keys, np.full(count, 7, np.uint64) if axis == "seeds" else run)
    assert abs(drawn.mean() - 0.5) < 5 * math.sqrt(1 / 12 / count)
    assert abs(drawn.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / count)
    for lag in (1, 2, 3):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 5 / math.sqrt(count)
    assert len(np.unique(drawn)) == count


def test_streams_of_neighbouring_seeds_are_not_shifted_copies() -> None:
    run = np.arange(1000, dtype=np.uint64)
    streams = [set(uniforms(np.full(1000, key_of(seed), np.uint64), run).tolist()) for seed in range(8)]
    assert len(set.union(*streams)) == 8000


@given(st.lists(seeds, min_size=2, max_size=20, unique=True))
def test_mix_sends_different_words_to_different_words(words: list[int]) -> None:
    assert len(set(mix(np.array(words, np.uint64)).tolist())) == len(words)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_match_the_softmax(temperature: float) -> None:
    """Chi-square with 7 degrees of freedom against 35: odds of a false alarm 1 in 90,000."""
    logits = (0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 1.5, 0.25)
    count = 20_000
    wide = np.array(logits) / temperature
    probabilities = np.exp(wide) / np.exp(wide).sum()
    observed = np.bincount(sample_many(Row(logits, temperature), count), minlength=len(logits))
    assert ((observed - count * probabilities) ** 2 / (count * probabilities)).sum() < 35


def test_frequencies_match_the_renormalised_softmax_after_top_k_and_top_p() -> None:
    """Total variation over 3 tokens and 20,000 draws: expected about 0.004; beyond 0.02 the odds are below 1
    in a million.
    """
    row = Row((2.0, 1.0, 0.0, -1.0, -2.0), top_k=4, top_p=0.9)
    weights = np.exp(
        [2.0, 1.0, 0.0, -math.inf, -math.inf]
    )  # before the fourth 0.968 of the four have been reached, before the third 0.881
    assert total_variation(sample_many(row, 20_000), weights / weights.sum()) < 0.02


def test_positions_of_one_seed_give_the_softmax_too() -> None:
    """Total variation over 4 tokens and 20,000 draws: beyond 0.02 the odds are below 1 in a million."""
    logits = np.array([0.0, 1.0, 2.0, -1.0], np.float32)
    count = 20_000
    drawn = sample(
        np.tile(logits, (count, 1)),
        np.ones(count),
        np.zeros(count, np.int64),
        np.ones(count),
        np.full(count, key_of(11), np.uint64),
        np.arange(count, dtype=np.uint64),
    )
    probabilities = np.exp(logits.astype(np.float64))
    assert total_variation(drawn, probabilities / probabilities.sum()) < 0.02


@given(coarse_batches)
def test_temperature_zero_picks_the_first_of_equal_maxima(rows: list[Row]) -> None:
    assert sample_rows([row._replace(temperature=0.0) for row in rows]) == [
        row.logits.index(max(row.logits)) for row in rows
    ]


@given(coarse_batches)
def test_top_k_of_one_is_greedy(rows: list[Row]) -> None:
    assert sample_rows([row._replace(top_k=1) for row in rows]) == [
        row.logits.index(max(row.logits)) for row in rows
    ]


@pytest.mark.parametrize("temperature", [1e-300, 1.0, 1e20, 1e300])
def test_top_k_keeps_the_most_likely_tokens_at_any_temperature(temperature: float) -> None:
    """At a temperature so high that all weights round to the same number, the order of the logits is still
    known.
    """
    assert set(sample_many(Row((0.0, 5.0, 1.0, 4.0), temperature, top_k=2), 100).tolist()) <= {1, 3}


# Logits that differ by so little that their weights round to the same: ranked by the logits all the same.
@example([Row((0.0, 0.0, 1.1754943508222875e-38), 0.3, top_p=0.5)])
@given(batches)
def test_tokens_equal_a_slow_reference(rows: list[Row]) -> None:
    assert sample_rows(rows) == [slow_sample(row) for row in rows]


@given(coarse_batches)
def test_tokens_equal_a_slow_reference_where_logits_tie(rows: list[Row]) -> None:
    assert sample_rows(rows) == [slow_sample(row) for row in rows]


@given(rows_of(8), st.integers(0, 1000))
def test_excluded_tokens_are_never_drawn(row: Row, start: int) -> None:
    assume(row.temperature > 0)
    weights = kept_weights(row)
    drawn = sample_rows([row._replace(seed=start + offset) for offset in range(64)])
    assert all(weights[token] > 0 for token in drawn)


@given(rows_of(8), st.integers(8, 2**40))
def test_top_k_beyond_the_vocabulary_changes_nothing(row: Row, top_k: int) -> None:
    assert sample_rows([row._replace(top_k=top_k)]) == sample_rows([row._replace(top_k=0)])


@given(batches, st.randoms(use_true_random=False))
def test_token_is_the_same_alone_and_in_any_batch_in_any_order(rows: list[Row], random: Any) -> None:
    alone = [sample_rows([row])[0] for row in rows]
    order = list(range(len(rows)))
    random.shuffle(order)
    assert sample_rows([rows[index] for index in order]) == [alone[index] for index in order]


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 65, 129, 1000])
def test_log_softmax_has_the_same_bits_alone_and_in_any_batch(width: int) -> None:
    generator = np.random.default_rng(width)
    logits = generator.normal(0, 5, (37, width)).astype(np.float32)
    order = generator.permutation(37)
    alone = np.concatenate([log_softmax(logits[row : row + 1]) for row in order])
    np.testing.assert_array_equal(log_softmax(logits[order]), alone)


@pytest.mark.parametrize("width", [2, 65, 1000])
def test_wide_rows_sample_the_same_alone_and_in_a_batch(width: int) -> None:
    generator = np.random.default_rng(width)
    rows = [
        Row(tuple(generator.normal(0, 3, width).tolist()), temperature, top_k, top_p, seed, seed * 7)
        for seed, (temperature, top_k, top_p) in enumerate(
            [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.9), (0.0, 0, 1.0), (1.0, 40, 0.8)] * 5
        )
    ]
    assert sample_rows(rows) == [sample_rows([row])[0] for row in rows]


@given(rows_of(6))
def test_token_depends_on_seed_and_position_alone(row: Row) -> None:
    assert sample_rows([row]) == sample_rows([row])


def test_different_seeds_and_positions_give_different_texts() -> None:
    row = Row((0.0,) * 50)
    by_seed = {
        tuple(sample_rows([row._replace(seed=seed, position=position) for position in range(20)]))
        for seed in range(50)
    }
    assert len(by_seed) == 50


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-10, 1.0, 1e10, 1e300, 1.7e308])
@pytest.mark.parametrize(
    "logits",
    [
        pytest.param((LARGEST, -LARGEST, 0.0, 1.0), id="largest float32 of both signs"),
        pytest.param((-LARGEST, -LARGEST, -LARGEST, -LARGEST), id="all most negative"),
        pytest.param((1e-45, 0.0, -1e-45, 1e-45), id="subnormal"),
        pytest.param((1000.0, 999.0, -1000.0, 0.0), id="far apart"),
        pytest.param((0.0, 0.0, 0.0, 0.0), id="all equal"),
    ],
)
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (2, 1.0), (0, 0.5), (3, 5e-324)], ids=str)
def test_extreme_numbers_give_a_token_of_the_vocabulary(
    logits: tuple[float, ...], temperature: float, top_k: int, top_p: float
) -> None:
    drawn = sample_rows([Row(logits, temperature, top_k, top_p, seed) for seed in range(20)])
    assert set(drawn) <= set(range(len(logits)))


def test_very_low_temperature_is_greedy() -> None:
    assert set(sample_many(Row((0.0, 1.0, 0.999, -1.0), temperature=1e-300), 200).tolist()) == {1}


def test_very_high_temperature_is_uniform() -> None:
    """Total variation over 4 tokens and 20,000 draws: beyond 0.02 the odds are below 1 in a million."""
    assert (
        total_variation(sample_many(Row((9.0, -9.0, 0.0, 3.0), temperature=1e300), 20_000), np.full(4, 0.25))
        < 0.02
    )


def test_top_p_keeps_no_more_than_it_needs() -> None:
    """Two equal tokens, and half of their probability is asked for: the first suffices."""
    assert set(sample_many(Row((1.0, 1.0), top_p=0.5), 100).tolist()) == {0}


@pytest.mark.parametrize("drawn", [0.0, 1 - 2.0**-53], ids=["smallest draw", "largest draw"])
@pytest.mark.parametrize(
    "logits", [(0.0, 3.0, 2.0, 0.0), (3.0, 0.0, 0.0, 2.0), (0.1, 0.2, 0.3, 0.3)], ids=str
)
def test_extreme_draws_give_a_token_that_is_not_excluded(
    monkeypatch: pytest.MonkeyPatch, drawn: float, logits: tuple[float, ...]
) -> None:
    monkeypatch.setattr("service.engine.sampling.uniforms", lambda keys, _: np.full(len(keys), drawn))
    row = Row(logits, top_k=2)
    kept = sorted(range(4), key=lambda token: (-logits[token], token))[:2]
    assert sample_rows([row]) == [min(kept) if drawn == 0.0 else max(kept)]


def test_single_token_vocabulary_gives_that_token() -> None:
    assert sample_rows([Row((3.0,), temperature, 0, 0.5) for temperature in (0.0, 1.0, 2.0)]) == [0, 0, 0]


@given(
    st.integers(1, 12).flatmap(
        lambda width: st.lists(st.tuples(*[logits_f32] * width), min_size=1, max_size=6)
    ),
    st.data(),
)
def test_logprobs_equal_a_slow_reference(rows: list[tuple[float, ...]], data: st.DataObject) -> None:
    targets = [data.draw(st.integers(0, len(rows[0]) - 1)) for _ in rows]
    found = logprobs_of(np.array(rows, np.float32), np.array(targets, np.int64))
    for row, target, logprob in zip(rows, targets, found.tolist(), strict=True):
        assert logprob == pytest.approx(
            row[target] - max(row) - math.log(sum(math.exp(one - max(row)) for one in row)),
            rel=1e-6,
            abs=1e-6,
        )


def test_logprobs_come_as_float32() -> None:
    assert logprobs_of(np.zeros((2, 4), np.float32), np.array([0, 3])).dtype == np.float32


def test_logprobs_of_huge_logits_are_numbers() -> None:
    found = logprobs_of(
        np.array([[LARGEST / 4, -LARGEST / 4], [LARGEST, LARGEST]], np.float32), np.array([1, 0])
    )
    np.testing.assert_allclose(found, [-LARGEST / 2, -math.log(2)], rtol=1e-6)


@given(st.lists(st.tuples(*[logits_f32] * 5), min_size=1, max_size=4))
def test_probabilities_of_a_row_sum_to_one(rows: list[tuple[float, ...]]) -> None:
    np.testing.assert_allclose(np.exp(log_softmax(np.array(rows, np.float32))).sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_of_which_no_token_is_likely_are_refused(temperature: float, wrong: float) -> None:
    """They gave the first token of the vocabulary, or that of the wrong logit."""
    with pytest.raises(FloatingPointError, match="whose largest is a finite number"):
        sample_rows([Row((0.0, 1.0, 2.0), temperature), Row((0.0, wrong, 2.0), temperature)])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_token_that_is_masked_by_an_infinite_logit_is_never_drawn(temperature: float) -> None:
    rows = [Row((-math.inf, 1.0, -math.inf), temperature, seed=seed) for seed in range(50)]
    assert set(sample_rows(rows)) == {1}


# Alternatives.


@given(
    st.integers(1, 12).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-3, 3), min_size=width, max_size=width), min_size=1, max_size=4
        )
    ),
    st.integers(1, 15),
)
def test_alternatives_are_the_most_likely_tokens_in_order(rows: list[list[int]], count: int) -> None:
    """Small whole logits make ties, of which any may be the last one named; those named are in order."""
    logits, logprobs = np.array(rows, np.float32), np.arange(len(rows), dtype=np.float32)
    found = with_alternatives(logits, logprobs, count)
    width = min(count, logits.shape[1])
    assert found.shape == (len(rows), 1 + 2 * width)
    np.testing.assert_array_equal(found[:, 0], logprobs)
    for row, values, one in zip(rows, log_softmax(logits), found, strict=True):
        ids = one[1 : 1 + width].astype(int).tolist()
        assert len(set(ids)) == width
        assert [row[token] for token in ids] == sorted(row, reverse=True)[:width]
        assert ids == sorted(ids, key=lambda token: (-row[token], token))
        assert one[1 + width :].tolist() == values[ids].tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_alternatives_of_a_row_are_the_same_beside_others(seed: int, count: int) -> None:
    logits = np.random.default_rng(seed).integers(-2, 3, (5, 40)).astype(np.float32)
    together = with_alternatives(logits, np.zeros(5, np.float32), count)
    for row in range(5):
        alone = with_alternatives(logits[row : row + 1], np.zeros(1, np.float32), count)
        np.testing.assert_array_equal(alone[0], together[row])
