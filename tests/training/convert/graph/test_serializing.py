"""A graph and its file of weights become one file, as if it had held them all along."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.training.convert.made import SERIES, converted_of
from training.convert.graph import weights
from training.convert.graph.serializing import serialized
from training.convert.graph.weights import move_out
from training.networks.sequences import LayerConfig

WIDE = replace(SERIES, layers=(LayerConfig("lstm", 6), LayerConfig("gru", 64)))


@pytest.mark.parametrize("least", [0, 200, 1 << 14, 1 << 30], ids=["all", "many", "large", "none"])
def test_weights_outside_are_put_into_the_file(
    least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = converted_of(WIDE).graph
    expected = {one.name: onnx.numpy_helper.to_array(one) for one in whole.graph.initializer}
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    monkeypatch.setattr(weights, "_MIN_BYTES", least)
    small, _ = move_out(model, tmp_path)
    data = serialized(small, tmp_path)
    found = onnx.load_from_string(data)
    assert not [one for one in found.graph.initializer if one.external_data]
    assert {one.name for one in found.graph.initializer} == set(expected)
    for one in found.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), expected[one.name])
    onnx.checker.check_model(found, full_check=True)
    assert [one.name for one in ort.InferenceSession(data).get_inputs()] == [
        one.name for one in whole.graph.input
    ]
