"""Answers as the original of a step graph does: sequences alone, one time step after the other."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.convert.cases import Case, Drawing
from training.convert.foreign import Array, Foreign, Refused
from training.convert.graph.session import Session
from training.convert.options import Choices
from training.convert.original.hazards import marks_of, refuse_other_types, refuse_random
from training.convert.original.roles import edges
from training.convert.step.graphs import StepGraph
from training.convert.step.reading import fixed_value


class StepOriginal:
    """The original of a step graph.

    Args:
        foreign: the network.
        choices: what the user said about it.
        step: what was found of it.

    Attributes:
        drawing: what it takes.
        every_step: it gives a row of outputs a time step; false: one of the last step.
        lengths: None, it takes any number of time steps.
        is_fixed: False.
        turns: (), no step knows how long its sequence is.
        example_steps: time steps of every golden example; None: any.

    Raises:
        Refused: onnxruntime does not load it, or it gives neither a row a step nor one of the last step.
    """

    def __init__(self, foreign: Foreign, choices: Choices, step: StepGraph) -> None:
        refuse_random(foreign.graph.graph)
        refuse_other_types(foreign.graph.graph)
        self.drawing = Drawing(step.input, marks=marks_of(foreign.graph.graph))
        self.lengths: tuple[int, ...] | None = None
        self.is_fixed = False
        self.turns: tuple[int, ...] = ()
        self.example_steps = choices.window
        self._step = step
        self._oracle = foreign.oracle
        known = {one.name: one for one in edges(foreign.graph.graph)}
        self._fixed = {name: fixed_value(known[name], number) for name, number in choices.fixed.items()}
        carried = {one.output for one in step.states}
        self._outputs = [one.name for one in foreign.graph.graph.output if one.name not in carried]
        self._session = Session(foreign.graph, None) if foreign.oracle is None else None
        self.every_step = True
        self.every_step = self._gives_every_step()

    def answer(self, case: Case) -> NDArray[np.float32]:
        """Return what the original computes for a sequence alone, float32 (T, outputs) or (1, outputs)."""
        if self._session is None:
            return self._asked(case)
        rows = self._walked(self._session, case)
        return np.asarray(rows, np.float32).reshape(-1, self._step.width)

    def _walked(self, session: Session, case: Case) -> list[Array]:
        """Run the file's graph step by step, as who streams does."""
        step = self._step
        carried: dict[str, Array] = {one.input: one.start for one in step.states}
        names = [step.output, *(one.output for one in step.states)]
        context = np.zeros(step.overlap, np.float32)
        rows = []
        for one in case.inputs:
            data = np.concatenate([context, one]) if step.overlap else one
            given = np.reshape(data, [abs(size) for size in step.dims]).astype(step.dtype)
            row, *values = session.run({step.data: given} | self._fixed | carried, names)
            carried = dict(zip(carried, values, strict=True))
            context = data[len(data) - step.overlap :] if step.overlap else context
            rows.append(row)
        return rows

    def _asked(self, case: Case) -> NDArray[np.float32]:
        """Run what stands for the original on the whole sequence."""
        assert self._oracle is not None
        feeds: Mapping[str, Array] = {self._step.data: case.inputs[None].astype(self._step.dtype)}
        found = np.asarray(self._oracle(feeds)[self._outputs.index(self._step.output)], np.float32)
        return found.reshape(-1, self._step.width)

    def _gives_every_step(self) -> bool:
        rows = [len(self.answer(self.drawing.case(np.random.default_rng(0), steps))) for steps in (3, 5)]
        if rows not in ([3, 5], [1, 1]):
            raise Refused(
                f"expected a row of outputs for each time step or for the last, found {rows[0]} for 3 steps "
                f"and {rows[1]} for 5"
            )
        return rows == [3, 5]
