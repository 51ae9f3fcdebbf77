"""Encoders and decoders: a chunk cell, and the encoder as the graph of its first states."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.training.convert.exporting import export
from training.convert.converted import Converted
from training.convert.foreign import Refused
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.joining import join
from training.convert.original.reading import read_onnx

SOURCES, TARGETS, WIDTH = 11, 9, 8


class Translator(nn.Module):
    """An encoder, one way or both, and a decoder that begins with its end; with attention if asked."""

    def __init__(self, both: bool = False, attends: bool = False) -> None:
        super().__init__()
        self.attends = attends
        self.read, self.write = nn.Embedding(SOURCES, 6), nn.Embedding(TARGETS, 5)
        self.encoder = nn.GRU(6, WIDTH, batch_first=True, bidirectional=both)
        self.bridge = nn.Linear(WIDTH * (2 if both else 1), WIDTH)
        self.decoder = nn.LSTM(5, WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, TARGETS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        outputs, hidden = self.encoder(self.read(source))
        first = torch.tanh(self.bridge(hidden.transpose(0, 1).flatten(1)))
        state = torch.stack([first, -first])
        found, _ = self.decoder(self.write(target), (state, torch.zeros_like(state)))
        if self.attends:
            weights = torch.softmax(found @ outputs.transpose(1, 2), -1)
            found = found + weights @ outputs
        return self.head(found)  # type: ignore[no-any-return]


def converted(network: Translator, folder: Path, with_lengths: bool = False) -> Converted:
    examples = [torch.ones(1, 4, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64)]
    names = ["source", "target"]
    dynamic = {name: {0: "batch", 1: f"{name}_steps"} for name in names}
    dynamic["logits"] = {0: "batch", 1: "target_steps"}
    file = export(network, examples, folder / "network.onnx", names, ["logits"], dynamic)
    if with_lengths:
        give_lengths(file)
    return climb(read_onnx(file, folder), Choices(), folder)


def give_lengths(file: Path) -> None:
    """Have the encoder of a file take the lengths of its sources, as a packed sequence is exported."""
    model = onnx.load(str(file))
    encoder = next(node for node in model.graph.node if node.op_type == "GRU")
    encoder.input[4] = "lengths.int32"
    model.graph.node.insert(0, helper.make_node("Cast", ["lengths"], ["lengths.int32"], to=TensorProto.INT32))
    model.graph.input.append(helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]))
    onnx.save(model, str(file))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_an_encoder_becomes_the_graph_of_first_states(both: bool, with_lengths: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    found = converted(Translator(both), tmp_path, with_lengths)
    assert found.kind == "chunk"
    assert found.source is not None
    assert (found.source.kind, found.source.size, found.input.size) == ("tokens", SOURCES, TARGETS)
    assert found.init is not None
    assert [one.name for one in found.init.graph.input] == ["source"]
    # The cells of the decoder start at zero, and are no outputs of the encoder.
    assert {one.name for one in found.init.graph.output} == {"layer0.h", "layer1.h"}
    assert found.difference < 1e-6
    assert all(example.source is not None for example in found.examples)


def test_attention_over_the_source_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    with pytest.raises(Refused, match="attention over a second sequence is not served"):
        converted(Translator(attends=True), tmp_path)


class Reader(nn.Module):
    """An encoder alone, which gives the states of a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.encoder = nn.Embedding(SOURCES, 6), nn.LSTM(6, WIDTH, batch_first=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs, (hidden, cell) = self.encoder(self.read(source))
        return outputs, hidden, cell


class Writer(nn.Module):
    """A decoder that takes its states and gives them back."""

    def __init__(self) -> None:
        super().__init__()
        self.write, self.decoder = nn.Embedding(TARGETS, 5), nn.LSTM(5, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, TARGETS)

    def forward(self, target: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found, (hidden, cell) = self.decoder(self.write(target), (hidden, cell))
        return self.head(found), hidden, cell


@pytest.mark.parametrize("names", [("h", "c"), ("hidden", "cell")])
def test_an_encoder_and_a_decoder_of_two_files_are_joined(names: tuple[str, str], tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = torch.ones(1, 4, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64)
    state = torch.zeros(1, 1, WIDTH)
    reading = export(
        Reader(),
        [source],
        tmp_path / "encoder.onnx",
        ["source"],
        ["outputs", *names],
        {"source": {0: "batch", 1: "steps"}, "outputs": {0: "batch", 1: "steps"}}
        | {name: {1: "batch"} for name in names},
    )
    writing = export(
        Writer(),
        [target, state, state],
        tmp_path / "decoder.onnx",
        ["target", "h", "c"],
        ["logits", "hn", "cn"],
        {"target": {0: "batch", 1: "steps"}, "logits": {0: "batch", 1: "steps"}}
        | {name: {1: "batch"} for name in ("h", "c", "hn", "cn")},
    )
    joined = join(read_onnx(reading, tmp_path), read_onnx(writing, tmp_path), Choices(), tmp_path)
    assert len(joined.assumed) == (0 if names == ("h", "c") else 1)
    found = climb(joined, Choices(), tmp_path)
    assert found.source is not None
    assert found.init is not None
    assert [one.input for one in found.states] == ["layer0.h", "layer0.c"]
    assert found.difference < 1e-6
