"""Declares the section of model.json for networks of any use: what goes in, what the outputs mean."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from service.contract.sections import Characters, SpecPart, TokenizerFile

Steps = Literal["last", "every"]
MAX_LABELS = 1 << 20
MAX_COLUMNS = 1 << 16
_Labels = Annotated[list[str], Field(min_length=1, max_length=MAX_LABELS, fail_fast=True)]


class FeatureColumn(SpecPart):
    """One value of a time step as callers send it: feature = (f(value) - mean) / scale.

    Attributes:
        name: name of the value.
        unit: unit of the value, shown to users; empty: none.
        transform: f, either the natural logarithm (values must be positive) or the identity.
        mean: mean of f(value) over the training split.
        scale: standard deviation of f(value) over the training split.
    """

    name: str
    unit: str = ""
    transform: Literal["log", "none"] = "none"
    mean: FiniteFloat = 0.0
    scale: Annotated[FiniteFloat, Field(gt=0)] = 1.0


class OutputColumn(SpecPart):
    """One number of the output as callers get it: value = output * scale + mean.

    Attributes:
        name: name of the value.
        unit: unit of the value, shown to users; empty: none.
        mean: mean over the training split.
        scale: standard deviation over the training split.
    """

    name: str
    unit: str = ""
    mean: FiniteFloat = 0.0
    scale: Annotated[FiniteFloat, Field(gt=0)] = 1.0


class OutputSpec(SpecPart):
    """Meaning of the network's outputs.

    Attributes:
        kind: logits (before softmax or sigmoid), probabilities, numbers, or an embedding.
        labels: names of the classes, of logits and probabilities. Two labels may share one output, which is
            then that of the second.
        exclusive: True if exactly one label holds at a time (softmax), False if each holds for itself
            (sigmoid).
        columns: names, units and scaling of numbers.
        steps: what a request gets that does not say: the output at the last time step, or at every one.
    """

    kind: Literal["logits", "probabilities", "numbers", "embedding"]
    labels: _Labels | None = None
    exclusive: bool = True
    columns: Annotated[list[OutputColumn], Field(max_length=MAX_COLUMNS, fail_fast=True)] | None = None
    steps: Steps

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        has_classes = self.kind in ("logits", "probabilities")
        if self.labels is not None and not has_classes:
            raise ValueError(
                f"labels must stand beside logits or probabilities, found them beside {self.kind}"
            )
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ, found one twice")
        if self.columns is not None and self.kind != "numbers":
            raise ValueError(f"columns must stand beside numbers, found them beside {self.kind}")
        if self.exclusive and self.labels is not None and len(self.labels) == 1:
            raise ValueError(
                "labels must be two or more where exactly one holds, found one: name both classes, or say "
                "exclusive false"
            )
        if not self.exclusive and "" in (self.labels or ()):
            raise ValueError(
                'labels of which several hold must not be empty, since "" says that none holds, found one'
            )
        check_differ(self.columns)
        return self

    @property
    def is_binary(self) -> bool:
        """True if two labels may share one output."""
        return self.exclusive and self.labels is not None and len(self.labels) == 2


class SequencesSpec(SpecPart):
    """Section of a model for the task sequences.

    Attributes:
        text: maps text to token ids; None: callers send token ids, or rows of features.
        columns: values of a time step, in order; None: callers send the network's features as they are.
        output: what the network's outputs are.
    """

    text: Annotated[Characters | TokenizerFile, Field(discriminator="kind")] | None = None
    columns: (
        Annotated[list[FeatureColumn], Field(min_length=1, max_length=MAX_COLUMNS, fail_fast=True)] | None
    ) = None
    output: OutputSpec

    @model_validator(mode="after")
    def _has_unique_columns(self) -> Self:
        check_differ(self.columns)
        return self


def check_differ(columns: Sequence[FeatureColumn] | Sequence[OutputColumn] | None) -> None:
    """Raise ValueError where two columns have one name."""
    names = [column.name for column in columns or ()]
    if len(set(names)) != len(names):
        raise ValueError(f"column names must differ, found {names[:20]}")
