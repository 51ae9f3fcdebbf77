"""What scaling a user's file means, beside scikit-learn's own arithmetic."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from service.contract import spec
from service.tasks.feature_columns import FeatureColumns
from training.convert.meaning.features import columns_of, outputs_of
from training.errors import TrainingError

OPTION = "--features"
SCALERS = (
    StandardScaler,
    MinMaxScaler,
    lambda: MinMaxScaler((-1, 3)),
    lambda: StandardScaler(with_mean=False),
    lambda: StandardScaler(with_std=False),
    MaxAbsScaler,
    RobustScaler,
)


def table(seed: int, columns: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    found = generator.normal(
        generator.normal(0, 50, columns), generator.uniform(0.1, 30, columns), (40, columns)
    )
    if columns > 1:
        found[:, 1] = 7.5  # a column of one value
    return found


def attributes(scaler: Any) -> object:
    """Return a scaler's attributes as a file of JSON has them."""
    own = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(scaler).items()
    }
    own = {name: value for name, value in own.items() if name != "n_samples_seen_"}
    return json.loads(json.dumps(own))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from(SCALERS), st.booleans())
def test_scaler_gives_the_features_that_scikit_learn_gives(
    seed: int, count: int, kind: Any, is_object: bool
) -> None:
    values = table(seed, count)
    scaler = kind().fit(values)
    columns = columns_of(scaler if is_object else attributes(scaler), count, OPTION)
    sent = values.astype(np.float32)
    found = FeatureColumns(columns, count).features(sent, "values")
    np.testing.assert_allclose(found, scaler.transform(sent.astype(np.float64)), rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(SCALERS))
def test_outputs_are_scaled_back_as_scikit_learn_does(seed: int, count: int, kind: Any) -> None:
    scaler = kind().fit(table(seed, count))
    columns = outputs_of(attributes(scaler), count, OPTION)
    rows = np.random.default_rng(seed).normal(size=(9, count))
    found = rows * [one.scale for one in columns] + np.array([one.mean for one in columns])
    np.testing.assert_allclose(found, scaler.inverse_transform(rows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "described",
    [
        {"data_min_": [1, 7], "data_max_": [3, 7], "feature_range": [0, 1]},
        {"min_": [-0.5, -7], "scale_": [0.5, 1]},
        {"names": ["x0", "x1"], "mean": [1, 7], "scale": [2, 1]},
        [{"name": "x0", "mean": 1, "scale": 2}, {"name": "x1", "mean": 7}],
        [{"mean": 1, "scale": 2}, {"mean": 7, "scale": 1.0}],
        {"mean_": [1, 7], "var_": [4, 0], "scale_": None},
    ],
)
def test_forms_of_one_scaling_are_equal(described: object) -> None:
    expected = (
        spec.FeatureColumn(name="x0", mean=1.0, scale=2.0),
        spec.FeatureColumn(name="x1", mean=7.0, scale=1.0),
    )
    assert columns_of(described, 2, OPTION) == expected


def test_names_units_and_transforms_are_kept() -> None:
    described = {"names": ["load", "heat"], "units": ["kW", "K"], "means": [1, 2], "scales": [3, 4]}
    assert [(one.name, one.unit) for one in columns_of(described, 2, OPTION)] == [
        ("load", "kW"),
        ("heat", "K"),
    ]
    assert columns_of([{"name": "p", "transform": "log"}, "q"], 2, OPTION)[0].transform == "log"
    scaler = StandardScaler().fit(table(0, 2))
    named = {**vars(scaler), "feature_names_in_": np.array(["a", "b"], object)}
    assert [one.name for one in columns_of(named, 2, OPTION)] == ["a", "b"]


@pytest.mark.parametrize(
    ("described", "found"),
    [
        ({"mean_": [1.0], "scale_": [1.0]}, "expected 2 columns, as the network has, found 1"),
        ({"mean_": [1.0, 2], "scale_": [1.0]}, "found 2 means and 1 scales"),
        ({"min_": [0, 0], "scale_": [1, 0]}, "expected scales above 0"),
        ({"mean_": [0, 0], "scale_": [1, float("nan")]}, "finite numbers in scale_"),
        ({"mean_": ["a", "b"], "scale_": [1, 1]}, "finite numbers in mean_, found ['a', 'b']"),
        ({"min_": [0, 0], "scale_": [1, 1], "clip": True}, "does not clip"),
        ([{"name": "a"}, {"name": "a"}], "expected different names"),
        ([{"name": "a", "scale": 0}, {"name": "b"}], "scale"),
        ([{"name": "a", "sigma": 2}, {"name": "b"}], "sigma"),
        ({"names": ["a", "b"], "mean": [1]}, "expected lists of one length"),
        ({"names": ["a", "b"], "sigma": [1]}, "expected the keys names, units, mean and scale"),
        ({"names": "ab"}, "expected a list in names"),
        ({"a": 1}, "expected a list of"),
        ("text", "expected a list of"),
        ({"clip": False, "with_std": False, "feature_range": None, "scale_": None}, "found none of them"),
    ],
)
def test_description_that_does_not_fit_is_refused(described: object, found: str) -> None:
    with pytest.raises(TrainingError) as refused:
        columns_of(described, 2, OPTION)
    assert found in str(refused.value)
    assert str(refused.value).startswith("--features: ")


def test_outputs_cannot_have_a_transform() -> None:
    with pytest.raises(TrainingError, match="no transform of an output, found log of 'p'"):
        outputs_of([{"name": "p", "transform": "log"}], 1, "--target-features")


def test_more_columns_than_any_network_takes_are_refused_at_once() -> None:
    with pytest.raises(TrainingError, match="expected at most 65536 columns, found 1000000"):
        columns_of([1] * 1_000_000, 3, "--features")
