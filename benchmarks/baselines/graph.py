"""The chunk cell in bare onnxruntime, without anything of the service: one session, arrays bound by
address.
"""

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.models import Model
from service.contract import spec


class Graph:
    """A session of a model's graph.

    Args:
        model: whose graph.
        variant: which weights.
        threads: onnxruntime's, for one operator.
    """

    def __init__(self, model: Model, variant: spec.Variant = "fp32", threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = (
            False  # faster where it makes a difference: batch 1, and shapes that vary
        )
        self._session = ort.InferenceSession(
            str(model.graph(variant)), options, providers=["CPUExecutionProvider"]
        )
        self._state_pairs = model.state_pairs

    def bind(
        self,
        inputs: NDArray[Any],
        lengths: NDArray[np.int32],
        state: list[NDArray[np.float32]],
        wanted: NDArray[np.int64],
        output: NDArray[np.float32],
        after: list[NDArray[np.float32]],
    ) -> "Bound":
        """Tie arrays to the graph: each is read or written in place whenever the result runs."""
        binding = self._session.io_binding()
        read = [(spec.INPUT, inputs), (spec.LENGTHS, lengths), (spec.WANTED, wanted)]
        written = [(spec.OUTPUT, output)]
        for (before, behind), old, new in zip(self._state_pairs, state, after, strict=True):
            read.append((before, old))
            written.append((behind, new))
        for name, array in read:
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in written:
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return Bound(self._session, binding, [array for _, array in (*read, *written)])


class Bound:
    """Arrays tied to a session."""

    def __init__(self, session: Any, binding: Any, arrays: list[NDArray[Any]]) -> None:
        self._session = session
        self._binding = binding
        self._arrays = arrays  # the session knows only their addresses

    def run(self) -> None:
        """Compute."""
        self._session.run_with_iobinding(self._binding)
