"""What a chunk tick feeds and asks for: pure, from the rows to the arrays and back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import logprobs_of
from service.engine.sequence import Goal, Sequence


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """One chunk tick.

    Attributes:
        inputs: int64 (B, T) or float32 (B, T, F). What is past a row's length is old but valid input, which the recurrence never reads.
        lengths: int32 (B,), steps of each row.
        wanted: int64 (W,), flat positions row * T + step: those of scored rows first, then the last steps of ending ones.
        targets: the token that follows each wanted position of a scored row, int64 arrays by sequence, in the order of `wanted`.
        ending: rows whose last step is in this chunk and whose output is the answer, in the order of `wanted`.
    """

    inputs: NDArray[Any]
    lengths: NDArray[np.int32]
    wanted: NDArray[np.int64]
    targets: list[tuple[Sequence, NDArray[np.int64]]]
    ending: list[Sequence]

    @property
    def useful_steps(self) -> int:
        """Valid time steps of all rows."""
        return int(self.lengths.sum())

    def scored(self, output: NDArray[np.float32]) -> Iterator[tuple[Sequence, NDArray[np.float32]]]:
        """The log-probabilities that this chunk adds to each scored row, from the head's output (W, V)."""
        if not self.targets:
            return
        targets = np.concatenate([tokens for _, tokens in self.targets])
        logprobs = logprobs_of(output[: len(targets)], targets)
        start = 0
        for sequence, tokens in self.targets:
            yield sequence, logprobs[start : start + len(tokens)]
            start += len(tokens)

    def ended(self, output: NDArray[np.float32]) -> Iterator[tuple[Sequence, NDArray[np.float32]]]:
        """The answer of each ending row, a copy of its row of the head's output (W, V)."""
        for sequence, row in zip(self.ending, output[len(output) - len(self.ending) :], strict=True):
            yield sequence, row.copy()


def plan_chunk(rows: list[Sequence], most_steps: int, buffer: NDArray[Any]) -> ChunkPlan:
    """Plan the next steps of every row.

    Args:
        rows: at least one, each with input left to prefill; row b of every array is theirs in this order.
        most_steps: of a row.
        buffer: where inputs are written, at least rows x most_steps of them on its first axis.
    """
    lengths = [min(sequence.to_prefill, most_steps) for sequence in rows]
    steps = max(lengths)
    inputs = buffer[: len(rows) * steps].reshape(len(rows), steps, *buffer.shape[1:])
    positions: list[NDArray[np.int64]] = []
    targets: list[tuple[Sequence, NDArray[np.int64]]] = []
    ending: list[Sequence] = []
    last_positions: list[int] = []
    for row, (sequence, length) in enumerate(zip(rows, lengths, strict=True)):
        start, end = sequence.consumed, sequence.consumed + length
        inputs[row, :length] = sequence.inputs[start:end]
        if sequence.goal is Goal.SCORE:
            positions.append(np.arange(row * steps, row * steps + length))
            targets.append((sequence, sequence.inputs[start + 1 : end + 1]))
        elif sequence.goal is Goal.LAST and length == sequence.to_prefill:
            ending.append(sequence)
            last_positions.append(row * steps + length - 1)
    wanted = np.concatenate([*positions, np.array(last_positions, np.int64)])
    return ChunkPlan(inputs, np.array(lengths, np.int32), wanted, targets, ending)
