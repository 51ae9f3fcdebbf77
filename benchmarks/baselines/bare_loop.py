"""The limit for generation: onnxruntime and the sampler in a loop, everything bound once, and nothing
else.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.graph import Graph
from benchmarks.baselines.sampler import Sampler
from benchmarks.models import Model, empty_state
from service.contract import spec


class BareLoop:
    """Generates with a fixed number of rows.

    Args:
        model: a character model.
        rows: B, generating side by side.
        variant: which weights.
    """

    def __init__(self, model: Model, rows: int, variant: spec.Variant = "fp32") -> None:
        self.rows = rows
        graph = Graph(model, variant)
        self._sides = (empty_state(model, rows), empty_state(model, rows))
        self._tokens = np.zeros((rows, 1), np.int64)
        self._logits = np.empty((rows, model.spec.outputs), np.float32)
        ones, every_row = np.ones(rows, np.int32), np.arange(rows)
        first, second = self._sides
        # State goes to and fro between two sets of arrays, so nothing is copied and nothing is bound again.
        self._bound = (
            graph.bind(self._tokens, ones, first, every_row, self._logits, second),
            graph.bind(self._tokens, ones, second, every_row, self._logits, first),
        )
        self._sample = Sampler(rows, model.spec.outputs)

    def generate(self, characters: int) -> NDArray[np.int64]:
        """So many characters a row from token 0 on, int64 (B, characters)."""
        for tensors in self._sides:
            for tensor in tensors:
                tensor[:] = 0
        self._tokens[:] = 0
        positions = np.ones(self.rows, np.uint64)
        generated = np.empty((self.rows, characters), np.int64)
        one = np.uint64(1)
        for step in range(characters):
            self._bound[step & 1].run()
            self._tokens[:, 0] = generated[:, step] = self._sample(self._logits, positions)
            positions += one
        return generated

    def characters(self, each: int) -> int:
        """Work for `rounds.timed`: characters generated in all."""
        return self.generate(each).size
