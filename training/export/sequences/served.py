"""Runs a whole network of contract 2 as the service does: sequences side by side, padded to the longest."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.contract import spec
from training.export.chunks import SERVED_ROWS


class WholeGraph:
    """Graph of a whole network in onnxruntime, on one thread of the CPU.

    Args:
        graph: serialized, by the export contract.
    """

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._has_lengths = any(one.name == spec.LENGTHS for one in self._session.get_inputs())

    def served(self, inputs: Iterable[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the outputs for each sequence: float32 (T, outputs), or (1, outputs) of a pooled network.

        Args:
            inputs: int64 (T,) or float32 (T, F) each.
        """
        everything = list(inputs)
        # Sequences of similar lengths need little padding; without `lengths` they must be equal: one a run.
        order = sorted(range(len(everything)), key=lambda index: len(everything[index]))
        rows = SERVED_ROWS if self._has_lengths else 1
        found: dict[int, NDArray[np.float32]] = {}
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            found |= zip(batch, self._run([everything[index] for index in batch]), strict=True)
        return [found[index] for index in range(len(everything))]

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        lengths = np.array(list(map(len, inputs)), np.int32)
        padded = np.zeros((len(inputs), lengths.max(), *inputs[0].shape[1:]), inputs[0].dtype)
        for row, one in zip(padded, inputs, strict=True):
            row[: len(one)] = one
        feeds = {spec.INPUT: padded} | ({spec.LENGTHS: lengths} if self._has_lengths else {})
        (outputs,) = self._session.run([spec.OUTPUT], feeds)
        pairs = zip(outputs, lengths, strict=True)
        return [row[None] if row.ndim == 1 else row[:length] for row, length in pairs]
