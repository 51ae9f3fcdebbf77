"""Sequences on which conversions are compared with their originals, and how they are drawn at random."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
# Tokens that often have a meaning of their own, such as padding and the ends of a text.
_FIRST_TOKENS = 4
# Share of time steps, and of features, that are marked; and numbers far beyond those of training.
_MARKED_STEPS, _MARKED_FEATURES, _SPIKE = 0.4, 0.15, 30.0
# Numbers up to it are in random sequences anyway.
_USUAL = 3.0


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
        marks: numbers that the network's graph holds, at which it may begin to do something else.
    """

    input: spec.TokenInput | spec.FeatureInput
    initial: tuple[spec.NamedWidth, ...] = ()
    source: spec.TokenInput | spec.FeatureInput | None = None
    skipped_value: float | None = None
    needs_a_step: bool = False
    marks: tuple[float, ...] = ()

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

    def marked(self, rng: np.random.Generator, steps: int) -> Case:
        """Return a random sequence with tokens or features that random ones hardly have.

        Tokens are the first and last ones and those that the graph holds; features are zeros in whole steps,
        numbers that the graph holds and ones beyond them, and numbers far from zero.
        """
        case = self.case(rng, steps)
        is_marked = rng.random(steps) < _MARKED_STEPS
        if self.input.kind == "tokens":
            inputs = np.where(is_marked, rng.choice(self._tokens(), steps), case.inputs)
            if self.needs_a_step and inputs[0] == self.skipped_value:
                inputs[0] = case.inputs[0]
            return replace(case, inputs=inputs)
        zeros = np.where(is_marked[:, None], np.float32(0), case.inputs)
        placed = self._placed(rng, zeros)
        if self.needs_a_step:
            placed[0] = case.inputs[0]
        return replace(case, inputs=placed)

    def _placed(self, rng: np.random.Generator, features: Array) -> Array:
        """Return features with unusual numbers among them; a step of zeros that gets none stays one."""
        beyond = [mark + 0.1 * mark for mark in self.marks if abs(mark) > _USUAL]
        pool = np.array([*self.marks, *beyond, -_SPIKE, _SPIKE], np.float32)
        is_placed = rng.random(features.shape) < _MARKED_FEATURES
        found = features.copy()
        # Each number stands somewhere, if there are places enough.
        found[is_placed] = np.resize(rng.permutation(pool), np.count_nonzero(is_placed))
        return found

    def _tokens(self) -> list[int]:
        """Return token ids that may have a meaning of their own."""
        number = self.input.size
        held = {int(mark) for mark in self.marks if 0 <= mark < number}
        return sorted(held | set(range(min(_FIRST_TOKENS, number))) | {number - 1})

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
        found = _steps(rng, self.input, steps, _SPIKE)
        return found if self.input.kind == "tokens" else self._placed(rng, found)


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
