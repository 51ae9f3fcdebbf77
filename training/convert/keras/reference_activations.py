"""Computes Keras's activations in numpy."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from training.convert.keras.config import ActivationName

Floats = NDArray[np.float32]
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def activate(name: ActivationName, x: Floats) -> Floats:
    """Return an activation of float32 values, computed in float64 where that is cheap."""
    return np.asarray(_FUNCTIONS[name](x), np.float32)


def _sigmoid(x: Floats) -> Floats:
    # tanh does not overflow where exp(-x) would.
    return np.asarray(0.5 * (np.tanh(0.5 * x) + 1.0), x.dtype)


def _softmax(x: Floats) -> Floats:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), x.dtype)


def _elu(x: Floats) -> Floats:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _softplus(x: Floats) -> Floats:
    return np.asarray(np.logaddexp(x, 0.0), x.dtype)


def _gelu(x: Floats) -> Floats:
    error = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    return np.asarray(0.5 * x * (1 + error), x.dtype)


_FUNCTIONS: Mapping[ActivationName, Callable[[Floats], Floats]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, np.float32(0.2) * x),
    "elu": _elu,
    "celu": _elu,
    "selu": lambda x: np.where(x > 0, SELU_SCALE * x, SELU_SCALE * SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "softmax": _softmax,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "silu": lambda x: x * _sigmoid(x),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "gelu": _gelu,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
}
