"""Declares what model.json says about a network itself: layers, states, window, graph of first states."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from service.contract.layers import Cell, Layer, words_of
from service.contract.sections import Float32, Name64, Row, SpecPart, StatePair, Width
from service.contract.source import SOURCE, SourceSpec

__all__ = [
    "MAX_INITIAL",
    "Cell",
    "InitGraph",
    "Kind",
    "Layer",
    "NamedWidth",
    "Network",
    "Padding",
    "State",
    "Window",
]

Kind = Literal["chunk", "whole"]
Padding = Literal["lengths", "none"]
MAX_WINDOW = 1 << 20
MAX_INITIAL = 64


def _kind_of_start(value: object) -> str:
    return "row" if isinstance(value, list) else "number"


class State(StatePair):
    """One state tensor of a chunk cell, with the value that it has at the start of a sequence.

    Attributes:
        start: one number for all of the row, or the row, `size` numbers.
    """

    start: Annotated[
        Annotated[Float32, Tag("number")] | Annotated[Row, Tag("row")], Discriminator(_kind_of_start)
    ] = 0.0

    @model_validator(mode="after")
    def _has_row(self) -> Self:
        if isinstance(self.start, list) and len(self.start) != self.size:
            raise ValueError(f"start must be one number or {self.size}, found {len(self.start)}")
        return self


class Window(SpecPart):
    """Fixed length that every sequence is brought to, because the network was trained so.

    Attributes:
        to: time steps that the network gets.
        side: side at which the padding is put.
        value: token id, or value of each feature as the network gets it, that pads.
        longer: what becomes of a longer sequence: it is refused, or its first or last `to` steps are kept.
    """

    to: Annotated[int, Field(ge=1, le=MAX_WINDOW)]
    side: Literal["left", "right"]
    value: Float32 = 0.0
    longer: Literal["refuse", "keep_first", "keep_last"] = "refuse"


class NamedWidth(SpecPart):
    """Name and width of an input of an init graph."""

    name: Name64
    size: Width


class InitGraph(SpecPart):
    """Graph that computes the states at the start of a sequence from inputs of a request.

    It takes float32 [batch, size] for each input, and `source` where there is one, and gives float32
    [batch, size] for one or more of the states, named as these are as inputs of the chunk cell. Other states
    have their `start`.

    Attributes:
        file: name of the ONNX graph.
        inputs: its inputs, such as the features of an image.
        source: the sequence that an encoder in it reads; None: there is no encoder.
    """

    file: str
    inputs: Annotated[list[NamedWidth], Field(max_length=MAX_INITIAL, fail_fast=True)] = Field(
        default_factory=list
    )
    source: SourceSpec | None = None

    @model_validator(mode="after")
    def _has_unique_names(self) -> Self:
        names = [one.name for one in self.inputs]
        if not names and self.source is None:
            raise ValueError("inputs must hold one or more where there is no source, found none")
        if SOURCE in names and self.source is not None:
            raise ValueError(f"inputs must not be named {SOURCE} beside a source, found one that is")
        if len(set(names)) != len(names):
            raise ValueError(f"names of the init graph's inputs must differ, found {names}")
        return self


@dataclass(frozen=True, slots=True)
class Network:
    """Description of a network, in the terms of contract 2.

    Attributes:
        kind: chunk, a causal network that can be cut anywhere in time, or whole, which looks both ways.
        layers: recurrent layers, first one first.
        states: state tensors of a chunk cell; none of a whole network.
        init: graph of the first states; None: they are constant.
        window: fixed length of sequences; None: any length.
        padding: of a whole network, "lengths" if sequences of different lengths may share a batch, else
            "none".
        is_pooled: of a whole network, True if it has one output a sequence, False if one a time step.
    """

    kind: Kind
    layers: tuple[Layer, ...]
    states: tuple[State, ...] = ()
    init: InitGraph | None = None
    window: Window | None = None
    padding: Padding | None = None
    is_pooled: bool = False

    @property
    def cell(self) -> str:
        """Kinds of its layers, such as lstm, or lstm+gru where they differ, in the order of first use."""
        return "+".join(dict.fromkeys(layer.kind for layer in self.layers))

    @property
    def hidden(self) -> int:
        """Width of its widest layer."""
        return max((layer.width for layer in self.layers), default=0)

    @property
    def words(self) -> str:
        """Its layers for people, such as lstm, 2 x 128."""
        return words_of(self.layers)

    @property
    def is_streamable(self) -> bool:
        """True if steps can be given as they come, with the state kept between them."""
        return self.kind == "chunk" and self.window is None
