"""Finds loops over time that call LSTMCell, GRUCell or RNNCell, and the state that their cells start with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.rnn import RNNCellBase

from training.convert.foreign import Refused
from training.convert.pytorch.calls import Call, outputs_of
from training.convert.pytorch.layout import Layout
from training.convert.pytorch.modules import shown

# What replaces a cell's forward(): gets the cell's own forward, its input and the state given to it.
Forward = Callable[..., Any]
State = tuple[Tensor, ...]
LENGTHS = (3, 5)
ADVICE = "write the loop with one cell a layer, called once a time step, or with nn.LSTM, nn.GRU or nn.RNN"


@dataclass(slots=True)
class Visits:
    """The calls of one cell in one run of the module.

    Attributes:
        entered: the state that each call got; None: none was given, so zeros.
        left: the state that each call returned.
    """

    entered: list[State | None] = field(default_factory=list)
    left: list[State] = field(default_factory=list)

    @property
    def is_carried(self) -> bool:
        """Whether each call got exactly what the one before returned."""
        pairs = zip(self.entered[1:], self.left, strict=False)
        return all(entered is not None and all(map(torch.equal, entered, left)) for entered, left in pairs)


def as_state(value: Any) -> State | None:
    """Return what a cell takes or gives as a tuple: (h,) or (h, c)."""
    if value is None:
        return None
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def state_in(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Return the state among the arguments of a cell's forward(input, hx=None)."""
    return arguments[1] if len(arguments) > 1 else named.get("hx")


@contextmanager
def replaced(cells: Mapping[str, RNNCellBase], forward: Callable[[str, Forward], Forward]) -> Iterator[None]:
    """Replace the forward() of cells while the context lasts."""
    before = {name: one.__dict__.get("forward") for name, one in cells.items()}
    for name, one in cells.items():
        one.__dict__["forward"] = forward(name, one.forward)
    try:
        yield
    finally:
        for name, one in cells.items():
            if before[name] is None:
                one.__dict__.pop("forward", None)
            else:
                one.__dict__["forward"] = before[name]


def visits_of(
    module: nn.Module, call: Call, cells: Mapping[str, RNNCellBase], tensors: list[Tensor]
) -> dict[str, Visits]:
    """Run a module and record the calls of its cells."""
    visits = {name: Visits() for name in cells}

    def recording(name: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **named: Any) -> Any:
            answer = original(*arguments, **named)
            visits[name].entered.append(as_state(state_in(arguments, named)))
            visits[name].left.append(as_state(answer) or ())
            return answer

        return forward

    with replaced(cells, recording):
        outputs_of(module, call, tensors)
    return visits


def looped_cells(module: nn.Module, call: Call, layout: Layout) -> dict[str, RNNCellBase]:
    """Return the cells that are called once a time step, by their paths; none of them: there is no loop.

    Raises:
        Refused: a cell is called at several places of a time step, or recurrent layers stand beside cells.
    """
    cells = {name: one for name, one in module.named_modules() if isinstance(one, RNNCellBase)}
    if not cells or not layout.any_steps:
        return {}
    short, long = (
        {
            name: len(one.left)
            for name, one in visits_of(module, call, cells, layout.sample(0, layout.batch, steps)).items()
        }
        for steps in LENGTHS
    )
    looped = {name: one for name, one in cells.items() if short[name] != long[name]}
    for name in looped:
        if (short[name], long[name]) != LENGTHS:
            raise Refused(
                f"cell {shown(name)}: expected one call a time step, found {long[name]} calls in "
                f"{LENGTHS[1]} time steps",
                ADVICE,
            )
    beside = [name for name, one in module.named_modules() if isinstance(one, nn.RNNBase)]
    if looped and beside:
        raise Refused(
            f"expected cells or recurrent layers, found the layer {shown(beside[0])} beside the cell "
            f"{shown(next(iter(looped)))}",
            ADVICE,
        )
    return looped


def starts_of(
    module: nn.Module, call: Call, layout: Layout, cells: Mapping[str, RNNCellBase]
) -> dict[str, State]:
    """Return the state that each cell starts with, a row of each tensor.

    Raises:
        Refused: it depends on the sequence.
    """
    runs = [visits_of(module, call, cells, layout.sample(seed, layout.batch, LENGTHS[0])) for seed in (1, 2)]
    starts: dict[str, State] = {}
    for name, cell in cells.items():
        first, other = (run[name].entered[0] for run in runs)
        if first is None or other is None:
            zeros = torch.zeros(cell.hidden_size)
            starts[name] = (zeros, zeros) if isinstance(cell, nn.LSTMCell) else (zeros,)
            continue
        rows = [
            torch.cat((one, two)).reshape(-1, cell.hidden_size) for one, two in zip(first, other, strict=True)
        ]
        if not all(torch.equal(one, one[:1].expand_as(one)) for one in rows):
            raise Refused(
                f"cell {shown(name)}: expected a first state that is the same for every sequence, found one "
                "that is computed from the input",
                "export the first state as a graph of its own, or give it as an argument",
            )
        starts[name] = tuple(one[0].detach().clone() for one in rows)
    return starts
