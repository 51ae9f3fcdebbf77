"""Sequences on which conversions are compared with their originals, and how they are drawn at random."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.convert.foreign import Array

# Steps of a source sequence that is drawn at random.
_SOURCE_STEPS = (2, 12)
# Share of time steps that are skipped, where a network skips some.
_SKIPPED = 0.3


@dataclass(frozen=True, slots=True)
class Case:
    """One sequence with what its first state is computed from.

    Attributes:
        inputs: int64 (T,) or float32 (T, F).
        initial: inputs of the init graph by name, float32 (size,).
        source: what an encoder reads, int64 (S,) or float32 (S, F); None: there is none.
    """

    inputs: Array
    initial: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    source: Array | None = None

    def prefix(self, steps: int) -> "Case":
        """Return the sequence cut after so many steps."""
        return Case(self.inputs[:steps], self.initial, self.source)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a network takes, as far as it must be known to draw sequences.

    Attributes:
        input: kind and size of the input.
        initial: names and widths of inputs of one row a sequence.
        source: kind and size of what an encoder reads.
        skipped_token: token id whose steps the network skips, drawn often; None: there is none.
        needs_a_step: the first step of a sequence is none that is skipped.
    """

    input: spec.TokenInput | spec.FeatureInput
    initial: tuple[spec.NamedWidth, ...] = ()
    source: spec.TokenInput | spec.FeatureInput | None = None
    skipped_token: int | None = None
    needs_a_step: bool = False

    def case(self, rng: np.random.Generator, steps: int, scale: float = 1.0) -> Case:
        """Return a random sequence; features are normal with a standard deviation of `scale`."""
        initial = {one.name: rng.normal(0, 1, one.size).astype(np.float32) for one in self.initial}
        source = None
        if self.source is not None:
            source = _steps(rng, self.source, int(rng.integers(*_SOURCE_STEPS)), scale)
        inputs = _steps(rng, self.input, steps, scale)
        return Case(self._skipping(rng, inputs), initial, source)

    def _skipping(self, rng: np.random.Generator, inputs: Array) -> Array:
        """Return a sequence with skipped steps among its own, or, of every second one, without any.

        A network that sees skipped steps behind the end of a sequence differs only for one that has none.
        """
        if self.skipped_token is None:
            return inputs
        number = self.input.size
        other = (self.skipped_token + 1 + rng.integers(0, max(1, number - 1), len(inputs))) % number
        share = _SKIPPED if rng.random() < 0.5 else 0.0
        is_skipped = rng.random(len(inputs)) < share
        if self.needs_a_step:
            is_skipped[:1] = False
        return np.where(is_skipped, self.skipped_token, other)

    def padding(self, rng: np.random.Generator, steps: int) -> Array:
        """Return steps to stand behind the end of a sequence, unlike those of any sequence that is drawn."""
        return _steps(rng, self.input, steps, 30.0)


def _steps(
    rng: np.random.Generator, kind: spec.TokenInput | spec.FeatureInput, steps: int, scale: float
) -> Array:
    if kind.kind == "tokens":
        return rng.integers(0, kind.size, steps)
    return rng.normal(0, scale, (steps, kind.size)).astype(np.float32)
