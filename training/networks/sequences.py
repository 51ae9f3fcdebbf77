"""Networks of stacked recurrent layers of any kinds and widths, which contract 2 describes.

An input layer, recurrent layers, pooling over time for those that have one output a sequence, LayerNorm, a
linear head. Arrays are batch first, and state is one tensor a layer and kind, (B, H): what the export
contract calls for. PyTorch's own modules keep state as (1, B, H); the crossing is in `_run_layer` alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.networks.network import CELLS, Cell, State, last_steps

Pooling = Literal["last", "mean", "max"]
FORECAST = "forecast"


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """One recurrent layer.

    Attributes:
        kind: rnn, lstm or gru.
        width: size of its hidden state, of one direction.
        direction: forward, backward, or both.
        nonlinearity: of an rnn: tanh or relu.
    """

    kind: Cell
    width: int
    direction: Literal["forward", "backward", "both"] = "forward"
    nonlinearity: Literal["tanh", "relu"] = "tanh"

    @property
    def num_directions(self) -> int:
        """1, or 2 for both."""
        return 2 if self.direction == "both" else 1

    @property
    def output_width(self) -> int:
        """Values that it gives at a time step."""
        return self.width * self.num_directions

    @property
    def activations(self) -> list[str] | None:
        """ONNX's names of its activation functions where they are not the usual ones."""
        return ["Relu"] * self.num_directions if self.nonlinearity == "relu" else None


@dataclass(frozen=True, slots=True)
class SequenceConfig:
    """The shape of a network.

    Attributes:
        kind: chunk: all layers look forward, and it can be cut anywhere in time; whole: it is run whole.
        layers: recurrent layers, first one first.
        outputs: width of the linear head; 0: none, what is below it comes out.
        vocabulary: number of token ids, for token input; 0 for feature input.
        features: values a time step, for feature input; 0 for token input.
        embedding: width of the embedding (tokens) or of the linear input layer (features; 0: none).
        has_norm: LayerNorm stands before the head.
        pooling: of a whole network, one output a sequence: of each direction's last hidden state, or of the
            mean or maximum over time; None: one output a time step.
        starts: states begin with zeros, or with rows that are learned (chunk).
        initial: names and widths of the inputs that the states begin from (chunk); (): none.
        encoder: whole network with pooling whose output the states begin from (chunk); None: there is no
            encoder.
        is_error: the head forecasts the first `outputs` features of the next step, and what comes out is the
            absolute error of the forecast made one step before, in standard deviations (chunk).
        dropout: share of the values that training drops after the input layer and before the head.
    """

    kind: Literal["chunk", "whole"]
    layers: tuple[LayerConfig, ...]
    outputs: int
    vocabulary: int = 0
    features: int = 0
    embedding: int = 0
    has_norm: bool = False
    pooling: Pooling | None = None
    starts: Literal["zeros", "learned"] = "zeros"
    initial: tuple[tuple[str, int], ...] = ()
    encoder: "SequenceConfig | None" = None
    is_error: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if (self.vocabulary > 0) == (self.features > 0):
            raise ValueError(
                f"either vocabulary or features must be positive, not {self.vocabulary} and {self.features}"
            )
        if self.vocabulary and not self.embedding:
            raise ValueError("token input needs an embedding of at least 1")
        looks_both_ways = self.pooling or any(layer.direction != "forward" for layer in self.layers)
        if self.kind == "chunk" and looks_both_ways:
            raise ValueError("a chunk cell must have forward layers alone and no pooling; make it whole")
        if self.kind == "whole" and (self.starts != "zeros" or self.is_begun or self.is_error):
            raise ValueError("starts, initial, encoder and is_error need a chunk cell, found a whole network")
        if self.encoder is not None and not self.encoder.pooling:
            raise ValueError("an encoder must have pooling, so that a source has one output, found none")
        if self.is_error and not 0 < self.outputs <= self.features:
            raise ValueError(f"is_error needs outputs of 1..{self.features}, found {self.outputs}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, for a checkpoint."""
        return asdict(self)

    @property
    def is_begun(self) -> bool:
        """True if the states at the start of a sequence are computed from something else."""
        return bool(self.initial) or self.encoder is not None

    @property
    def input_width(self) -> int:
        """Values a time step that the first recurrent layer gets."""
        return self.embedding or self.features

    @property
    def output_size(self) -> int:
        """Values of a row that comes out."""
        return self.outputs or self.layers[-1].output_width

    @property
    def states(self) -> tuple[tuple[str, int], ...]:
        """Names and widths of a chunk cell's states, lower layers first; of an LSTM h before c."""
        if self.kind == "whole":
            return ()
        kept = ((FORECAST, self.outputs),) if self.is_error else ()
        return self.layer_states + kept

    @property
    def layer_states(self) -> tuple[tuple[str, int], ...]:
        """Names and widths of the states of the layers."""
        return tuple(
            (f"{layer.kind}{index}.{part}", layer.width)
            for index, layer in enumerate(self.layers)
            for part in (("h", "c") if layer.kind == "lstm" else ("h",))
        )


class SequenceNetwork(nn.Module):
    """The network of a `SequenceConfig`."""

    # Standard deviation of the forecasts' errors, to be set after training; it is a buffer.
    deviation: Tensor

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.input_layer: nn.Module = nn.Identity()
        if config.vocabulary:
            self.input_layer = nn.Embedding(config.vocabulary, config.embedding)
        elif config.embedding:
            self.input_layer = nn.Linear(config.features, config.embedding)
        widths = [config.input_width, *(layer.output_width for layer in config.layers)]
        self.recurrent = nn.ModuleList(
            _recurrent(layer, width) for layer, width in zip(config.layers, widths, strict=False)
        )
        self.norm: nn.Module = nn.LayerNorm(widths[-1]) if config.has_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head: nn.Module = nn.Linear(widths[-1], config.outputs) if config.outputs else nn.Identity()
        given = sum(width for _, width in config.initial)
        self.encoder: SequenceNetwork | None = None
        if config.encoder is not None:
            self.encoder = SequenceNetwork(config.encoder)
            given += config.encoder.output_size
        self.init_layers = nn.ModuleList(
            nn.Linear(given, size) for _, size in config.layer_states if config.is_begun
        )
        self.starts = nn.ParameterList(
            nn.Parameter(torch.zeros(size)) for _, size in config.layer_states if config.starts == "learned"
        )
        self.register_buffer("deviation", torch.ones(max(1, config.outputs)))

    def first_state(
        self,
        rows: int,
        initial: Mapping[str, Tensor] | None = None,
        source: Tensor | None = None,
        source_lengths: Tensor | None = None,
    ) -> State:
        """Return the states at the start of so many sequences.

        Args:
            rows: number of sequences B.
            initial: float32 (B, width) for each of `config.initial`.
            source: what the encoder reads, int64 (B, S) or float32 (B, S, F).
            source_lengths: int64 (B,), valid steps of each source, 1..S; None: all are S.
        Returns:
            One float32 (B, size) for each of `config.states`.
        """
        device = self.deviation.device
        kept = [torch.zeros(rows, self.config.outputs, device=device)] if self.config.is_error else []
        if self.config.is_begun:
            given = torch.cat(self._given(initial or {}, source, source_lengths), 1)
            return [torch.tanh(layer(given)) for layer in self.init_layers] + kept
        if self.starts:
            return [start.expand(rows, -1) for start in self.starts] + kept
        return [torch.zeros(rows, size, device=device) for _, size in self.config.layer_states] + kept

    def _given(
        self, initial: Mapping[str, Tensor], source: Tensor | None, source_lengths: Tensor | None
    ) -> list[Tensor]:
        """Return what the first states are computed from, float32 (B, width) each."""
        given = [initial[name] for name, _ in self.config.initial]
        if self.encoder is not None:
            assert source is not None, "the encoder reads a source"
            given.append(self.encoder(source, source_lengths)[0])
        return given

    def forward(
        self, inputs: Tensor, lengths: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run a batch of sequences.

        Args:
            inputs: int64 (B, T) token ids, or float32 (B, T, F) features.
            lengths: int64 (B,), valid steps of each row, 1..T; None: all are T.
            state: one float32 (B, size) for each of `config.states`; None: the start of the sequences.
        Returns:
            Outputs, float32 (B, T, outputs), or (B, outputs) with pooling; undefined past a row's length. And
            the state after each row's last valid step, of a whole network that of its layers.
        """
        hidden, last, after = self._hidden(inputs, lengths, state)
        outputs: Tensor = self.head(self.dropout(self.norm(self._pooled(hidden, last, lengths))))
        if not self.config.is_error:
            return outputs, after
        before = self.first_state(len(inputs))[-1] if state is None else state[-1]
        shifted = torch.cat([before[:, None], outputs[:, :-1]], 1)  # (B, T, outputs)
        errors = (inputs[..., : self.config.outputs] - shifted).abs() / self.deviation
        final = outputs[:, -1] if lengths is None else last_steps(outputs, lengths)
        return errors, [*after, final]

    def forecasts(self, inputs: Tensor) -> Tensor:
        """Return what the head of an `is_error` network forecasts after each step, (B, T, outputs)."""
        hidden, _, _ = self._hidden(inputs, None, None)
        outputs: Tensor = self.head(self.norm(hidden))
        return outputs

    def _hidden(
        self, inputs: Tensor, lengths: Tensor | None, state: State | None
    ) -> tuple[Tensor, Tensor, State]:
        """Return the last layer's hidden states (B, T, C), its last ones (B, C), and all states after."""
        sequence = self.dropout(self.input_layer(inputs))
        past = list(
            self.first_state(len(inputs)) if state is None and not self.config.is_begun else state or ()
        )
        after: State = []
        last = sequence[:, -1]
        for layer, module in zip(self.config.layers, self.recurrent, strict=True):
            count = 2 if layer.kind == "lstm" else 1
            before = [past.pop(0) for _ in range(count)] if self.config.kind == "chunk" else None
            sequence, states = _run_layer(layer, module, sequence, lengths, before)
            last = states[0]
            after += states
        return sequence, last, after

    def _pooled(self, hidden: Tensor, last: Tensor, lengths: Tensor | None) -> Tensor:
        if self.config.pooling is None:
            return hidden
        if self.config.pooling == "last":
            return last
        if lengths is None:
            return hidden.mean(1) if self.config.pooling == "mean" else hidden.amax(1)
        lengths = lengths.to(hidden.device)
        valid = (torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None])[
            ..., None
        ]  # (B, T, 1)
        if self.config.pooling == "mean":
            return (hidden * valid).sum(1) / lengths[:, None]
        return hidden.masked_fill(~valid, -torch.inf).amax(1)


def _recurrent(layer: LayerConfig, width: int) -> nn.Module:
    extra: dict[str, Any] = {"nonlinearity": layer.nonlinearity} if layer.kind == "rnn" else {}
    return CELLS[layer.kind](
        width, layer.width, batch_first=True, bidirectional=layer.direction == "both", **extra
    )


def _run_layer(
    layer: LayerConfig, module: nn.Module, sequence: Tensor, lengths: Tensor | None, before: State | None
) -> tuple[Tensor, State]:
    """Run one layer; its states after are (B, width x directions), h before c."""
    if layer.direction == "backward":
        sequence = _reversed(sequence, lengths)
    past: Any = None
    if before is not None:
        tensors = tuple(tensor[None].contiguous() for tensor in before)  # (1, B, H) each
        past = tensors if layer.kind == "lstm" else tensors[0]
    if lengths is None:  # PyTorch's packed LSTM takes five times as long
        hidden, after = module(sequence, past)
    else:
        packed = pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, after = module(packed, past)
        hidden, _ = pad_packed_sequence(out, batch_first=True, total_length=sequence.shape[1])
    if layer.direction == "backward":
        hidden = _reversed(hidden, lengths)
    tensors = after if layer.kind == "lstm" else (after,)
    return hidden, [tensor.transpose(0, 1).flatten(1) for tensor in tensors]  # (D, B, H) -> (B, D*H)


def _reversed(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the valid steps of each row in reverse order, (B, T, C); the padding stays where it is."""
    if lengths is None:
        return sequence.flip(1)
    lengths = lengths.to(sequence.device)
    steps = torch.arange(sequence.shape[1], device=sequence.device)
    places = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return sequence.gather(1, places[..., None].expand_as(sequence))
