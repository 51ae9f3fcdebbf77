"""Exports a loop over cells as a graph of one time step, whose states are inputs and outputs.

Unrolled, the loop would hold the example's number of time steps. So the module is traced at one time step,
and while it runs, what enters each cell is a graph input, and what it returns a graph output. Where the loop
changes the state between two steps, as with a LayerNorm, the next state is what enters the cell at the
second step of a trace of two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.rnn import RNNCellBase

from service.contract import spec
from training.convert.foreign import Array, Foreign, Oracle, Refused
from training.convert.graph.session import Session
from training.convert.pytorch.agreement import check_close, run_graph
from training.convert.pytorch.calls import Call, named_outputs, outputs_of
from training.convert.pytorch.exporting import OPSET, WAYS, Job, export, load
from training.convert.pytorch.layout import Layout
from training.convert.pytorch.loops import Forward, State, as_state, replaced, starts_of, state_in, visits_of
from training.convert.pytorch.modules import shown
from training.convert.pytorch.running import preserved

NEXT = ".next"
# Where the steps of an output are: on axis 1, on axis 0, or it is of the last step alone.
Steps = Literal["second", "first", "last"]
ADVICE = (
    "only the states of its cells may be carried from one time step to the next, in the order of time: keep "
    "nothing else, such as the last output; or export one time step as an ONNX file with all that is carried "
    "as inputs and outputs"
)


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop over time.

    Attributes:
        module: the module that loops.
        call: how it is called.
        layout: axes of its inputs; the data are the only one.
        cells: by their paths.
        starts: first state of each cell.
        is_carried: what enters a cell is exactly what it returned the step before.
        outputs: names of the module's outputs, with the place of their steps.
    """

    module: nn.Module
    call: Call
    layout: Layout
    cells: Mapping[str, RNNCellBase]
    starts: Mapping[str, State]
    is_carried: bool
    outputs: Mapping[str, Steps]

    @property
    def states(self) -> dict[str, Tensor]:
        """The first value of every state by its name, such as `cell.h` and `cell.c`."""
        return {
            f"{name}.{letter}".removeprefix("."): row
            for name, rows in self.starts.items()
            for letter, row in zip("hc", rows, strict=False)
        }

    @property
    def data(self) -> str:
        """Name of the input that is the sequence."""
        return self.layout.inputs[0].name

    def run(self, data: Tensor) -> dict[str, Tensor]:
        """Run the module on data [batch, time, ...]; give outputs [batch, time, width] or [batch, width]."""
        given = data.transpose(0, 1) if self.layout.order == "time first" else data
        found = named_outputs(self.call.run(self.module, [given]))
        return {
            name: one.transpose(0, 1) if self.outputs.get(name) == "first" else one
            for name, one in found.items()
        }


class Step(nn.Module):
    """One time step of a loop: from the data [batch, 1, ...] and all states to outputs and next states."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.original = loop.module
        self.loop = loop

    def forward(self, data: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the step, and the next states in the order of the states."""
        loop, given = self.loop, self._by_cell(states)
        following: dict[str, State] = {}

        def step(name: str, original: Forward) -> Forward:
            def forward(*arguments: Any, **named: Any) -> Any:
                answer = _cell_step(loop.cells[name], original, given[name], arguments, named)
                following[name] = as_state(answer) or ()
                return answer

            return forward

        with replaced(loop.cells, step):
            outputs = loop.run(data)
        if not loop.is_carried:
            following = self._entered_after(data, following)
        rows = [row for name in loop.cells for row in following[name]]
        return (*outputs.values(), *rows)

    def _entered_after(self, data: Tensor, left: Mapping[str, State]) -> dict[str, State]:
        """Run two time steps, and return what enters each cell at the second.

        At the first step each cell returns what it returned when that step ran alone: so every cell is in
        the graph once, in the part that the states need. A copy that only the outputs need would run at the
        wanted steps of a chunk, and onnxruntime ends the process where an LSTM or GRU gets no rows.
        """
        loop = self.loop
        calls = dict.fromkeys(loop.cells, 0)
        entered: dict[str, State] = {}

        def step(name: str, _: Forward) -> Forward:
            def forward(*arguments: Any, **named: Any) -> Any:
                calls[name] += 1
                if calls[name] > 1:
                    entered[name] = as_state(state_in(arguments, named)) or ()
                    return _like_cell(entered[name])
                return _like_cell(left[name])

            return forward

        with replaced(loop.cells, step):
            loop.run(torch.cat((data, data), 1))
        return entered

    def _by_cell(self, states: Sequence[Tensor]) -> dict[str, State]:
        rest = iter(states)
        return {name: tuple(next(rest) for _ in rows) for name, rows in self.loop.starts.items()}


def _like_cell(state: State) -> Any:
    return state if len(state) > 1 else state[0]


def _cell_step(
    cell: RNNCellBase, original: Forward, state: State, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> Any:
    """Compute a cell with another state, as a recurrent layer of one time step.

    Exporters write such a layer as one ONNX node. Cells of a user's own classes run their own code.
    """
    given = arguments[0] if arguments else named["input"]
    if type(cell) not in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        rest = {name: one for name, one in named.items() if name not in ("input", "hx")}
        return original(given, _like_cell(state), *arguments[2:], **rest)
    x = given.unsqueeze(0)
    weights = [cell.weight_ih, cell.weight_hh, *((cell.bias_ih, cell.bias_hh) if cell.bias else ())]
    options = (weights, cell.bias, 1, 0.0, False, False, False)
    rows = tuple(one.unsqueeze(0) for one in state)
    if isinstance(cell, nn.LSTMCell):
        _, h, c = torch.lstm(x, rows, *options)
        return h.squeeze(0), c.squeeze(0)
    if isinstance(cell, nn.GRUCell):
        return torch.gru(x, rows[0], *options)[1].squeeze(0)
    run = torch.rnn_relu if getattr(cell, "nonlinearity", "") == "relu" else torch.rnn_tanh
    return run(x, rows[0], *options)[1].squeeze(0)


def read_loop(
    module: nn.Module,
    call: Call,
    layout: Layout,
    cells: Mapping[str, RNNCellBase],
    path: Path,
    folder: Path,
    source: spec.Source,
) -> Foreign:
    """Read a loop over cells as a graph of one time step, whose large weights go into a folder.

    Raises:
        Refused: the exporter fails, or the graph, run step by step, does not agree with the module.
    """
    loop = _loop(module, call, layout, cells)
    export(_job(loop, source.opset or OPSET), WAYS[0], path)
    names = [*loop.outputs, *(name + NEXT for name in loop.states)]
    graph = load(path, len(names), folder)
    _check_steps(loop, Session(graph, folder))
    if [one.name for one in graph.graph.output] != names:
        raise Refused("expected the outputs of a time step by their names, found others")
    return Foreign(
        graph,
        source.model_copy(update={"exporter": f"torch.onnx with {WAYS[0]}, one time step"}),
        _oracle(loop),
        layout.vocabulary,
        assumed=(f"the loop over {', '.join(map(shown, cells))} is traced at one time step",),
        states=tuple((name, name + NEXT) for name in loop.states),
        is_step=True,
        starts={name: row.numpy() for name, row in loop.states.items() if bool(row.any())},
    )


def _loop(module: nn.Module, call: Call, layout: Layout, cells: Mapping[str, RNNCellBase]) -> Loop:
    if len(layout.inputs) > 1:
        beside = ", ".join(one.name for one in layout.inputs if one is not layout.inputs[layout.data])
        raise Refused(
            f"a loop over cells: expected the data as the only input, found {beside} beside",
            "give the loop a forward() that takes the sequence alone",
        )
    visits = visits_of(module, call, cells, layout.sample(0, layout.batch, 5))
    carried = all(one.is_carried for one in visits.values())
    starts = starts_of(module, call, layout, cells)
    return Loop(module, call, layout, cells, starts, carried, _steps_of_outputs(module, call, layout))


def _steps_of_outputs(module: nn.Module, call: Call, layout: Layout) -> dict[str, Steps]:
    """Find where the steps of each output are, from its shapes at two lengths."""
    batch, lengths = (3 if layout.any_batch else layout.batch), (5, 7)
    shapes = []
    for steps in lengths:
        with preserved(module):
            found = named_outputs(call.run(module, layout.sample(0, batch, steps)))
        shapes.append({name: tuple(one.shape) for name, one in found.items()})
    return {name: _place(shapes[0][name], shapes[1][name], lengths) for name in shapes[0]}


def _place(short: tuple[int, ...], long: tuple[int, ...], lengths: tuple[int, int]) -> Steps:
    for axis, place in ((1, "second"), (0, "first")):
        if len(short) > axis and (short[axis], long[axis]) == lengths:
            return "second" if place == "second" else "first"
    return "last"


def _job(loop: Loop, opset: int) -> Job:
    batch = max(2, loop.layout.batch) if loop.layout.any_batch else loop.layout.batch
    inputs = {loop.data: _data(loop, 0, batch, 1)}
    inputs |= {name: row.expand(batch, -1).clone() for name, row in loop.states.items()}
    free = {0: "batch"} if loop.layout.any_batch else {}
    outputs = [*loop.outputs, *(name + NEXT for name in loop.states)]
    return Job(Step(loop), inputs, outputs, dict.fromkeys(inputs, free), opset)


def _data(loop: Loop, seed: int, batch: int, steps: int) -> Tensor:
    """Draw data [batch, time, ...]."""
    found = loop.layout.sample(seed, batch, steps)[0]
    return found.transpose(0, 1).contiguous() if loop.layout.order == "time first" else found


def _check_steps(loop: Loop, session: Session) -> None:
    """Run the graph step by step, and compare with the module on whole sequences.

    Raises:
        Refused: they differ.
    """
    for seed, (batch, steps) in enumerate(((1, 1), (1, 9), (2, 4), (3, 6))):
        batch = batch if loop.layout.any_batch else loop.layout.batch  # noqa: PLW2901
        data = _data(loop, seed + 1, batch, steps)
        expected = _whole(loop, data)
        found = _step_by_step(loop, session, data)
        try:
            check_close(expected, found, f"{batch} sequences of {steps} time steps")
        except Refused as error:
            names = ", ".join(map(shown, loop.cells))
            raise Refused(
                f"the loop over {names}: expected one time step, repeated, to be the module; {error.reason}",
                ADVICE,
            ) from error


def _whole(loop: Loop, data: Tensor) -> list[Tensor]:
    given = data.transpose(0, 1) if loop.layout.order == "time first" else data
    found = outputs_of(loop.module, loop.call, [given])
    return [
        one.transpose(0, 1) if place == "first" else one
        for one, place in zip(found, loop.outputs.values(), strict=True)
    ]


def _step_by_step(loop: Loop, session: Session, data: Tensor) -> list[Array]:
    batch, steps = data.shape[:2]
    states = {name: row.expand(batch, -1).contiguous() for name, row in loop.states.items()}
    rows: list[list[Array]] = []
    for step in range(steps):
        one = data[:, step : step + 1].contiguous()
        answer = run_graph(session, {loop.data: one, **states}, batch, 1)
        rows.append(answer[: len(loop.outputs)])
        following = answer[len(loop.outputs) :]
        states = {name: torch.from_numpy(row) for name, row in zip(states, following, strict=True)}
    return [
        rows[-1][index] if place == "last" else np.concatenate([row[index] for row in rows], 1)
        for index, place in enumerate(loop.outputs.values())
    ]


def _oracle(loop: Loop) -> Oracle:
    """Return what runs the module on whole sequences of the data, (1, time, ...)."""

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        return [one.numpy() for one in _whole(loop, torch.tensor(feeds[loop.data]))]

    return run
