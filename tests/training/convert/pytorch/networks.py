"""Modules as people write them, small, and what runs their graphs."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.convert.foreign import Array, Foreign

VOCABULARY, FEATURES, WIDTH, OUTPUTS = 20, 6, 5, 3
Cell = Literal["LSTM", "GRU", "RNN"]
Last = Literal["every", "last", "hidden", "attention"]


class Network(nn.Module):
    """Embedding or features, a recurrent layer, LayerNorm, and a head."""

    def __init__(
        self,
        cell: Cell = "LSTM",
        *,
        batch_first: bool = True,
        layers: int = 1,
        both: bool = False,
        tokens: bool = True,
        last: Last = "every",
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.batch_first, self.last = batch_first, last
        self.embedding = nn.Embedding(VOCABULARY, FEATURES) if tokens else None
        self.recurrent: Any = getattr(nn, cell)(
            FEATURES, WIDTH, layers, batch_first=batch_first, bidirectional=both
        )
        width = WIDTH * (1 + both)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.score = nn.Linear(width, 1)
        self.head = nn.Linear(width, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.recurrent(self.embedding(x) if self.embedding is not None else x)
        answer: Tensor = self.head(self.norm(self.taken(y, state)))
        return answer

    def taken(self, y: Tensor, state: Any) -> Tensor:
        time = 1 if self.batch_first else 0
        if self.last == "last":
            return y.select(time, -1)
        if self.last == "hidden":
            hidden: Tensor = state[0] if isinstance(state, tuple) else state
            return torch.cat((hidden[-2], hidden[-1]), 1) if self.recurrent.bidirectional else hidden[-1]
        if self.last == "attention":
            weighted: Tensor = y * self.score(y).softmax(time)
            return weighted.sum(time)
        return y


class Packed(Network):
    """Takes lengths, and packs the rows."""

    is_sorted = True

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        embedded = self.embedding(x) if self.embedding is not None else x
        packed = pack_padded_sequence(
            embedded, lengths, batch_first=self.batch_first, enforce_sorted=self.is_sorted
        )
        y, state = self.recurrent(packed)
        if self.last == "every":
            y, _ = pad_packed_sequence(y, batch_first=self.batch_first)
        answer: Tensor = self.head(self.norm(self.taken(y, state)))
        return answer


class PackedAnyOrder(Packed):
    is_sorted = False


class WithState(nn.Module):
    """Takes and gives the states beside its outputs."""

    def __init__(self, cell: Cell = "LSTM") -> None:
        super().__init__()
        self.recurrent: Any = getattr(nn, cell)(FEATURES, WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.recurrent(x, state)


class Loop(nn.Module):
    """A loop over time with one cell a layer."""

    def __init__(
        self,
        cell: Cell = "LSTM",
        *,
        layers: int = 2,
        batch_first: bool = True,
        tokens: bool = False,
        last: bool = False,
        norm: bool = False,
        start: Literal["zeros", "none", "learned", "computed"] = "zeros",
        feedback: bool = False,
        backward: bool = False,
    ) -> None:
        super().__init__()
        self.is_lstm, self.batch_first, self.last = cell == "LSTM", batch_first, last
        self.start, self.feedback, self.backward = start, feedback, backward
        self.embedding = nn.Embedding(VOCABULARY, FEATURES) if tokens else None
        made = getattr(nn, f"{cell}Cell")
        self.cells = nn.ModuleList([made(WIDTH if index else FEATURES, WIDTH) for index in range(layers)])
        self.norm = nn.LayerNorm(WIDTH) if norm else None
        self.first = nn.Parameter(torch.randn(WIDTH))
        self.head = nn.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) if self.embedding is not None else x
        x = x.transpose(0, 1) if self.batch_first else x
        states: list[Any] = [self.begin(x) for _ in self.cells]
        rows: list[Tensor] = []
        for step in reversed(range(x.shape[0])) if self.backward else range(x.shape[0]):
            y = x[step]
            if self.feedback and rows:
                y = y + rows[-1].sum(1, keepdim=True)
            for index, cell in enumerate(self.cells):
                states[index] = self.after(cell(y, states[index]))
                y = states[index][0] if self.is_lstm else states[index]
            rows.append(self.head(y))
        return rows[-1] if self.last else torch.stack(rows, 1 if self.batch_first else 0)

    def begin(self, x: Tensor) -> Any:
        if self.start == "none":
            return None
        row = {
            "zeros": torch.zeros(x.shape[1], WIDTH),
            "learned": self.first.expand(x.shape[1], WIDTH),
            "computed": x[0, :, :WIDTH],
        }[self.start]
        return (row, row) if self.is_lstm else row

    def after(self, state: Any) -> Any:
        if self.norm is None:
            return state
        return (self.norm(state[0]), state[1]) if self.is_lstm else self.norm(state)


def session_of(foreign: Foreign) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        foreign.graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_steps(foreign: Foreign, data: Array) -> list[Array]:
    """A plain loop over the graph of one time step: the outputs of every step, by output."""
    session = session_of(foreign)
    names = [one.name for one in session.get_outputs()]
    widths = {one.name: one.shape[1] for one in session.get_inputs()}
    states: Mapping[str, Array] = {
        name: np.tile(foreign.starts.get(name, np.zeros(widths[name], np.float32)), (len(data), 1))
        for name, _ in foreign.states
    }
    first = next(one.name for one in session.get_inputs() if one.name not in states)
    rows: list[list[Array]] = []
    for step in range(data.shape[1]):
        found = dict(zip(names, session.run(None, {first: data[:, step : step + 1], **states}), strict=True))
        states = {name: found[after] for name, after in foreign.states}
        rows.append([one for name, one in found.items() if name not in dict(foreign.states).values()])
    return [np.stack([row[index] for row in rows], 1) for index in range(len(rows[0]))]
