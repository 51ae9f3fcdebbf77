"""service.tasks.feature_transform: bit for bit what the formulas of `service.contract.spec` give one number,
or one series, at a time.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.contract import spec
from service.tasks.feature_transform import FeatureTransform

HORIZON, QUANTILES, SCALES = 3, [0.1, 0.5, 0.9], [0.5, 1.0, 2.0]
NAMES = ("high", "close", "mood")


def described(transforms: tuple[str, str, str], target: str = "close") -> spec.ForecastSpec:
    references = ("close", "close", "mood")
    columns: list[Any] = [
        {"name": name, "unit": "", "transform": transform, "reference": reference, "scale": scale}
        for name, transform, reference, scale in zip(
            NAMES, transforms, references, (0.02, 0.01, 3.0), strict=True
        )
    ]
    return spec.ForecastSpec(
        columns=columns,
        target=target,
        horizon=HORIZON,
        quantiles=QUANTILES,
        scales=SCALES,
        least_observations=2,
    )


SPECS = {
    "every column logarithmic": described(("log", "log", "log")),
    "some columns logarithmic": described(("log", "log", "none")),
    "no column logarithmic": described(("none", "none", "none")),
    "a plain target beside logarithms": described(("log", "log", "none"), "mood"),
}
specs = pytest.mark.parametrize("section", SPECS.values(), ids=SPECS)

positive = st.floats(1e-300, 1e300)
rows = st.lists(st.tuples(positive, positive, positive), min_size=1, max_size=12)
outputs_of_one = st.lists(st.floats(-4, 4, width=32), min_size=9, max_size=9)


def levels_of(section: spec.ForecastSpec, observations: list[tuple[float, ...]]) -> NDArray[np.float64]:
    """Return f(value), a number at a time."""
    return np.array(
        [
            [
                np.log(np.array([value]))[0] if column.transform == "log" else value
                for column, value in zip(section.columns, row, strict=True)
            ]
            for row in observations
        ]
    )


def features_of(section: spec.ForecastSpec, observations: list[tuple[float, ...]]) -> NDArray[np.float32]:
    """Apply the formula of spec.Column, an observation at a time."""
    levels = levels_of(section, observations)
    found = []
    for step, row in enumerate(levels):
        before = [levels[max(0, step - 1), NAMES.index(column.reference)] for column in section.columns]
        found.append(
            [
                (value - past) / column.scale
                for value, past, column in zip(row, before, section.columns, strict=True)
            ]
        )
    with np.errstate(over="ignore"):
        return np.array(found).astype(np.float32)


@specs
@given(series=st.lists(rows, min_size=1, max_size=5))
def test_features_of_many_series_are_those_of_each_alone(
    section: spec.ForecastSpec, series: list[list[tuple[float, ...]]]
) -> None:
    transform = FeatureTransform(section)
    starts = np.cumsum([0, *map(len, series)])
    with np.errstate(over="ignore"):
        found = transform.features(
            transform.levels(np.array([row for one in series for row in one])), starts[:-1].tolist()
        )
    assert found.dtype == np.float32
    for one, start, end in zip(series, starts, starts[1:], strict=False):
        np.testing.assert_array_equal(found[start:end], features_of(section, one))


@specs
@given(observations=rows, place=st.integers(0, 11))
def test_features_that_go_on_are_those_of_the_whole_series(
    section: spec.ForecastSpec, observations: list[tuple[float, ...]], place: int
) -> None:
    transform, cut = FeatureTransform(section), 1 + place % len(observations)
    with np.errstate(over="ignore"):
        whole = transform.levels(np.array(observations))
        parts = [transform.features(transform.levels(np.array(observations[:cut])), (0,))]
        before = transform.levels(np.array(observations[:cut]))[-1].tolist()
        if cut < len(observations):
            parts.append(transform.features(transform.levels(np.array(observations[cut:])), (0,), before))
        np.testing.assert_array_equal(np.concatenate(parts), transform.features(whole, (0,)))


@specs
@given(outputs=st.lists(outputs_of_one, min_size=1, max_size=5), last=st.floats(1e-6, 1e6))
def test_values_of_many_series_are_those_of_each_alone(
    section: spec.ForecastSpec, outputs: list[list[float]], last: float
) -> None:
    transform = FeatureTransform(section)
    lasts = np.array([last * (1 + index) for index in range(len(outputs))])
    is_log = section.column(section.target).transform == "log"
    found = transform.values(np.array(outputs, np.float32), (np.log(lasts) if is_log else lasts).tolist())
    for one, value, right in zip(found, lasts.tolist(), outputs, strict=True):
        scaled = (
            np.array(right, np.float32).astype(np.float64).reshape(HORIZON, -1) * np.array(SCALES)[:, None]
        )
        np.testing.assert_array_equal(
            one, np.sort(np.exp(np.log(value) + scaled) if is_log else value + scaled, axis=1).ravel()
        )


# Plain numbers against arrays.


@specs
@given(observations=rows, before=st.none() | st.tuples(positive, positive, positive))
def test_plain_features_are_those_of_arrays_or_none(
    section: spec.ForecastSpec, observations: list[tuple[float, ...]], before: tuple[float, ...] | None
) -> None:
    transform = FeatureTransform(section)
    past = None if before is None else transform.levels(np.array([before]))[0].tolist()
    found = transform.plain_features(observations, past)
    if found is not None:
        levels = transform.levels(np.array(observations))
        np.testing.assert_array_equal(found[0], transform.features(levels, (0,), past))
        assert found[0].dtype == np.float32
        assert found[1] == levels[-1].tolist()


@given(observations=st.lists(st.tuples(*[st.floats(0.01, 1e5)] * 3), min_size=1, max_size=12))
@pytest.mark.parametrize("name", ["every column logarithmic", "no column logarithmic"])
def test_everyday_series_of_one_transform_are_done_in_plain_numbers(
    name: str, observations: list[tuple[float, ...]]
) -> None:
    assert FeatureTransform(SPECS[name]).plain_features(observations, None) is not None


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_series_with_a_value_to_refuse_is_left_to_arrays(value: float, place: int) -> None:
    observations = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    observations[1][place] = value
    assert FeatureTransform(SPECS["every column logarithmic"]).plain_features(observations, None) is None


def test_change_that_32_bits_do_not_hold_is_left_to_arrays() -> None:
    assert (
        FeatureTransform(SPECS["no column logarithmic"]).plain_features(
            [[1.0, 1.0, 1.0], [1e300, 1.0, 1.0]], None
        )
        is None
    )


@specs
@given(output=st.lists(st.floats(-1e3, 1e3, width=32), min_size=9, max_size=9), last=st.floats(1e-300, 1e300))
def test_plain_values_are_those_of_arrays_or_none(
    section: spec.ForecastSpec, output: list[float], last: float
) -> None:
    transform = FeatureTransform(section)
    level = float(np.log(last)) if section.column(section.target).transform == "log" else last
    found = transform.plain_values(np.array(output, np.float32), level)
    with np.errstate(over="ignore"):
        right = transform.values(np.array([output], np.float32), [level])[0]
    if found is not None:
        np.testing.assert_array_equal(found, right)


@specs
@given(output=outputs_of_one, last=st.floats(0.01, 1e5))
def test_everyday_values_are_done_in_plain_numbers(
    section: spec.ForecastSpec, output: list[float], last: float
) -> None:
    assert (
        FeatureTransform(section).plain_values(np.array(output, np.float32), float(np.log(last))) is not None
    )
