"""Batches padded to their longest sequence, whole sequences at a time: what servers without continuous
batching do.

One batch shape after the other, no state carried over. `in_order` batches texts as they arrive, `by_length`
as nobody can who does not know the future; batches of one are no batches.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.graph import Graph
from benchmarks.models import Model, empty_state


class PaddedBatches:
    """Runs batches of whole sequences.

    Args:
        model: a many-to-one model of token ids.
        most_rows: of a batch.
        graph: to share; None: a session of its own.
    """

    def __init__(self, model: Model, most_rows: int, graph: Graph | None = None) -> None:
        self._graph = graph or Graph(model)
        self.outputs = model.spec.outputs
        # Zeros that are only read, and a place for states that nobody wants: made once.
        self._before, self._after = empty_state(model, most_rows), empty_state(model, most_rows)
        self._firsts = np.arange(most_rows)

    def run(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The head's output at each sequence's last step, float32 (B, outputs)."""
        rows = len(batch)
        lengths = np.fromiter(map(len, batch), np.int32, rows)
        steps = int(lengths.max())
        padded = np.zeros((rows, steps), np.int64)
        for row, one in enumerate(batch):
            padded[row, : len(one)] = one
        wanted = self._firsts[:rows] * steps + lengths - 1
        output = np.empty((rows, self.outputs), np.float32)
        before, after = [tensor[:rows] for tensor in self._before], [tensor[:rows] for tensor in self._after]
        self._graph.bind(padded, lengths, before, wanted, output, after).run()
        return output


def in_order(batches: PaddedBatches, inputs: Sequence[NDArray[Any]], rows: int) -> NDArray[np.float32]:
    """Classify in the order of arrival, so many at a time: what a server does when it is saturated."""
    return np.concatenate(
        [batches.run(inputs[start : start + rows]) for start in range(0, len(inputs), rows)]
    )


def by_length(batches: PaddedBatches, inputs: Sequence[NDArray[Any]], rows: int) -> NDArray[np.float32]:
    """Classify sorted by length, so many at a time, answers in the order of the inputs."""
    order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
    answers = np.empty((len(inputs), batches.outputs), np.float32)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        answers[chosen] = batches.run([inputs[index] for index in chosen])
    return answers


def padded_share(lengths: NDArray[np.int64], rows: int) -> float:
    """Steps computed for steps that were wanted, when batches are formed in order and padded."""
    computed = sum(len(part) * int(part.max()) for part in np.split(lengths, range(rows, len(lengths), rows)))
    return computed / int(lengths.sum())
