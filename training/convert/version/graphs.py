"""Runs the graphs of a conversion on one sequence alone, as the service does."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.convert.candidate import Candidate
from training.convert.cases import Case, Drawing
from training.convert.converted import Converted
from training.convert.graph.session import Session
from training.convert.proofs.running import CellRunner, run_whole


class Graphs:
    """The graphs of a conversion, loaded.

    Args:
        converted: the conversion.
    """

    def __init__(self, converted: Converted) -> None:
        self._converted = converted
        self._drawing = Drawing(converted.input, converted.initial, converted.source)
        folder = Path(converted.weights_folder) if converted.weights_folder else None
        self._runs: CellRunner | Session
        if converted.kind == "chunk":
            self._runs = CellRunner(Candidate.of(converted), self._drawing, folder)
        else:
            self._runs = Session(converted.graph, folder)

    def rows(self, case: Case) -> NDArray[np.float32]:
        """Return the outputs at every time step, float32 (T, outputs); of a pooled network (1, outputs).

        Raises:
            Refused: the graph does not run the sequence.
        """
        if isinstance(self._runs, CellRunner):
            return self._runs.outputs([case], lambda row, tick: len(case.inputs))[0]  # noqa: ARG005
        return run_whole(self._runs, [case], self._drawing, not self._converted.pooled)[0]
