"""Lengths as users write them."""

import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.bench.distribution import parse_distribution


@pytest.mark.parametrize("text", ["7", "constant:7"])
def test_a_constant_is_always_the_same(text: str) -> None:
    drawn = parse_distribution(text)
    assert {drawn.draw(Random(seed)) for seed in range(20)} == {7}


@given(least=st.integers(1, 50), extra=st.integers(0, 50), seed=st.integers())
def test_uniform_stays_within_its_bounds(least: int, extra: int, seed: int) -> None:
    drawn = parse_distribution(f"uniform:{least}:{least + extra}")
    assert least <= drawn.draw(Random(seed)) <= least + extra


def test_uniform_reaches_both_its_bounds() -> None:
    random, drawn = Random(0), parse_distribution("uniform:1:3")
    assert {drawn.draw(random) for _ in range(100)} == {1, 2, 3}


@given(mean=st.floats(1, 1000), sigma=st.floats(0, 3), most=st.integers(1, 5000), seed=st.integers())
def test_lognormal_stays_within_its_bounds(mean: float, sigma: float, most: int, seed: int) -> None:
    assert 1 <= parse_distribution(f"lognormal:{mean}:{sigma}:{most}").draw(Random(seed)) <= most


def test_the_mean_of_a_lognormal_is_the_one_given() -> None:
    random, drawn = Random(0), parse_distribution("lognormal:50:0.6")
    assert statistics.fmean(drawn.draw(random) for _ in range(20_000)) == pytest.approx(50, rel=0.02)
    assert drawn.max_length == 500


WRONG = (
    *("", "0", "-1", "x", "1.5", "gamma:2:1"),
    *("constant", "constant:0", "constant:1:2"),
    *("uniform:3", "uniform:3:2", "uniform:0:2", "uniform:1:99999999999"),
    *(
        "lognormal:50",
        "lognormal:nan:1",
        "lognormal:0.5:1",
        "lognormal:50:-1",
        "lognormal:50:1:0",
        "lognormal:inf:1",
    ),
)


@pytest.mark.parametrize("text", WRONG)
def test_what_makes_no_sense_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected N, constant:N, uniform:MIN:MAX or lognormal:MEAN:SIGMA"):
        parse_distribution(text)
