"""Random networks of others: PyTorch modules that no contract was in the mind of, and their ONNX files.

A plan says what a network is; the module of a plan, and its weights, follow from the plan alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.convert.pytorch.silence import silenced

KINDS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
# What is done to the sequence beside the recurrence: some of it looks at other steps, or at other rows.
TWISTS = ("center_time", "center_batch", "difference", "cumulate", "position", "flip", "share", "soften_time")
STEPS = 7  # of the sequences that networks are traced with


@dataclass(frozen=True)
class Block:
    """A part of a network.

    Attributes:
        kind: rnn, lstm or gru; norm, linear, or one of `TWISTS`.
        width: of a recurrent block or a linear one.
        layers: of a recurrent block.
        is_both: a recurrent block runs in both directions.
        skip: what becomes of a recurrent block's input: "" for nothing, concat, or add by a projection.
    """

    kind: str
    width: int = 0
    layers: int = 1
    is_both: bool = False
    skip: str = ""


@dataclass(frozen=True)
class Plan:
    """A network.

    Attributes:
        blocks: its parts in order.
        vocabulary: number of tokens; 0: it takes features.
        width: of the embedding, or the number of features.
        is_time_first: its data are [time, batch, ...].
        take: which steps its head gets: every, last, state (the last state of the last block), index (the
            last step by the input of lengths), mean, max or first.
        outputs: width of its output.
        head: what follows the last linear layer: "" for nothing, softmax, or hidden for a layer before it.
        has_lengths: lengths are an input, by which sequences are packed.
        states: the first block's states are inputs and outputs.
        image: width of an input from which the first state is computed; 0: there is none.
        is_static: exported without dynamic axes.
        seed: of the weights.
    """

    blocks: tuple[Block, ...]
    vocabulary: int
    width: int
    is_time_first: bool
    take: str
    outputs: int
    head: str
    has_lengths: bool
    states: bool
    image: int
    is_static: bool
    seed: int

    @property
    def is_plain(self) -> bool:
        """Return True if its outputs follow from the steps so far by recurrent blocks alone."""
        kinds = {block.kind for block in self.blocks}
        is_causal = not any(block.is_both for block in self.blocks)
        return is_causal and not kinds & set(TWISTS) and self.take in ("every", "last", "state", "index")

    @property
    def is_mixing_rows(self) -> bool:
        """Return True if rows of a batch depend on each other, so that no batch is right."""
        return any(block.kind == "center_batch" for block in self.blocks)


def random_plan(seed: int) -> Plan:
    """Draw a plan."""
    rng = np.random.default_rng(seed)

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    blocks: list[Block] = []
    is_both_allowed = chance(0.4)
    for _ in range(int(rng.integers(1, 4))):
        if chance(0.3):
            blocks.append(Block("linear", int(rng.integers(2, 9))))
        kind, width = str(rng.choice(list(KINDS))), int(rng.integers(2, 11))
        skip = str(rng.choice(["", "", "concat", "add"]))
        layers = int(rng.integers(1, 3))
        blocks.append(Block(kind, width, layers, is_both_allowed and chance(0.6), skip))
        if chance(0.3):
            blocks.append(Block("norm"))
    if chance(0.2):
        blocks.insert(int(rng.integers(0, len(blocks) + 1)), Block(str(rng.choice(TWISTS))))
    has_lengths = chance(0.2)
    takes = ["every", "every", "last", "last", "mean", "max", "first"]
    takes += ["index"] * has_lengths + ["state", "state"] * (blocks[-1].kind in KINDS)
    first_is_recurrent = blocks[0].kind in KINDS
    states = first_is_recurrent and not has_lengths and chance(0.2)
    return Plan(
        blocks=tuple(blocks),
        vocabulary=int(rng.integers(5, 20)) if chance(0.4) else 0,
        width=int(rng.integers(1, 6)),
        is_time_first=chance(0.3),
        take=str(rng.choice(takes)),
        outputs=int(rng.integers(1, 5)),
        head=str(rng.choice(["", "", "softmax", "hidden"])),
        has_lengths=has_lengths,
        states=states,
        image=int(rng.integers(2, 6)) if first_is_recurrent and not states and chance(0.15) else 0,
        is_static=chance(0.1),
        seed=seed,
    )


class Network(nn.Module):
    """The network of a plan; the further inputs of `forward` are lengths, or states, or the image."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        torch.manual_seed(plan.seed)
        self.plan, width = plan, plan.width
        self.embedding = nn.Embedding(plan.vocabulary, width) if plan.vocabulary else None
        self.parts, self.skips = nn.ModuleList(), nn.ModuleList()
        for block in plan.blocks:
            before = width
            self.parts.append(_part(block, width, not plan.is_time_first))
            width = _width_after(block, width)
            is_added = block.kind in KINDS and block.skip == "add"
            self.skips.append(nn.Linear(before, width) if is_added else nn.Identity())
        if plan.take == "state":
            width = plan.blocks[-1].width
        first = plan.blocks[0]
        rows = first.layers * (2 if first.is_both else 1) * first.width
        self.image = nn.Linear(plan.image, rows) if plan.image else None
        self.hidden = nn.Linear(width, width) if plan.head == "hidden" else nn.Identity()
        self.head = nn.Linear(width, plan.outputs)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        plan = self.plan
        lengths = others[0] if plan.has_lengths else None
        state = _state(others) if plan.states else None
        if self.image is not None:
            state = self._state_of(others[-1])
        x = x if self.embedding is None else self.embedding(x)
        first: object = state
        last: object = state
        for index, (block, part, skip) in enumerate(zip(plan.blocks, self.parts, self.skips, strict=True)):
            if block.kind in KINDS:
                y, last = self._recur(part, x, lengths, state if index == 0 else None)
                first = last if index == 0 else first
                x = _joined(block, x, y, skip)
            elif block.kind in TWISTS:
                x = twisted(block.kind, x, 0 if plan.is_time_first else 1)
            else:
                x = part(x)
        y = self._headed(self._taken(x, last, lengths))
        if not plan.states:
            return y
        return (y, *(first if isinstance(first, tuple) else (first,)))

    def _recur(
        self, part: nn.Module, x: Tensor, lengths: Tensor | None, state: object
    ) -> tuple[Tensor, object]:
        batch_first = not self.plan.is_time_first
        if lengths is None:
            y, after = part(x) if state is None else part(x, state)
            return y, after
        packed = pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
        y, after = part(packed) if state is None else part(packed, state)
        return pad_packed_sequence(y, batch_first=batch_first)[0], after

    def _state_of(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        assert self.image is not None
        first = self.plan.blocks[0]
        h = (
            torch.tanh(self.image(image))
            .reshape(image.shape[0], -1, first.width)
            .transpose(0, 1)
            .contiguous()
        )
        return (h, torch.zeros_like(h)) if first.kind == "lstm" else h

    def _taken(self, x: Tensor, last: object, lengths: Tensor | None) -> Tensor:
        take, time = self.plan.take, 0 if self.plan.is_time_first else 1
        if take == "every":
            return x
        if take == "state":
            h = last[0] if isinstance(last, tuple) else last
            assert isinstance(h, Tensor)
            return h[-1]
        if take == "index":
            assert lengths is not None
            rows = x if time == 1 else x.transpose(0, 1)
            return rows[torch.arange(rows.shape[0]), lengths - 1]
        takes: dict[str, Callable[[], Tensor]] = {
            "last": lambda: x[:, -1] if time == 1 else x[-1],
            "first": lambda: x[:, 0] if time == 1 else x[0],
            "mean": lambda: x.mean(time),
            "max": lambda: x.amax(time),
        }
        return takes[take]()

    def _headed(self, x: Tensor) -> Tensor:
        x = torch.relu(self.hidden(x)) if self.plan.head == "hidden" else x
        y = self.head(x)
        return torch.softmax(y, -1) if self.plan.head == "softmax" else y


def twisted(kind: str, x: Tensor, time: int) -> Tensor:
    """Return a sequence after something that is no recurrence was done to it."""
    before = torch.cat([x.narrow(time, 0, 1), x.narrow(time, 0, x.shape[time] - 1)], time)
    position = torch.cumsum(torch.ones_like(x), time) / 10
    twists: dict[str, Callable[[], Tensor]] = {
        "center_time": lambda: x - x.mean(time, keepdim=True),
        "center_batch": lambda: x - 0.5 * x.mean(1 - time, keepdim=True),
        "difference": lambda: x - before,
        "cumulate": lambda: torch.tanh(torch.cumsum(x, time)),
        "position": lambda: x + position,
        "flip": lambda: torch.flip(x, [time]),
        "share": lambda: x * (1 + 1 / position.amax(time, keepdim=True)),
        "soften_time": lambda: x + torch.softmax(x, time),
    }
    return twists[kind]()


def _part(block: Block, width: int, batch_first: bool) -> nn.Module:
    if block.kind in KINDS:
        made: nn.Module = KINDS[block.kind](
            width, block.width, block.layers, batch_first=batch_first, bidirectional=block.is_both
        )
        return made
    if block.kind == "linear":
        return nn.Sequential(nn.Linear(width, block.width), nn.ReLU())
    return nn.LayerNorm(width) if block.kind == "norm" else nn.Identity()


def _width_after(block: Block, width: int) -> int:
    if block.kind not in KINDS:
        return block.width or width
    return block.width * (2 if block.is_both else 1) + (width if block.skip == "concat" else 0)


def _joined(block: Block, x: Tensor, y: Tensor, skip: nn.Module) -> Tensor:
    if block.skip == "concat":
        return torch.cat([x, y], -1)
    return y + skip(x) if block.skip == "add" else y


def _state(others: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return others[0] if len(others) == 1 else tuple(others)


@dataclass(frozen=True)
class Arguments:
    """What a network is called with: names and tensors of its inputs, in order, and their dynamic axes."""

    tensors: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def arguments(plan: Plan, rng: np.random.Generator, batch: int, steps: int) -> Arguments:
    """Return random arguments of a network for sequences of equal lengths."""
    shape = (steps, batch) if plan.is_time_first else (batch, steps)
    x: Tensor = (
        torch.from_numpy(rng.integers(0, plan.vocabulary, shape))
        if plan.vocabulary
        else torch.from_numpy(rng.normal(0, 1, (*shape, plan.width)).astype(np.float32))
    )
    names = ("time", "batch") if plan.is_time_first else ("batch", "time")
    tensors, axes = {"x": x}, {"x": dict(enumerate(names))}
    if plan.has_lengths:
        tensors["sizes"], axes["sizes"] = torch.full((batch,), steps), {0: "batch"}
    if plan.states:
        first = plan.blocks[0]
        rows = first.layers * (2 if first.is_both else 1)
        for name in ("h0", "c0") if first.kind == "lstm" else ("h0",):
            tensors[name], axes[name] = torch.zeros(rows, batch, first.width), {1: "batch"}
    if plan.image:
        image = rng.normal(0, 1, (batch, plan.image)).astype(np.float32)
        tensors["image"], axes["image"] = torch.from_numpy(image), {0: "batch"}
    return Arguments(tensors, axes)


def output_names(plan: Plan) -> list[str]:
    """Return names of the outputs of a plan's network."""
    if not plan.states:
        return ["y"]
    return ["y", "hn", "cn"] if plan.blocks[0].kind == "lstm" else ["y", "hn"]


def export(network: Network, path: Path, exporter: str = "legacy") -> None:
    """Write the ONNX file of a network by one of torch's exporters, legacy or dynamo."""
    plan = network.plan
    given = arguments(plan, np.random.default_rng(1), 1 if plan.is_static else 2, STEPS)
    outputs = output_names(plan)
    if exporter == "dynamo":
        _export_dynamo(network, given, outputs, path)
        return
    axes = None
    if not plan.is_static:
        axes = {**given.axes}
        if plan.take == "every":
            axes["y"] = axes["x"]
    with silenced():
        torch.onnx.export(
            network.eval(),
            tuple(given.tensors.values()),
            str(path),
            dynamo=False,
            input_names=list(given.tensors),
            output_names=outputs,
            dynamic_axes=axes,
        )


def _export_dynamo(network: Network, given: Arguments, outputs: list[str], path: Path) -> None:
    free = torch.export.Dim.DYNAMIC
    x, *others = (dict.fromkeys(given.axes[name], free) for name in given.tensors)
    with silenced():
        program = torch.onnx.export(
            network.eval(),
            tuple(given.tensors.values()),
            dynamo=True,
            input_names=list(given.tensors),
            output_names=outputs,
            dynamic_shapes=None if network.plan.is_static else (x, *others),
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
