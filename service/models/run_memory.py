"""Bounds the time steps of a sequence by the memory that running it takes.

A whole network cannot be cut in time: onnxruntime holds what each layer computes of every time step at once.
"""

import sys
from collections.abc import Mapping

from service.contract.spec import ModelSpec

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
    layers = sum(
        _VALUES[layer.kind] * layer.width * (2 if layer.direction == "both" else 1)
        for layer in network.layers
    )
    inputs = 2 if model.input.kind == "tokens" else model.input.size  # a token id has 64 bits
    outputs = 0 if network.is_pooled else 2 * model.outputs  # before and after the last addition
    return max(1, memory // _PART // (_VALUE_BYTES * (inputs + layers + outputs)))
