"""Runs a chunk cell as the service does: rows side by side, a few steps at a time, ended rows dropped.

What is measured so is what will be served: int8 rounds by one scale for all rows and steps of a run, so its
answers depend on how they are cut.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.contract import spec

Rows = Sequence[NDArray[Any]]
Take = Callable[[int, int], int]

# What the service runs at once, about: sequences side by side, and the most steps of each. What int8 costs
# hardly depends on it (charlm, nats a character: 0.00005 to 0.00015 from 32 to 256 rows and 4 to 64 steps).
SERVED_ROWS = 64
SERVED_STEPS = 4


class ChunkCell:
    """Chunk cell in onnxruntime, on one thread of the CPU.

    Args:
        graph: serialized, by the export contract.
    """

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        outputs = {one.name for one in self._session.get_outputs()}
        self._state = {
            one.name: int(one.shape[1])
            for one in self._session.get_inputs()
            if one.name + spec.NEXT_SUFFIX in outputs
        }

    def outputs(
        self, inputs: Rows, take: Take, start: Sequence[Mapping[str, NDArray[np.float32]]] = ()
    ) -> list[NDArray[np.float32]]:
        """Return the head's output at every step of each input, float32 (T, outputs), all inputs in one
        batch.

        Args:
            inputs: int64 (T,) or float32 (T, F).
            take: steps to run of a row in a tick, given (row, tick); at least 1; what is left of a row is the
                most it gets.
            start: states at the start of each input by name, float32 (H,); (): zeros.
        """
        pieces: list[list[NDArray[np.float32]]] = [[] for _ in inputs]
        consumed = np.zeros(len(inputs), int)
        ends = np.array([len(one) for one in inputs])
        state = {
            name: np.stack([one[name] for one in start])
            if start
            else np.zeros((len(inputs), width), np.float32)
            for name, width in self._state.items()
        }
        for tick in count():
            rows = np.flatnonzero(consumed < ends)
            if not len(rows):
                break
            lengths = np.minimum([take(int(row), tick) for row in rows], (ends - consumed)[rows])
            padded = np.zeros((len(rows), lengths.max(), *inputs[0].shape[1:]), inputs[0].dtype)
            for index, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
                padded[index, :length] = inputs[row][consumed[row] : consumed[row] + length]
            wanted = np.flatnonzero(np.arange(padded.shape[1]) < lengths[:, None])
            feeds = {spec.INPUT: padded, spec.LENGTHS: lengths.astype(np.int32), spec.WANTED: wanted}
            output, *after = self._session.run(
                [spec.OUTPUT, *(name + spec.NEXT_SUFFIX for name in state)],
                feeds | {name: tensor[rows] for name, tensor in state.items()},
            )
            for tensor, new in zip(state.values(), after, strict=True):
                tensor[rows] = new
            for row, piece in zip(rows.tolist(), np.split(output, np.cumsum(lengths)[:-1]), strict=True):
                pieces[row].append(piece)
            consumed[rows] += lengths
        return [np.concatenate(row) for row in pieces]

    def served(self, inputs: Iterable[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return `outputs`, in batches and chunks of the sizes that the service runs."""
        everything = list(inputs)
        batches = (
            everything[start : start + SERVED_ROWS] for start in range(0, len(everything), SERVED_ROWS)
        )
        return [row for batch in batches for row in self.outputs(batch, lambda row, tick: SERVED_STEPS)]  # noqa: ARG005
