"""Modules that were read end on the rung that their kind calls for, proven against the module."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from tests.training.convert.pytorch.networks import Loop, Network, Packed, PackedAnyOrder, WithState
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.pytorch import read_module

TOLERANCE = 2e-5


@pytest.mark.parametrize(
    ("module", "kind", "states"),
    [
        (Network(layers=2, batch_first=False), "chunk", 4),
        (Network("GRU", tokens=False, last="hidden"), "chunk", 1),
        (Network(both=True, last="hidden"), "whole", 0),
        (Network(last="attention"), "whole", 0),
        (Packed(last="hidden"), "chunk", 2),
        (PackedAnyOrder(), "chunk", 2),
        (WithState("GRU"), "chunk", 2),
        (Loop("GRU", layers=1, tokens=True), "chunk", 1),
        (Loop("LSTM", layers=1, norm=True, start="learned"), "chunk", 2),
    ],
    ids=[
        "layers, time first",
        "last hidden state",
        "both directions",
        "attention",
        "sorted pack",
        "pack",
        "states as arguments",
        "loop over cells",
        "loop that changes states between steps",
    ],
)
def test_module_is_converted(module: nn.Module, kind: str, states: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    converted = climb(read_module(module, folder=tmp_path), Choices(), tmp_path)
    assert converted.kind == kind
    assert len(converted.states) == states
    assert converted.difference <= TOLERANCE


@pytest.mark.parametrize("module", [Network(), Loop("GRU", layers=1)], ids=["whole", "loop over cells"])
def test_large_weights_go_into_the_file_of_the_folder(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.convert.graph.weights._MIN_BYTES", 256)
    found = read_module(module, folder=tmp_path).graph.graph.initializer
    within = [one for one in found if one.data_location != onnx.TensorProto.EXTERNAL]
    assert len(within) < len(found)
    assert all(one.ByteSize() < 512 for one in within)
    assert not any(one.external_data for one in read_module(module).graph.graph.initializer)


@pytest.mark.parametrize("made", [Packed, PackedAnyOrder])
@pytest.mark.parametrize("last", ["every", "hidden"])
def test_pack_of_both_directions_is_whole_with_lengths(made: type[Packed], last: str, tmp_path: Path) -> None:
    """A pack that sorts the rows has lengths of its own, in that order."""
    torch.manual_seed(0)
    network = made(both=True, last=last)  # type: ignore[arg-type]
    converted = climb(read_module(network, folder=tmp_path), Choices(), tmp_path)
    assert (converted.kind, converted.padding) == ("whole", "lengths")
