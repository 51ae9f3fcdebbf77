"""Percentiles out of buckets, against the exact ones."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.bench.histogram import Histogram

numbers = st.lists(st.floats(1e-5, 1e6), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(numbers, st.floats(0, 1))
def test_a_quantile_is_never_below_the_exact_one_and_at_most_one_percent_above(
    values: list[float], level: float
) -> None:
    exact = sorted(values)[max(1, math.ceil(level * len(values))) - 1]
    assert exact * (1 - 1e-9) <= filled(values).quantile(level) <= exact * 1.01 * (1 + 1e-9)


@given(numbers)
def test_count_extremes_and_mean_are_exact(values: list[float]) -> None:
    histogram = filled(values)
    assert (histogram.count, histogram.min_value, histogram.max_value) == (
        len(values),
        min(values),
        max(values),
    )
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert sum(count for _, count in histogram.buckets()) == len(values)


@given(numbers)
def test_quantiles_rise_to_the_maximum(values: list[float]) -> None:
    found = [filled(values).quantile(level / 20) for level in range(21)]
    assert found == sorted(found)
    assert found[-1] == max(values)


@given(st.floats(1e-5, 1e6), st.integers(1, 1000))
def test_a_number_counted_several_times_is_as_many_numbers(value: float, count: int) -> None:
    together = Histogram()
    together.add(value, count)
    assert together.buckets() == filled([value] * count).buckets()
    assert together.count == count


def test_numbers_beyond_the_buckets_are_counted_at_their_ends() -> None:
    histogram = filled([0.0, -1.0, 1e12])
    assert (histogram.count, histogram.min_value, histogram.max_value) == (3, -1.0, 1e12)
    assert histogram.quantile(0.5) == pytest.approx(1e-6, rel=0.02)


def test_an_empty_one_has_no_quantile() -> None:
    assert math.isnan(Histogram().quantile(0.5))
    assert math.isnan(Histogram().mean)
    assert json.loads(json.dumps(Histogram().as_json(), allow_nan=False))["mean"] is None
