"""Declares the recurrent layers that model.json lists."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from service.contract.sections import Name64, SpecPart, Width

Cell = Literal["rnn", "lstm", "gru"]


class Layer(SpecPart):
    """One recurrent layer, for people to read: the graph alone is run.

    Attributes:
        kind: rnn, lstm or gru.
        width: size of its hidden state, of one direction.
        direction: forward, backward, or both.
        activations: names of ONNX's activation functions where they are not the usual ones.
    """

    kind: Cell
    width: Width
    direction: Literal["forward", "backward", "both"] = "forward"
    activations: Annotated[list[Name64], Field(max_length=6)] | None = None


def words_of(layers: Sequence[Layer]) -> str:
    """Return layers for people, such as lstm, 2 x 128; at least one."""
    if all(layer == layers[0] for layer in layers):
        first = layers[0]
        both = ", bidirectional" if first.direction == "both" else ""
        return f"{first.kind}, {len(layers)} x {first.width}{both}"
    return ", ".join(f"{layer.kind} {layer.width}" for layer in layers)
