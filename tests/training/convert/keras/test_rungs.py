"""Networks of Keras end on the rung of the ladder that their kind calls for, equal to the original."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.contract import spec
from tests.training.convert.keras.models import FEATURES, VOCABULARY, Save, randomize
from training.convert.cases import Drawing
from training.convert.converted import Converted
from training.convert.graph.weights import with_weights
from training.convert.keras import read_keras
from training.convert.ladder import climb
from training.convert.options import Choices

pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")
Make = Callable[[Any], list[Any]]


def climbed(model: Any, saved: Save, folder: Path) -> Converted:
    weights = folder / "weights"
    weights.mkdir()
    converted = climb(read_keras(saved(randomize(model)), weights), Choices(), weights)
    assert converted.difference < 2e-5
    return converted


MASKED: dict[str, tuple[Make, str]] = {
    "last_step": (lambda k: [k.LSTM(3)], "chunk"),
    "all_steps": (lambda k: [k.GRU(3, return_sequences=True), k.Dense(2)], "chunk"),
    "zeros": (lambda k: [k.LSTM(3, return_sequences=True, zero_output_for_mask=True), k.Dense(2)], "chunk"),
    "both_ways": (
        lambda k: [k.Bidirectional(k.LSTM(3, return_sequences=True)), k.Dense(2)],
        "whole, lengths",
    ),
    "mean": (
        lambda k: [k.Bidirectional(k.GRU(3, return_sequences=True)), k.GlobalAveragePooling1D()],
        "whole, lengths",
    ),
    # Behind its end a sequence would see the zeros of skipped steps: it must stand in batches of its length.
    "maximum": (
        lambda k: [k.Bidirectional(k.LSTM(3, return_sequences=True)), k.GlobalMaxPooling1D()],
        "whole, none",
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_network_with_a_mask_ends_on_its_rung(name: str, keras: Any, saved: Save, tmp_path: Path) -> None:
    make, rung = MASKED[name]
    made = [keras.layers.Embedding(VOCABULARY, 4, mask_zero=True), *make(keras.layers)]
    found = climbed(keras.Sequential([keras.Input((None,)), *made]), saved, tmp_path)
    assert (found.kind if found.kind == "chunk" else f"whole, {found.padding}") == rung


@pytest.mark.parametrize("name", MASKED)
def test_network_with_a_masking_layer_ends_on_its_rung(
    name: str, keras: Any, saved: Save, tmp_path: Path
) -> None:
    make, rung = MASKED[name]
    made = [keras.Input((None, FEATURES)), keras.layers.Masking(mask_value=0.5), *make(keras.layers)]
    found = climbed(keras.Sequential(made), saved, tmp_path)
    assert (found.kind if found.kind == "chunk" else f"whole, {found.padding}") == rung
    assert any(np.any(np.all(one.inputs == 0.5, -1)) for one in found.examples), "examples skip steps"
    assert any("features, as the network gets them, are all 0.5 are skipped" in one for one in found.found)


ROWS: dict[str, tuple[Make, str]] = {
    "gru_reset_before": (lambda k: [k.GRU(3, reset_after=False), k.Dense(2)], "chunk"),
    "hard_sigmoid": (lambda k: [k.LSTM(3, recurrent_activation="hard_sigmoid")], "chunk"),
    "stacked_cells": (lambda k: [k.RNN([k.LSTMCell(3), k.GRUCell(2)], return_sequences=True)], "chunk"),
    "backwards": (lambda k: [k.GRU(3, go_backwards=True)], "whole, lengths"),
    "reversed": (lambda k: [k.GRU(3, go_backwards=True, return_sequences=True)], "whole, none"),
}


@pytest.mark.parametrize("name", ROWS)
def test_network_of_rows_ends_on_its_rung(name: str, keras: Any, saved: Save, tmp_path: Path) -> None:
    make, rung = ROWS[name]
    found = climbed(keras.Sequential([keras.Input((None, FEATURES)), *make(keras.layers)]), saved, tmp_path)
    assert (found.kind if found.kind == "chunk" else f"whole, {found.padding}") == rung


def test_large_weights_go_into_the_file_of_the_folder(keras: Any, saved: Save, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((None, FEATURES)), layers.LSTM(40), layers.Dense(2)])
    path = saved(randomize(model))
    foreign = read_keras(path, tmp_path)
    places = {one.name: one.data_location for one in foreign.graph.graph.initializer}
    outside = {name for name, place in places.items() if place == onnx.TensorProto.EXTERNAL}
    assert {name.rsplit(".", 1)[-1] for name in outside} == {"R"}
    whole = {one.name: one for one in read_keras(path).graph.graph.initializer}
    for one in with_weights(foreign.graph, tmp_path).graph.initializer:
        assert np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(whole[one.name]))


def test_encoder_and_decoder_become_a_cell_with_a_source(keras: Any, saved: Save, tmp_path: Path) -> None:
    layers = keras.layers
    source, given = keras.Input((None, 2), name="frames"), keras.Input((None,), name="words")
    states = layers.GRU(5, return_state=True)(source)[1]
    x = layers.GRU(5, return_sequences=True)(layers.Embedding(VOCABULARY, 4)(given), initial_state=states)
    found = climbed(keras.Model([source, given], layers.Dense(VOCABULARY)(x)), saved, tmp_path)
    assert found.kind == "chunk"
    assert found.init is not None
    assert found.source == spec.FeatureInput(kind="features", size=2)
    assert found.input == spec.TokenInput(kind="tokens", size=VOCABULARY)


def test_half_of_the_sequences_that_are_compared_skip_no_step() -> None:
    """With skipped steps in all of them, a network that sees them behind the end would not be caught."""
    drawing = Drawing(spec.TokenInput(kind="tokens", size=VOCABULARY), skipped_value=0)
    rng = np.random.default_rng(0)
    drawn = [drawing.case(rng, 30).inputs for _ in range(100)]
    assert 30 < sum(not np.any(inputs == 0) for inputs in drawn) < 70
    assert {int(one) for inputs in drawn for one in inputs} == set(range(VOCABULARY))


def test_rows_that_are_compared_are_skipped_or_nearly_so() -> None:
    drawing = Drawing(spec.FeatureInput(kind="features", size=3), skipped_value=0.5)
    rng = np.random.default_rng(0)
    drawn = [np.sum(drawing.case(rng, 30).inputs == 0.5, -1) for _ in range(100)]
    assert 30 < sum(not np.any(counts == 3) for counts in drawn) < 70
    assert any(np.any(counts == 2) for counts in drawn), "rows with a feature that differs count"
    assert all(np.any(drawing.case(rng, 5, skips=True).inputs == 0.5) for _ in range(100))


def test_sequence_that_needs_a_step_has_one_in_every_prefix() -> None:
    drawing = Drawing(spec.TokenInput(kind="tokens", size=VOCABULARY), skipped_value=0, needs_a_step=True)
    rng = np.random.default_rng(0)
    assert all(drawing.case(rng, 3).inputs[0] != 0 for _ in range(100))
