"""Computes a network in numpy, layer by layer as Keras does, masks included: the original in comparisons.

It shares with the graph writer only what the layers are, and nothing of how they are computed. Arrays are
batch first, float32; masks are bool (B, T), true where a step counts.
"""

# ruff: noqa: ARG001 - the functions of one dispatch have the same arguments, whether they use them or not.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from training.convert.foreign import Array
from training.convert.keras import config as c
from training.convert.keras.network import Network
from training.convert.keras.reference_activations import activate
from training.convert.keras.reference_cells import Floats, run_bidirectional, run_recurrent


@dataclass(frozen=True, slots=True)
class Signal:
    """A value with the mask that Keras hands on with it; None: every step counts."""

    values: Array
    mask: NDArray[np.bool_] | None = None


Weights = Sequence[Floats]


def oracle_of(network: Network, names: Mapping[str, str]) -> Callable[[Mapping[str, Array]], Sequence[Array]]:
    """Return the function that runs the network.

    Args:
        network: The network.
        names: Name of the graph's input for each value that is given.
    """

    def run(inputs: Mapping[str, Array]) -> Sequence[Array]:
        signals = {value: Signal(np.asarray(inputs[names[value]])) for value, _ in network.inputs}
        for call in network.calls:
            given = [signals[one] for one in call.inputs]
            states = [signals[one].values for one in call.states]
            config, weights = call.layer.config, call.layer.weights
            if isinstance(config, c.Recurrent | c.Bidirectional):
                made = _recurrent(config, weights, given[0], states)
            else:
                made = [compute(config, weights, given)]
            signals.update(zip(call.outputs, made, strict=True))
        return [np.asarray(signals[one].values, np.float32) for one in network.outputs]

    return run


def _recurrent(
    config: c.Recurrent | c.Bidirectional, weights: Weights, x: Signal, states: Sequence[Floats]
) -> list[Signal]:
    if isinstance(config, c.Bidirectional):
        outputs = run_bidirectional(config, weights, x.values, x.mask, states)
        returns_steps = config.forward.return_sequences
    else:
        outputs = run_recurrent(config, weights, x.values, x.mask, states)
        returns_steps = config.return_sequences
    return [Signal(outputs[0], x.mask if returns_steps else None), *map(Signal, outputs[1:])]


@singledispatch
def compute(config: c.LayerConfig, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    """Return the output of a layer that is not recurrent."""
    raise NotImplementedError(type(config).__name__)


@compute.register
def _(config: c.Pass, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    return inputs[0]


@compute.register
def _(config: c.Embedding, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    tokens = inputs[0].values.astype(np.int64)
    return Signal(weights[0][tokens], tokens != 0 if config.mask_zero else None)


@compute.register
def _(config: c.Masking, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x = inputs[0].values
    mask = np.any(x != np.float32(config.mask_value), axis=-1)
    return Signal(np.where(mask[:, :, None], x, np.float32(0)), mask)


@compute.register
def _(config: c.Dense, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    made = inputs[0].values @ weights[0]
    return replace(
        inputs[0], values=activate(config.activation, made + weights[1] if config.use_bias else made)
    )


@compute.register
def _(config: c.TimeDistributed, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    return compute(config.layer, weights, inputs)


@compute.register
def _(config: c.ActivationLayer, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    return replace(inputs[0], values=activate(config.activation, inputs[0].values))


@compute.register
def _(config: c.LeakyReLU, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x = inputs[0].values
    return replace(inputs[0], values=np.where(x > 0, x, x * np.float32(config.negative_slope)))


@compute.register
def _(config: c.ReLU, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x = inputs[0].values
    positive = np.minimum(x, np.inf if config.max_value is None else config.max_value)
    made = np.where(x > 0, positive, x * np.float32(config.negative_slope))
    return replace(inputs[0], values=made.astype(np.float32))


@compute.register
def _(config: c.ELU, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x = inputs[0].values
    made = np.where(x > 0, x, np.float32(config.alpha) * np.expm1(np.minimum(x, 0)))
    return replace(inputs[0], values=made)


@compute.register
def _(config: c.PReLU, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x = inputs[0].values
    return replace(inputs[0], values=np.maximum(x, 0) - weights[0] * np.maximum(-x, 0))


@compute.register
def _(config: c.Softmax, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    return replace(inputs[0], values=activate("softmax", inputs[0].values))


@compute.register
def _(config: c.LayerNormalization, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x = inputs[0].values.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    made = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.epsilon)
    left = list(weights)
    if config.scale:
        made = made * left.pop(0)
    if config.center:
        made = made + left.pop(0)
    return replace(inputs[0], values=made.astype(np.float32))


@compute.register
def _(config: c.BatchNormalization, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    left = [one.astype(np.float64) for one in weights]
    gamma = left.pop(0) if config.scale else 1.0
    beta = left.pop(0) if config.center else 0.0
    mean, variance = left
    made = (inputs[0].values - mean) / np.sqrt(variance + config.epsilon) * gamma + beta
    return replace(inputs[0], values=made.astype(np.float32))


@compute.register
def _(config: c.Rescaling, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    return replace(inputs[0], values=inputs[0].values * np.float32(config.scale) + np.float32(config.offset))


@compute.register
def _(config: c.Normalization, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    mean, variance = weights
    made = (inputs[0].values - mean) / np.maximum(np.sqrt(variance), np.float32(1e-7))
    return replace(inputs[0], values=made)


@compute.register
def _(config: c.Conv1D, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x, kernel = inputs[0].values, weights[0]
    left = {"valid": 0, "same": config.reach // 2, "causal": config.reach}[config.padding]
    right = config.reach - left if config.padding == "same" else 0
    x = np.pad(x, ((0, 0), (left, right), (0, 0)))
    steps = range(0, x.shape[1] - config.reach, config.strides[0])
    made = np.stack([_filtered(config, x, kernel, step) for step in steps], 1)
    return Signal(activate(config.activation, made + weights[1] if config.use_bias else made))


def _filtered(config: c.Conv1D, x: Floats, kernel: Floats, step: int) -> Floats:
    """Return one step of a convolution, (B, filters): each group of filters sees its group of features."""
    seen = x[:, step : step + config.reach + 1 : config.dilation_rate[0]]  # (B, K, features)
    inside, filters = kernel.shape[1], config.filters // config.groups
    return np.concatenate(
        [
            np.einsum(
                "bki,kio->bo",
                seen[:, :, group * inside : (group + 1) * inside],
                kernel[:, :, group * filters : (group + 1) * filters],
            )
            for group in range(config.groups)
        ],
        -1,
    )


@compute.register
def _(config: c.GlobalPooling, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    x, mask = inputs[0].values, inputs[0].mask
    if config.kind == "max":
        return Signal(x.max(1))
    if mask is None:
        return Signal(x.mean(1, dtype=np.float64).astype(np.float32))
    total = np.where(mask[:, :, None], x, 0).sum(1, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # of no step Keras's mean is NaN, too
        return Signal((total / mask.sum(1, keepdims=True)).astype(np.float32))


@compute.register
def _(config: c.Merge, weights: Weights, inputs: Sequence[Signal]) -> Signal:
    values = [one.values for one in inputs]
    masks = [one.mask for one in inputs if one.mask is not None]
    mask = np.any(masks, axis=0) if len(masks) == len(inputs) else None
    if config.kind == "concat":
        return Signal(np.concatenate(values, -1), mask)
    if config.kind == "mean":
        return Signal(np.sum(values, 0) / np.float32(len(values)), mask)
    binary = {"add": np.add, "mul": np.multiply, "sub": np.subtract, "max": np.maximum, "min": np.minimum}
    made = values[0]
    for one in values[1:]:
        made = binary[config.kind](made, one)
    return Signal(made, mask)
