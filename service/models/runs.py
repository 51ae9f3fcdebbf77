"""Runs sequences on a version's graph without an engine, in ways that a right graph cannot tell apart.

A chunk cell is cut in time, a whole network gets garbage behind the ends of its sequences.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from service.errors import ModelRefused
from service.models.samples import Sample, Samples
from service.runtime import Chunk, Runtime, WholeRuntime

# Largest row length of a chunk in runs of unequal chunks; the smallest is 1.
_UNEQUAL = 3
# Time steps behind the longest sequence of a batch, for a whole network.
_BEHIND = 3
_GARBAGE_SEED = 2

# Maps a row and a tick to the number of time steps to run, before the cut at the end of the row.
_Schedule = Callable[[int, int], int]


class Trace(NamedTuple):
    """The outputs of a graph for one sequence, and the state after it.

    Attributes:
        outputs: float32 (T, outputs) of every step; (1, outputs) of a pooled network.
        state: state after the last step, one float32 (H,) a state tensor; none of a whole network.
    """

    outputs: NDArray[np.float32]
    state: tuple[NDArray[np.float32], ...] = ()


class Way(NamedTuple):
    """One way to run the golden examples.

    Attributes:
        name: how they run, for people.
        advice: the likely reason where only this way gives other outputs.
        is_alone: each is run by itself, else all beside others.
        run: runs a batch.
    """

    name: str
    advice: str
    is_alone: bool
    run: Callable[[Sequence[Sample]], list[Trace]]


class ChunkRuns:
    """Runs of a chunk cell.

    Args:
        model: spec of the model.
        runtime: the loaded graph.
    """

    needs_equal = False

    def __init__(self, model: spec.ModelSpec, runtime: Runtime) -> None:
        self._outputs = model.outputs
        self._runtime = runtime

    def ways(self, chunk: int) -> list[Way]:
        """Return the ways to run golden examples.

        Only the last one shows that the state is taken after each row's last valid step and not after the
        padding, and that the head is computed where it is wanted, since it asks for the last position first.

        Args:
            chunk: length of equal chunks, in time steps.
        """
        return [
            Way("alone", "", True, lambda samples: self._run(samples, _whole)),
            Way(
                "batched and chunked",
                "a chunk cell carries its state from chunk to chunk, and no row depends on another; "
                "a network that looks both ways cannot be cut in time: convert it as whole",
                False,
                lambda samples: self._run(samples, lambda *_: chunk),
            ),
            Way(
                "in chunks of unequal lengths",
                "a row's state and outputs do not depend on what is behind its length in a chunk, and the "
                "head is computed at the positions that are wanted, in their order",
                False,
                lambda samples: self._run(samples, lambda row, tick: 1 + (row + tick) % _UNEQUAL, True),
            ),
        ]

    def alone(self, sample: Sample, *, is_stepped: bool = True) -> list[Trace]:
        """Run one sequence by itself: in one chunk, and, where that is asked for, a step at a time."""
        stepped = self._run([sample], lambda *_: 1) if is_stepped else []
        return [*self._run([sample], _whole), *stepped]

    def together(self, samples: Sequence[Sample], random: np.random.Generator) -> list[Trace]:
        """Run a batch in chunks of random unequal lengths."""
        longest = max(len(one.inputs) for one in samples)
        lengths = random.integers(1, max(2, longest), size=(len(samples), longest))
        return self._run(samples, lambda row, tick: int(lengths[row, tick]))

    def _run(self, samples: Sequence[Sample], schedule: _Schedule, is_reversed: bool = False) -> list[Trace]:
        """Run a batch; rows that are finished leave it.

        Args:
            samples: sequences to run.
            schedule: time steps to run of a row in a tick.
            is_reversed: whether the outputs are asked for from the last position to the first.

        Raises:
            ModelFailure: the runtime failed.
        """
        pieces: list[list[NDArray[np.float32]]] = [[] for _ in samples]
        consumed = [0] * len(samples)
        state = [one.start for one in samples]
        for tick in count():
            rows = [row for row, one in enumerate(samples) if consumed[row] < len(one.inputs)]
            if not rows:
                break
            parts = [samples[row].inputs[consumed[row] :][: schedule(row, tick)] for row in rows]
            chunk = _chunk_of(parts, [state[row] for row in rows], self._outputs, is_reversed)
            if is_reversed:
                # In the middle of a prompt an engine asks for none. onnxruntime ends the process at a
                # recurrent node that gets no row: here that of a trial, not that of the server.
                self._runtime.bind(replace(chunk, wanted=chunk.wanted[:0], output=chunk.output[:0])).run()
            self._runtime.bind(chunk).run()
            ends = np.cumsum(chunk.lengths)
            found = chunk.output[::-1] if is_reversed else chunk.output
            for index, (row, output) in enumerate(zip(rows, np.split(found, ends[:-1]), strict=True)):
                consumed[row] += len(parts[index])
                state[row] = tuple(tensor[index] for tensor in chunk.after)
                pieces[row].append(output)
        return [Trace(np.concatenate(own), after) for own, after in zip(pieces, state, strict=True)]


def _whole(_row: int, _tick: int) -> int:
    return 1 << 30


def _chunk_of(
    parts: Sequence[NDArray[Any]],
    state: Sequence[Sequence[NDArray[np.float32]]],
    outputs: int,
    is_reversed: bool,
) -> Chunk:
    """Pad the parts to one chunk that computes the head at every valid step.

    Args:
        parts: time steps of each row, (T,) or (T, F).
        state: state of each row, one float32 (H,) a state tensor.
        outputs: width of the head's output.
        is_reversed: whether the last position is asked for first.
    """
    lengths = np.array([len(part) for part in parts], np.int32)
    steps = int(lengths.max())
    padded = np.zeros((len(parts), steps, *parts[0].shape[1:]), parts[0].dtype)
    for row, part in enumerate(parts):
        padded[row, : len(part)] = part
    wanted = np.concatenate([row * steps + np.arange(length) for row, length in enumerate(lengths)])
    if is_reversed:
        wanted = wanted[::-1].copy()
    before = [np.stack(tensors) for tensors in zip(*state, strict=True)]
    output = np.empty((len(wanted), outputs), np.float32)
    return Chunk(padded, lengths, before, wanted, output, [np.empty_like(tensor) for tensor in before])


class WholeRuns:
    """Runs of a whole network.

    Args:
        model: spec of the model.
        runtime: the loaded graph.
        samples: give the garbage behind the ends of sequences.
    """

    def __init__(self, model: spec.ModelSpec, runtime: WholeRuntime, samples: Samples) -> None:
        self._outputs = model.outputs
        self._is_pooled = model.network.is_pooled
        self._runtime = runtime
        self._samples = samples
        self.needs_equal = model.network.padding == "none" or samples.fixed_length is not None
        self._takes_lengths = model.network.padding == "lengths"

    def ways(self, chunk: int) -> list[Way]:  # noqa: ARG002 -- it cannot be cut in time
        """Return the ways to run golden examples."""
        random = np.random.default_rng(_GARBAGE_SEED)
        ways = [Way("alone", "", True, lambda samples: self._run(samples, 0, random))]
        if not self.needs_equal:
            advice = (
                "what is behind a row's length changes no output; "
                "a network that reads it has padding none, for sequences of equal lengths"
            )
            for name, is_alone in (("alone", True), ("batched", False)):
                ways.append(
                    Way(
                        f"{name} with garbage behind its end",
                        advice,
                        is_alone,
                        lambda samples: self._run(samples, _BEHIND, random),
                    )
                )
        advice = "rows of a batch do not depend on each other"
        ways.append(Way("batched", advice, False, lambda samples: self._run(samples, 0, random)))
        return ways

    def alone(self, sample: Sample, *, is_stepped: bool = True) -> list[Trace]:  # noqa: ARG002
        """Run one sequence by itself, with nothing behind its end; it cannot be run a step at a time."""
        return self._run([sample], 0, np.random.default_rng(0))

    def together(self, samples: Sequence[Sample], random: np.random.Generator) -> list[Trace]:
        """Run a batch, with garbage behind the ends where lengths may differ."""
        return self._run(samples, 0 if self.needs_equal else int(random.integers(_BEHIND + 1)), random)

    def _run(self, samples: Sequence[Sample], behind: int, random: np.random.Generator) -> list[Trace]:
        """Run a batch.

        Args:
            samples: sequences to run, of equal lengths where the network needs that.
            behind: time steps of garbage behind the longest.
            random: where the garbage is drawn from.

        Raises:
            ModelFailure: the runtime failed.
            ModelRefused: the output has another shape than the contract's.
        """
        lengths = np.array([len(one.inputs) for one in samples], np.int32)
        steps = int(lengths.max()) + behind
        garbage = self._samples.garbage(random, len(samples) * steps)
        inputs = garbage.reshape(len(samples), steps, *garbage.shape[1:])
        for row, one in zip(inputs, samples, strict=True):
            row[: len(one.inputs)] = one.inputs
        output = self._runtime.run(inputs, lengths if self._takes_lengths else None)
        shape = (len(samples), *(() if self._is_pooled else (steps,)), self._outputs)
        if output.shape != shape:
            raise ModelRefused(
                "golden", f"output of shape {_shown(shape)} for a batch", f"one of {_shown(output.shape)}"
            )
        if self._is_pooled:
            return [Trace(row[None]) for row in output]
        return [Trace(row[:length]) for row, length in zip(output, lengths, strict=True)]


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


Runs = ChunkRuns | WholeRuns
