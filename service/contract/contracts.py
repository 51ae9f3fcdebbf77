"""The two contracts of model.json. Contract 1 is read for the sake of versions that were exported with it.

Contract 1 has chunk cells of equal forward layers, and the tasks of the models that ship. Contract 2 has
networks of any layers and states, also those that look both ways, and the task sequences beside these.
"""

from typing import Annotated, Literal

from pydantic import Field

from service.contract.model import INPUT, LENGTHS, NEXT_SUFFIX, OUTPUT, WANTED, ModelSpec
from service.contract.network import Cell, InitGraph, Kind, Layer, Network, Padding, State, Window
from service.contract.sections import StatePair, TokenizerFile, Width
from service.contract.sentences import MAX_PLACE

MAX_LAYERS = 1024
MAX_STATES = 2 * MAX_LAYERS
_RESERVED = frozenset({INPUT, LENGTHS, WANTED, OUTPUT})
# What contract 1 always says of the origin of the weights.
_ORIGIN = ("data", "data_licence", "data_sha256", "recipe", "commit", "seed", "versions")


class SpecV1(ModelSpec):
    """model.json of contract 1."""

    contract: Literal[1]
    cell: Cell
    layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    hidden: Width
    state: Annotated[list[StatePair], Field(min_length=1, max_length=MAX_STATES, fail_fast=True)]

    @property
    def network(self) -> Network:
        """The network: a chunk cell of equal forward layers, whose states start with zeros."""
        layer = Layer(kind=self.cell, width=self.hidden)
        states = (State(**pair.model_dump()) for pair in self.state)
        return Network("chunk", (layer,) * self.layers, tuple(states))

    def _check_network(self) -> None:
        kinds = ("h", "c") if self.cell == "lstm" else ("h",)
        names = [f"layer{layer}.{kind}" for layer in range(self.layers) for kind in kinds]
        expected = [StatePair(input=name, output=name + NEXT_SUFFIX, size=self.hidden) for name in names]
        if len(self.state) != len(expected):
            raise ValueError(
                f"state must hold {len(expected)} tensors, {', '.join(names)}, found {len(self.state)}"
            )
        for index, (pair, wanted) in enumerate(zip(self.state, expected, strict=True)):
            if pair != wanted:
                raise ValueError(
                    f"state[{index}] must be {wanted.input} and {wanted.output} of size {wanted.size}, "
                    f"found {pair.input[:MAX_PLACE]} and {pair.output[:MAX_PLACE]} of size {pair.size}"
                )
        if self.sequences is not None or isinstance(self.generation and self.generation.text, TokenizerFile):
            raise ValueError("contract must be 2 for the task sequences and for tokens of words, found 1")
        if self.forecasting is not None and self.forecasting.needs_contract_2:
            raise ValueError("contract must be 2 for levels, calendars and anomalies of forecasting, found 1")
        for variant, file in self.variants.items():
            if file.generation is not None:
                raise ValueError(f"contract must be 2 for variants.{variant}.generation, found 1")
        for name in _ORIGIN:
            if name not in self.provenance.model_fields_set:
                raise ValueError(f"provenance must hold {name}")


class SpecV2(ModelSpec):
    """model.json of contract 2.

    Attributes:
        kind: chunk or whole.
        layers: recurrent layers, first one first.
        state: state tensors of a chunk cell; none of a whole network.
        init: graph of the states at the start of a sequence; None: they are constant.
        window: fixed length of sequences; None: any length.
        padding: of a whole network, "lengths": sequences of different lengths may share a batch; "none":
            those of equal length alone.
        pooled: of a whole network, whether it has one output a sequence and not one a time step.
    """

    contract: Literal[2]
    kind: Kind
    layers: Annotated[list[Layer], Field(min_length=1, max_length=MAX_LAYERS, fail_fast=True)]
    state: Annotated[list[State], Field(max_length=MAX_STATES, fail_fast=True)] = Field(default_factory=list)
    init: InitGraph | None = None
    window: Window | None = None
    padding: Padding | None = None
    pooled: bool | None = None

    @property
    def network(self) -> Network:
        """The network."""
        return Network(
            self.kind,
            tuple(self.layers),
            tuple(self.state),
            self.init,
            self.window,
            self.padding,
            bool(self.pooled),
        )

    def _check_network(self) -> None:
        self._check_kind()
        self._check_states()
        if self.window is not None:
            if self.task in ("text-generation", "forecasting"):
                raise ValueError(f"window must be left out for {self.task}, which goes on without end")
            if self.input.kind == "tokens" and (
                self.window.value != int(self.window.value) or not 0 <= self.window.value < self.input.size
            ):
                raise ValueError(
                    f"window.value must be a token id below {self.input.size}, found {self.window.value:g}"
                )

    def _check_kind(self) -> None:
        if self.kind == "whole":
            for name in ("padding", "pooled"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name} must be given for a whole network")
            if self.state or self.init is not None:
                raise ValueError("state and init must be left out for a whole network, which keeps no state")
            return
        for name in ("padding", "pooled"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} must be left out for a chunk cell")
        if not self.state:
            raise ValueError("state must hold one tensor or more for a chunk cell, found none")
        for index, layer in enumerate(self.layers):
            if layer.direction != "forward":
                raise ValueError(
                    f"layers[{index}].direction must be forward for a chunk cell, found {layer.direction}: "
                    "networks that look both ways cannot be cut in time; convert it as whole"
                )

    def _check_states(self) -> None:
        taken = set(_RESERVED)
        for index, pair in enumerate(self.state):
            for name in (pair.input, pair.output):
                if not name or len(name) > MAX_PLACE or name in taken:
                    raise ValueError(
                        f"state[{index}] must have names of its own of 1 to {MAX_PLACE} characters, "
                        f"found {name[:MAX_PLACE]!r}"
                    )
                taken.add(name)
