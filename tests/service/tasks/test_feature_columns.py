"""service.tasks.feature_columns."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.spec import FeatureColumn
from service.errors import InvalidArgument
from service.tasks.feature_columns import FeatureColumns

COLUMNS = [
    FeatureColumn(name="x", unit="g", mean=0.5, scale=2.0),
    FeatureColumn(name="power", unit="W", transform="log", mean=1.0, scale=0.5),
]
TINY_SCALE = [FeatureColumn(name="x", scale=1e-300)]
PATH = "inputs[3].steps.values"

values = st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(2.0**-20, 1e6, width=32))


def rows_of(*rows: Any) -> Any:
    return np.array(rows, np.float32)


def refusal(columns: FeatureColumns, rows: Any) -> tuple[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        columns.features(rows, PATH)
    [violation] = refused.value.violations
    return violation.field, violation.description


@given(st.lists(values, min_size=1, max_size=10))
def test_feature_is_the_scaled_transform_of_its_value(rows: list[tuple[float, float]]) -> None:
    found = FeatureColumns(COLUMNS, 2).features(rows_of(*rows), PATH)
    expected = [[(x - 0.5) / 2.0, (math.log(power) - 1.0) / 0.5] for x, power in rows]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@given(st.lists(values, min_size=2, max_size=40), st.data())
def test_time_step_has_the_same_bits_in_any_company(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    columns, cut = FeatureColumns(COLUMNS, 2), data.draw(st.integers(1, len(rows) - 1))
    parts = [columns.features(rows_of(*part), PATH) for part in (rows[:cut], rows[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), columns.features(rows_of(*rows), PATH))


def test_without_columns_values_are_the_features() -> None:
    rows = rows_of([1.5, -2.5], [3.0, 4.0])
    np.testing.assert_array_equal(FeatureColumns(None, 2).features(rows, PATH), rows)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("columns", [COLUMNS, None], ids=["columns", "no columns"])
def test_value_that_is_not_finite_is_refused_with_its_place(
    columns: list[FeatureColumn] | None, value: float
) -> None:
    field, text = refusal(FeatureColumns(columns, 2), rows_of([1.0, 1.0], [value, 1.0]))
    assert field == f"{PATH}[2]"
    assert text.startswith("expected a finite number")
    assert text.endswith(f"found {value}")
    assert (" for x" in text) == (columns is not None)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_logarithm_takes_numbers_above_zero_alone(value: float) -> None:
    field, text = refusal(FeatureColumns(COLUMNS, 2), rows_of([1.0, 1.0], [1.0, 1.0], [1.0, value]))
    assert (field, text) == (
        f"{PATH}[5]",
        f"expected a finite number above 0 for power, found {value}",
    )


def test_value_whose_feature_is_too_large_is_refused() -> None:
    assert refusal(FeatureColumns(TINY_SCALE, 1), rows_of([2.0])) == (
        f"{PATH}[0]",
        "expected a value of x whose feature 32 bits can hold, found 2.0",
    )


def test_rows_of_another_width_are_refused_with_the_names() -> None:
    assert refusal(FeatureColumns(COLUMNS, 2), rows_of([1.0, 2.0, 3.0])) == (
        PATH,
        "expected 2 values a time step (x, power), found 3",
    )
