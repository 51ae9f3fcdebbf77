"""Sequences that a version is tried with: its golden examples, parts of these, and random ones like them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from service.errors import ModelFailure, ModelRefused

# Parts of a golden example differ from it by so much, relative to each value.
_NOISE = 0.1
# Values behind the end of a sequence are as large as so many times the largest golden one: what they change
# is then far above the tolerance, while a mask that adds a large negative number still outweighs them.
_LOUD = 10.0
_LEAST_SPREAD = 1e-3  # of random features, where the golden ones are constant
_LARGEST = float(np.finfo(np.float32).max)
# Largest difference of features, absolute and relative, from those that training had for the same values:
# that of numbers of 32 bits in another order of operations.
_FEATURE_TOLERANCE = 1e-4


class Init(Protocol):
    """Something that computes first states, as `service.runtime.InitRuntime` does."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[np.float32]]:
        """Return float32 (1, size) for one or more states.

        Args:
            inputs: float32 (1, size) for each input, and of an encoder `source`, int64 (1, S) or float32
                (1, S, F).
        """
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """A sequence as the network gets it.

    Attributes:
        inputs: int64 (T,) or float32 (T, F).
        start: state before the first step, one float32 (H,) a state tensor; none of a whole network.
    """

    inputs: NDArray[Any]
    start: tuple[NDArray[np.float32], ...]


class Samples:
    """Sequences of one version.

    Args:
        model: spec with the golden examples.
        init: computes the first states; None: they are constant.

    Raises:
        ModelRefused: the init graph fails, or gives something else than the states.
    """

    def __init__(self, model: spec.ModelSpec, init: Init | None) -> None:
        self._num_tokens = model.input.size if model.input.kind == "tokens" else None
        window = model.network.window
        self.fixed_length = None if window is None else window.to
        self.golden = [Sample(input_of(one), _start_of(model, init, one)) for one in model.golden]
        self._steps = np.concatenate([one.inputs for one in self.golden])
        steps = self._steps.reshape(len(self._steps), -1)
        self._mean = steps.mean(0, np.float64)
        self._spread = steps.std(0, np.float64) + _LEAST_SPREAD
        largest = max(1.0, float(np.abs(steps).max()))
        self._loud = np.full_like(self._spread, _LOUD * largest)

    def draw(self, random: np.random.Generator, length: int) -> Sample:
        """Return a part of a golden example with some noise, or a random sequence like them.

        Args:
            random: where it is drawn from.
            length: its time steps, unless the network has a window.
        """
        length = self.fixed_length or length
        golden = self.golden[random.integers(len(self.golden))]
        inputs = golden.inputs
        if random.random() < 0.5:
            return Sample(self._random(random, length, self._spread), golden.start)
        places = (random.integers(len(inputs)) + np.arange(length)) % len(inputs)
        part = inputs[places]
        if self._num_tokens is None:
            part = _bounded(part * random.normal(1.0, _NOISE, part.shape))
        return Sample(part, golden.start)

    def garbage(self, random: np.random.Generator, steps: int) -> NDArray[Any]:
        """Return values that stand behind the ends of sequences: int64 (steps,) or float32 (steps, F).

        They are those of other sequences, or random and larger than any golden one. They are finite, since
        the service pads with nothing else, and since a network that multiplies its padding by 0 is right.
        """
        if random.random() < 0.5:
            others: NDArray[Any] = self._steps[random.integers(len(self._steps), size=steps)]
            return others
        return self._random(random, steps, self._loud)

    def _random(self, random: np.random.Generator, steps: int, spread: NDArray[np.float64]) -> NDArray[Any]:
        """Return so many random steps: any token ids, or features around the golden ones."""
        if self._num_tokens is not None:
            return random.integers(self._num_tokens, size=steps)
        return _bounded(self._mean + spread * random.standard_normal((steps, len(spread))))


def _bounded(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return values as float32, those that are too large for it as its largest number."""
    return values.clip(-_LARGEST, _LARGEST).astype(np.float32)


def input_of(golden: spec.GoldenInput) -> NDArray[Any]:
    """Return an example's input, or that of its source: int64 (T,) or float32 (T, F)."""
    return (
        np.array(golden.tokens, np.int64)
        if golden.tokens is not None
        else np.array(golden.features, np.float32)
    )


def _start_of(
    model: spec.ModelSpec, init: Init | None, golden: spec.Golden
) -> tuple[NDArray[np.float32], ...]:
    """Return the state before an example's first step, one float32 (H,) a state tensor."""
    states = model.network.states
    computed: Mapping[str, NDArray[np.float32]] = {}
    if init is not None:
        rows: dict[str, NDArray[Any]] = {
            name: np.array([row], np.float32) for name, row in golden.initial.items()
        }
        if golden.source is not None:
            rows[spec.SOURCE] = input_of(golden.source)[None]
        try:
            computed = init.run(rows)
        except ModelFailure as failure:
            raise ModelRefused("init", "first states of the golden examples", str(failure)) from failure
        _check_computed(states, computed)
    return tuple(
        computed[one.input][0]
        if one.input in computed
        else np.broadcast_to(np.array(one.start, np.float32), one.size)
        for one in states
    )


def _check_computed(states: Sequence[spec.State], computed: Mapping[str, NDArray[np.float32]]) -> None:
    sizes = {one.input: one.size for one in states}
    for name, rows in computed.items():
        expected = f"{name} of the init graph of shape 1 x {sizes[name]}"
        if rows.shape != (1, sizes[name]):
            raise ModelRefused("init", expected, " x ".join(map(str, rows.shape)))
        if not np.isfinite(rows).all():
            raise ModelRefused("init", f"finite numbers in {expected}", "others for a golden example")


def check_features(found: NDArray[np.float32], golden: Sequence[Sequence[float]], what: str) -> None:
    """Check that values give the features of a golden example, here as in training.

    Args:
        found: features of the example's values, (T, F).
        golden: those of model.json.
        what: the example, such as "example 0".

    Raises:
        ModelRefused: a feature differs by more than numbers of 32 bits do in another order of operations.
    """
    expected = np.array(golden, np.float32)
    is_close = np.isclose(found, expected, _FEATURE_TOLERANCE, _FEATURE_TOLERANCE)
    if not is_close.all():
        step, column = np.argwhere(~is_close)[0].tolist()
        raise ModelRefused(
            "preprocessing",
            f"the features of {what} for its values, {expected[step, column]:g} at step {step}, "
            f"column {column}",
            f"{found[step, column]:g}",
        )
