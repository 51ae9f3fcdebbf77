"""Examples to try: golden examples, turned back into what callers send."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from seqserve.playground.examples import (
    START,
    example_initial,
    example_series,
    example_steps,
    example_texts,
    example_tokens,
    init_inputs,
)
from service.contract.spec import ForecastSpec
from service.tasks.feature_transform import FeatureTransform
from tests.playground.infos import model_info

EXPORTED = Path(__file__).parents[2] / "exported"


def test_the_example_of_the_shipped_forecaster_gives_its_golden_features_again() -> None:
    spec = json.loads((EXPORTED / "stock/2/model.json").read_text())
    rows = example_series(model_info("forecasting", spec=spec))
    golden = max((each["features"] for each in spec["golden"]), key=len)
    transform = FeatureTransform(ForecastSpec.model_validate(spec["forecasting"]))
    features = transform.features(transform.levels(np.array(rows)), [0])
    np.testing.assert_allclose(features, golden, atol=1e-4)
    assert rows[0][transform.target] == pytest.approx(START)


def test_rows_of_columns_are_turned_back_by_scale_mean_and_logarithm() -> None:
    columns = [{"name": "a", "scale": 2.0, "mean": 1.0}, {"name": "b", "transform": "log"}]
    spec = {"sequences": {"columns": columns}, "golden": [{"features": [[3.0, 0.0], [0.0, 1.0]]}]}
    [rows] = example_steps(model_info(spec=spec))
    assert rows == [[7.0, 1.0], [1.0, math.e]]


def test_values_as_callers_send_them_are_taken_as_they_stand() -> None:
    spec = {"golden": [{"features": [[9.0]], "values": [[5.0]]}, {"features": [[1.0], [2.0]]}]}
    assert example_steps(model_info(spec=spec)) == [[[1.0], [2.0]], [[5.0]]]


def test_an_example_beyond_what_numbers_hold_is_left_out() -> None:
    spec = {"sequences": {"columns": [{"name": "a", "transform": "log"}]}, "golden": [{"features": [[1e5]]}]}
    assert example_steps(model_info(spec=spec)) == []


@pytest.mark.parametrize("spec", [{}, {"golden": None}, {"golden": [{"steps": [0]}]}])
def test_a_model_without_examples_has_none(spec: dict[str, object]) -> None:
    model = model_info(spec=spec)
    examples = (example_texts(model), example_tokens(model), example_steps(model), example_series(model))
    assert examples == ([], [], [], [])
    assert (example_initial(model), init_inputs(model)) == ({}, {})


def test_tokens_of_characters_are_turned_back_into_a_text() -> None:
    section = {"text": {"kind": "characters", "vocabulary": "abc"}}
    model = model_info(spec={"sequences": section, "golden": [{"tokens": [2, 0, 1]}]})
    assert example_texts(model) == ["cab"]


def test_texts_tokens_and_initial_values_come_from_the_golden_examples() -> None:
    golden = [{"tokens": [1], "text": "a"}, {"tokens": [1, 2, 3], "text": "abc", "initial": {"image": [0.5]}}]
    init = {"file": "init.onnx", "inputs": [{"name": "image", "size": 1}]}
    model = model_info(spec={"golden": golden, "init": init})
    assert init_inputs(model) == {"image": 1}
    assert example_texts(model) == ["abc", "a"]
    assert example_tokens(model) == [[1, 2, 3], [1]]
    assert example_initial(model) == {"image": [0.5]}
