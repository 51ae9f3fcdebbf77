"""Builds networks with Keras, and compares what Keras computes with what was read from their files."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from training.convert.foreign import Foreign
from training.convert.keras import read_keras

TOLERANCE = 2e-5
LENGTHS = (1, 9)
FEATURES, VOCABULARY = 4, 11

Save = Callable[[Any], Path]
Array = NDArray[Any]


def randomize(model: Any, seed: int = 0) -> Any:
    """Give a model random weights; Keras's own start with zero biases and trivial averages."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if str(weight.dtype) != "float32":
            continue
        values = rng.normal(0, 0.5, weight.shape).astype(np.float32)
        weight.assign(np.abs(values) + 0.1 if "variance" in weight.path else values)
    return model


def run_keras(model: Any, inputs: Any) -> list[Array]:
    """Return what Keras computes, each output as an array."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = model(inputs, training=False)
    listed = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [one.detach().numpy() for one in listed]


def run_graph(foreign: Foreign, inputs: dict[str, Array]) -> list[Array]:
    """Return what the graph computes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(foreign.graph.SerializeToString(), options)
    found: list[Array] = session.run(None, inputs)
    return found


def run_oracle(foreign: Foreign, inputs: dict[str, Array]) -> list[Array]:
    """Return what the oracle computes."""
    assert foreign.oracle is not None
    return list(foreign.oracle(inputs))


def assert_close(found: Iterable[Array], expected: Iterable[Array], what: str) -> None:
    """Check that outputs have the same shapes and differ by 2e-5 of the larger of 1 and the largest value."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape, what
        assert one.dtype == np.float32, what
        difference = float(np.max(np.abs(one - other))) if other.size else 0.0
        assert difference <= TOLERANCE * max(1.0, float(np.max(np.abs(other)))), f"{what}: {difference}"


def rows(steps: int, batch: int = 1, features: int = FEATURES, seed: int = 1) -> Array:
    """Return random feature rows."""
    return np.random.default_rng(seed + steps).normal(0, 1, (batch, steps, features)).astype(np.float32)


def tokens(steps: int, batch: int = 1, first: int = 1, seed: int = 1) -> Array:
    """Return random token ids from `first` on."""
    return np.random.default_rng(seed + steps).integers(first, VOCABULARY, (batch, steps))


def check(model: Any, save: Save, make: Callable[[int], Array] = rows, least: int = 1) -> Foreign:
    """Compare a model's file with Keras at several lengths, and with two sequences in one batch."""
    foreign = read_keras(save(randomize(model)))
    for steps in (least - 1 + length for length in LENGTHS):
        x = make(steps)
        expected = run_keras(model, x)
        assert_close(run_oracle(foreign, {"input": x}), expected, f"oracle at {steps} steps")
        assert_close(run_graph(foreign, {"input": x}), expected, f"graph at {steps} steps")
    both = np.concatenate([x, x[:, ::-1]])
    assert_close(run_graph(foreign, {"input": both}), run_keras(model, both), "graph of two sequences")
    return foreign


def check_masked(model: Any, save: Save, *, compacts: bool = True, value: float | None = None) -> Foreign:
    """Compare an oracle with Keras where steps are skipped anywhere, and the graph where none is.

    Args:
        model: The network.
        save: Saves it.
        compacts: The network gives the same without the skipped steps: the graph is compared there.
        value: Number that all features of a skipped step have; None: token 0 is skipped.
    """
    foreign = read_keras(save(randomize(model)))
    assert foreign.skipped_value == (0 if value is None else np.float32(value))
    for kept in ("0111", "10110", "01001100", "111"):
        keep = np.array([[one == "1" for one in kept]])
        x = np.where(keep, tokens(len(kept)), 0) if value is None else _masked_rows(keep, value)
        expected = run_keras(model, x)
        assert_close(run_oracle(foreign, {"input": x}), expected, f"oracle of {kept}")
        if compacts or keep.all():
            without = run_graph(foreign, {"input": x[keep][None]})
            at = [one[:, keep[0]] if one.ndim == 3 else one for one in expected]
            assert_close(without, at, f"graph without the skipped steps of {kept}")
    return foreign


def _masked_rows(keep: Array, value: float) -> Array:
    """Return rows (1, T, F) of a value where they are not kept; the last kept one has it in all but one."""
    x = np.where(keep[..., None], rows(keep.shape[1]), np.float32(value))
    x[0, np.flatnonzero(keep[0])[-1], 1:] = value
    return x
