"""Bounds the time steps of a sequence by the memory that running it takes.

A whole network cannot be cut in time, and an encoder's source is not: onnxruntime holds what each layer
computes of every time step at once.
"""

import sys
from collections.abc import Iterable, Mapping

from service.contract.spec import FeatureInput, Layer, ModelSpec, TokenInput

# Part of the memory that one run may take.
_PART = 16
# Values that a layer holds of a unit and time step: its gates, its output, and a copy of that in another
# order.
_VALUES: Mapping[str, int] = {"rnn": 3, "gru": 5, "lstm": 6}
_VALUE_BYTES = 4


def max_steps_of(model: ModelSpec, memory: int) -> int:
    """Return the time steps of the longest sequence that may be run.

    Args:
        model: spec of the model.
        memory: bytes of the process that the engine may count with.

    Returns:
        At least 1; for a chunk cell, which runs a few steps at a time, and for a network with a window, which
        was admitted with sequences of no other length, more than any sequence has.
    """
    network = model.network
    if network.kind == "chunk" or network.window is not None:
        return sys.maxsize
    layers, inputs = _layer_values(network.layers), _input_values(model.input)
    outputs = 0 if network.is_pooled else 2 * model.outputs  # before and after the last addition
    return max(1, memory // _PART // (_VALUE_BYTES * (inputs + layers + outputs)))


def max_source_steps_of(model: ModelSpec, memory: int) -> int:
    """Return the time steps of the longest source that may be run.

    An encoder whose layers are not listed is taken for one LSTM that looks both ways, as wide as the states
    that the init graph may give are together.

    Args:
        model: spec of the model.
        memory: bytes of the process that one run may count with.

    Returns:
        1..max_steps; 0 for a model without a source.
    """
    source = model.source
    if source is None:
        return 0
    width = sum(state.size for state in model.network.states)
    layers = _layer_values(source.layers) if source.layers else 2 * _VALUES["lstm"] * width
    fitting = memory // _PART // (_VALUE_BYTES * (_input_values(source.input) + layers))
    return min(source.max_steps, max(1, fitting))


def _layer_values(layers: Iterable[Layer]) -> int:
    """Return the values that layers hold of a time step."""
    return sum(
        _VALUES[layer.kind] * layer.width * (2 if layer.direction == "both" else 1) for layer in layers
    )


def _input_values(given: TokenInput | FeatureInput) -> int:
    """Return the values of 32 bits that the input has a time step; a token id has 64 bits."""
    return 2 if given.kind == "tokens" else given.size
