"""The `.keras` samples give what Keras computed for them, in the graph and in the oracle."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.convert.keras.models import assert_close, run_graph, run_oracle
from training.convert.keras import read_keras

SAMPLES = Path(__file__).parents[1] / "samples"
NAMES = sorted(path.stem for path in SAMPLES.glob("k_*.keras"))


def test_samples_are_there() -> None:
    assert len(NAMES) == 4


@pytest.mark.parametrize("name", NAMES)
def test_sample_equals_what_keras_computed(name: str) -> None:
    foreign = read_keras(SAMPLES / f"{name}.keras")
    known = np.load(SAMPLES / f"{name}.npz")
    num_examples = len(known.files) // 2
    assert num_examples == 6
    for index in range(num_examples):
        x = known[f"{index}.in.x"]
        x = x.astype(np.int64) if x.ndim == 2 else x
        expected = [known[f"{index}.out.y"]]
        assert_close(run_oracle(foreign, {"input": x}), expected, f"oracle of example {index}")
        kept = x if foreign.skipped_value is None else x[x != foreign.skipped_value][None]
        if kept.shape[1]:
            assert_close(run_graph(foreign, {"input": kept}), expected, f"graph of example {index}")


def test_source_names_the_file_and_its_keras() -> None:
    source = read_keras(SAMPLES / "k_lstm_stack.keras").source
    assert source.file == "k_lstm_stack.keras"
    assert source.framework == "Keras 3.15.1"
    assert source.exporter == ""
    assert len(source.sha256) == 64


def test_token_of_a_mask_is_the_skipped_value() -> None:
    assert read_keras(SAMPLES / "k_emb_mask_lstm.keras").skipped_value == 0
    assert read_keras(SAMPLES / "k_bilstm_pool.keras").skipped_value is None
