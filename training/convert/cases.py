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
# Share of rows of features that equal the skipped value in all places but one, and count therefore.
_NEARLY_SKIPPED = 0.1


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
        skipped_value: token id, or number of all features, whose steps the network skips, drawn often; None:
            there is none.
        needs_a_step: the first step of a sequence is none that is skipped.
    """

    input: spec.TokenInput | spec.FeatureInput
    initial: tuple[spec.NamedWidth, ...] = ()
    source: spec.TokenInput | spec.FeatureInput | None = None
    skipped_value: float | None = None
    needs_a_step: bool = False

    def case(
        self, rng: np.random.Generator, steps: int, scale: float = 1.0, skips: bool | None = None
    ) -> Case:
        """Return a random sequence.

        Args:
            rng: source of random numbers.
            steps: number of time steps.
            scale: standard deviation of features.
            skips: has skipped steps, where the network skips some; None: every second sequence has.
        """
        initial = {one.name: rng.normal(0, 1, one.size).astype(np.float32) for one in self.initial}
        source = None
        if self.source is not None:
            source = _steps(rng, self.source, int(rng.integers(*_SOURCE_STEPS)), scale)
        inputs = _steps(rng, self.input, steps, scale)
        return Case(self._skipping(rng, inputs, skips), initial, source)

    def _skipping(self, rng: np.random.Generator, inputs: Array, skips: bool | None) -> Array:
        """Return a sequence with skipped steps among its own, or, of every second one, without any.

        A network that sees skipped steps behind the end of a sequence differs only for one that has none.
        """
        if self.skipped_value is None:
            return inputs
        steps = len(inputs)
        if skips is None:
            skips = bool(rng.random() < 0.5)
        is_skipped: NDArray[np.bool_] = np.less(rng.random(steps), _SKIPPED if skips else 0.0)
        if skips and steps > 1:
            is_skipped[rng.integers(1, steps)] = True
        if self.needs_a_step:
            is_skipped[:1] = False
        if self.input.kind == "features":
            return _with_rows(rng, inputs, is_skipped, np.float32(self.skipped_value), nearly=skips)
        number, token = self.input.size, int(self.skipped_value)
        other = (token + 1 + rng.integers(0, max(1, number - 1), steps)) % number
        return np.where(is_skipped, token, other)

    def padding(self, rng: np.random.Generator, steps: int) -> Array:
        """Return steps to stand behind the end of a sequence, unlike those of any sequence that is drawn."""
        return _steps(rng, self.input, steps, 30.0)


def _with_rows(
    rng: np.random.Generator, rows: Array, is_skipped: NDArray[np.bool_], value: np.float32, *, nearly: bool
) -> Array:
    """Return rows (T, F) that equal a value where they are skipped, some others in all places but one."""
    steps, size = rows.shape
    is_near = np.less(rng.random(steps), _NEARLY_SKIPPED if nearly else 0.0)
    is_value = np.repeat(is_near[:, None], size, axis=1)
    is_value[np.arange(steps), rng.integers(0, size, steps)] = False
    return np.where(is_skipped[:, None] | is_value, value, rows)


def _steps(
    rng: np.random.Generator, kind: spec.TokenInput | spec.FeatureInput, steps: int, scale: float
) -> Array:
    if kind.kind == "tokens":
        return rng.integers(0, kind.size, steps)
    return rng.normal(0, scale, (steps, kind.size)).astype(np.float32)
