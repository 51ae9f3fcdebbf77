"""Finds which axes of a module's inputs are batch and time, by running it at other sizes.

A recurrent layer says what it holds: the batch that it gets must be the one that was asked for. Where a
module has none, the batch comes first, as is usual in torch.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from training.convert.foreign import Refused
from training.convert.pytorch.calls import Call, outputs_of
from training.convert.pytorch.vocabulary import embedded_ids
from training.convert.pytorch.watching import watched

Kind = Literal["tokens", "features", "lengths", "filled", "other"]
# An unbatched network takes one sequence, without an axis for the batch; it is refused by that name.
Order = Literal["batch first", "time first", "unbatched"]
ORDERS: tuple[Order, ...] = ("batch first", "time first", "unbatched")


@dataclass(frozen=True, slots=True)
class Input:
    """One tensor that a module takes.

    Attributes:
        name: name of the tensor.
        kind: tokens or features are the sequence itself, lengths the valid steps of its rows, filled is of
            one value, such as a mask in which every step counts, and other a random row a sequence, such as
            a state.
        example: as it was given.
        batch: its axis of the batch; None: it has none.
        time: its axis of time; None: it has none.
    """

    name: str
    kind: Kind
    example: Tensor
    batch: int | None
    time: int | None

    def sample(self, generator: torch.Generator, batch: int, steps: int, tokens: int) -> Tensor:
        """Draw a tensor for so many sequences of so many steps, from so many token ids."""
        shape = list(self.example.shape)
        if self.batch is not None:
            shape[self.batch] = batch
        if self.time is not None:
            shape[self.time] = steps
        if self.kind == "tokens":
            return torch.randint(0, tokens, shape, generator=generator).to(self.example.dtype)
        if self.kind == "lengths":
            drawn = torch.randint(1, steps + 1, shape, generator=generator)
            drawn[0] = steps  # the longest comes first, as packs of sorted rows want it
            return drawn.sort(descending=True).values.to(self.example.dtype)
        if self.kind == "filled" or not self.example.is_floating_point():
            return self.example.flatten()[:1].expand(shape).clone()
        return torch.randn(shape, generator=generator)


@dataclass(frozen=True, slots=True)
class Layout:
    """The inputs of a module with their axes.

    Attributes:
        inputs: in the order of the call.
        order: axes of the data.
        data: index of the input that is the sequence.
        tokens: number of token ids to draw from, where the data are tokens.
        vocabulary: number of token ids, where it is known.
        batch: number of sequences of the example.
        steps: number of time steps of the example.
        any_batch: the module takes other numbers of sequences.
        any_steps: the module takes other lengths.
    """

    inputs: tuple[Input, ...]
    order: Order
    data: int
    tokens: int
    batch: int
    steps: int
    vocabulary: int | None = None
    any_batch: bool = True
    any_steps: bool = True

    def sample(self, seed: int, batch: int, steps: int) -> list[Tensor]:
        """Draw inputs for so many sequences of so many steps; the same seed draws the same."""
        generator = torch.Generator().manual_seed(seed)
        return [one.sample(generator, batch, steps, self.tokens) for one in self.inputs]


def find_layout(module: nn.Module, call: Call) -> Layout:
    """Find the axes of batch and time.

    Raises:
        Refused: no reading of the axes lets the module run, or the recurrent layers get another batch.
    """
    vocabulary = embedded_ids(module, call)
    _check_time_before_channels(module, call)
    problems: list[str] = []
    for any_batch, any_steps in ((True, True), (True, False), (False, True), (False, False)):
        for layout in _readings(module, call.tensors):
            tokens = vocabulary or layout.tokens
            layout = replace(  # noqa: PLW2901
                layout, vocabulary=vocabulary, tokens=tokens, any_batch=any_batch, any_steps=any_steps
            )
            problem = _problem(module, call, layout)
            if problem is None:
                _check_axes(module, layout)
                return layout
            problems.append(f"read as {layout.order}, {problem}")
    raise Refused(
        f"inputs of {type(module).__name__}: expected a sequence [batch, time] or [batch, time, features] "
        f"whose batch reaches the recurrent layers, found {problems[0] if problems else 'no such tensor'}",
        "give example inputs of two sequences with all arguments that forward() needs",
    )


def _check_axes(module: nn.Module, layout: Layout) -> None:
    """Refuse data without an axis of the batch, or of the features.

    Raises:
        Refused: the data have no such axis.
    """
    expected = f"inputs of {type(module).__name__}: expected [batch, time] ids or [batch, time, features]"
    shape = tuple(layout.inputs[layout.data].example.shape)
    if layout.order == "unbatched":
        raise Refused(
            f"{expected}, found one sequence without an axis for the batch, {shape}",
            "write forward() for batches, and give example inputs of two sequences",
        )
    if layout.inputs[layout.data].kind == "features" and len(shape) == 2:
        raise Refused(
            f"{expected}, found numbers without an axis for the features, {shape}",
            "write forward() for [batch, time, 1]",
        )


def _readings(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[Layout]:
    """Yield the ways to read the inputs, the most likely first."""
    states = {
        (one.num_layers * (1 + one.bidirectional), one.hidden_size)
        for one in module.modules()
        if isinstance(one, nn.RNNBase)
    }
    # Ids [batch, time] and features [batch, time, features] come before numbers of two axes.
    ranks = {name: one.dim() - one.is_floating_point() for name, one in tensors.items()}
    likely = sorted(tensors, key=lambda name: ranks[name] != 2)
    for order in ORDERS:
        for name in likely:
            if 0 < tensors[name].dim() <= 3 and (tensors[name].dim() > 1 or order == "unbatched"):
                yield _reading(tensors, name, order, states)


def _reading(
    tensors: Mapping[str, Tensor], data: str, order: Order, states: Container[tuple[int, int]]
) -> Layout:
    """Read the inputs with one of them as the data, in an order of axes."""
    example = tensors[data]
    axes: dict[Order, tuple[int | None, int]] = {"batch first": (0, 1), "time first": (1, 0)}
    batch_axis, time_axis = axes.get(order, (None, 0))
    batch = 1 if batch_axis is None else example.shape[batch_axis]
    steps = example.shape[time_axis]
    kind: Kind = "features" if example.is_floating_point() else "tokens"
    inputs = [
        Input(name, kind, example, batch_axis, time_axis)
        if name == data
        else _other(name, one, batch, steps, order, states)
        for name, one in tensors.items()
    ]
    tokens = 2 if example.is_floating_point() else max(2, int(example.max()) + 1)
    return Layout(tuple(inputs), order, list(tensors).index(data), tokens, batch, steps)


def _other(
    name: str, example: Tensor, batch: int, steps: int, order: Order, states: Container[tuple[int, int]]
) -> Input:
    """Read an input beside the data: lengths, a mask, a state, or a row a sequence.

    The states of recurrent layers are [layers, batch, width]; `states` has layers and width of each.
    """
    shape, is_float = tuple(example.shape), example.is_floating_point()
    if order == "unbatched":
        return Input(name, "other" if is_float else "filled", example, None, None)
    if shape == (batch,) and not is_float and example.dtype != torch.bool:
        return Input(name, "lengths", example, 0, None)
    across = (batch, steps) if order == "batch first" else (steps, batch)
    if shape == across:
        return Input(name, "filled", example, across.index(batch), 1 - across.index(batch))
    if len(shape) == 3 and shape[1] == batch and (shape[0], shape[2]) in states:
        return Input(name, "other", example, 1, None)
    axis = next((axis for axis, size in enumerate(shape[:2]) if size == batch), None)
    if axis is not None:
        return Input(name, "other", example, axis, None)
    return Input(name, "filled" if not is_float else "other", example, None, None)


def _problem(module: nn.Module, call: Call, layout: Layout) -> str | None:
    """Run a module at another batch and length; return what is wrong with the reading, or None."""
    batch = layout.batch + layout.any_batch
    steps = layout.steps + 2 * layout.any_steps
    steps += layout.any_steps and steps == batch
    with _batches(module) as seen:
        try:
            outputs_of(module, call, layout.sample(0, batch, steps))
        except Refused as error:
            return error.reason
    expected = None if layout.order == "unbatched" else batch
    wrong = [one for one in seen if one != expected and not (expected is None and one == 1)]
    return f"a recurrent layer that gets {wrong[0]} sequences of {batch}" if wrong else None


@contextmanager
def _batches(module: nn.Module) -> Iterator[list[int | None]]:
    """Collect the batch that the first recurrent layer or cell gets; None: it gets no batch axis."""
    seen: list[int | None] = []

    def note(one: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not seen and arguments:
            seen.append(_batch_of(one, arguments[0]))

    with watched(module, (nn.RNNBase, nn.modules.rnn.RNNCellBase), note):
        yield seen


def _batch_of(module: nn.Module, value: Tensor | PackedSequence) -> int | None:
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    if isinstance(module, nn.RNNBase):
        return None if value.dim() == 2 else value.shape[0 if module.batch_first else 1]
    return None if value.dim() == 1 else value.shape[0]


def _check_time_before_channels(module: nn.Module, call: Call) -> None:
    """Refuse data [batch, channels, time] that go straight into a convolution.

    Raises:
        Refused: a Conv1d gets an input as it is.
    """
    given: Sequence[Tensor] = [one for one in call.tensors.values() if one.dim() == 3]
    found: list[str] = []

    def note(one: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and any(arguments[0] is one for one in given):
            found.append(type(one).__name__)

    with watched(module, nn.Conv1d, note):
        outputs_of(module, call, list(call.tensors.values()))
    if found:
        raise Refused(
            f"data of {type(module).__name__}: expected [batch, time, features], found [batch, channels, "
            "time], which a Conv1d gets as it is",
            "write forward() for [batch, time, features], with x.transpose(1, 2) before the convolution",
        )
