"""Declares what an encoder reads before a text is generated: the source, and that of a golden example."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from service.contract.layers import Layer
from service.contract.sections import (
    Characters,
    FeatureInput,
    GoldenInput,
    SpecPart,
    TokenInput,
    TokenizerFile,
)
from service.contract.sequences import MAX_COLUMNS, FeatureColumn, check_differ

# Name of the init graph's input for the source.
SOURCE = "source"
# A source is run whole. Admission runs one of `max_steps`.
DEFAULT_SOURCE_STEPS, MAX_SOURCE_STEPS = 4096, 1 << 16
_MAX_LAYERS = 1024


class SourceSpec(SpecPart):
    """Section on the sequence that the encoder in an init graph reads.

    The graph takes it as `source`, int64 [batch, time] token ids or float32 [batch, time, features], beside
    its other inputs. It is always one whole sequence without padding, so that the encoder may look both ways,
    and pool or attend over time.

    Attributes:
        input: kind and size of the source; they may be others than those of the network's own input.
        text: maps text to token ids; None: callers send token ids, or rows of features.
        columns: values of a time step, in order; None: callers send the encoder's features as they are.
        max_steps: time steps of the longest source.
        layers: the encoder's recurrent layers, for people, and to bound the memory of its runs.
    """

    input: Annotated[TokenInput | FeatureInput, Field(discriminator="kind")]
    text: Annotated[Characters | TokenizerFile, Field(discriminator="kind")] | None = None
    columns: (
        Annotated[list[FeatureColumn], Field(min_length=1, max_length=MAX_COLUMNS, fail_fast=True)] | None
    ) = None
    max_steps: Annotated[int, Field(ge=1, le=MAX_SOURCE_STEPS)] = DEFAULT_SOURCE_STEPS
    layers: Annotated[list[Layer], Field(max_length=_MAX_LAYERS, fail_fast=True)] = Field(
        default_factory=list
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.text is not None and self.input.kind != "tokens":
            raise ValueError("input.kind of a source with text must be tokens, found features")
        if self.columns is not None and self.input.kind != "features":
            raise ValueError("input.kind of a source with columns must be features, found tokens")
        names = self.text.vocabulary if isinstance(self.text, Characters) else self.columns
        if names is not None and len(names) != self.input.size:
            what = "characters" if self.columns is None else "columns"
            raise ValueError(f"input.size must be {len(names)}, as many as {what}, found {self.input.size}")
        check_differ(self.columns)
        return self

    @property
    def kind(self) -> str:
        """Kind of input that callers send: text (tokens are taken as well), tokens or steps."""
        if self.text is not None:
            return "text"
        return "tokens" if self.input.kind == "tokens" else "steps"


def check_golden_source(place: str, golden: GoldenInput | None, source: SourceSpec | None) -> None:
    """Raise ValueError unless the source of a golden example is one that the encoder reads.

    Args:
        place: path of the example.
        golden: its source.
        source: what the encoder reads; None: there is no encoder.
    """
    if golden is None or source is None:
        if golden is not None:
            raise ValueError(f"{place} must hold no source, since the init graph reads none")
        if source is not None:
            raise ValueError(f"{place} must hold the source that the init graph reads, found none")
        return
    _check_read(f"{place}.source", golden, source)


def _check_read(place: str, golden: GoldenInput, source: SourceSpec) -> None:
    """Raise ValueError unless the encoder reads a source, whose path is `place`."""
    rows = golden.tokens if source.input.kind == "tokens" else golden.features
    if rows is None or (golden.tokens is not None and golden.features is not None):
        raise ValueError(f"{place} must hold {source.input.kind} alone")
    if not 1 <= len(rows) <= source.max_steps:
        raise ValueError(f"{place} must hold 1..{source.max_steps} steps, max_steps, found {len(rows)}")
    if any(not 0 <= token < source.input.size for token in golden.tokens or ()):
        raise ValueError(f"{place} must hold tokens below {source.input.size}")
    for name, given in (("features", golden.features), ("values", golden.values)):
        if any(len(row) != source.input.size for row in given or ()):
            raise ValueError(f"{place}.{name} must hold rows of {source.input.size} values")
    if golden.text is not None and source.text is None:
        raise ValueError(f"{place} must hold no text, since init.source has no section text")
    if golden.values is not None and (golden.features is None or len(golden.values) != golden.length):
        raise ValueError(f"{place} must hold a row of values for each row of features")
