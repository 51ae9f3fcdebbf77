"""Modules are built by functions that the user names, and what goes wrong there is shown."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.convert.foreign import Refused
from training.convert.pytorch import is_name, read_named

SOURCE = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        self.recurrent = nn.GRU(4, width, batch_first=True)
    def forward(self, x):
        return self.recurrent(x)[0]

class Sized(Model):
    def __init__(self, width):
        super().__init__(width)

module = Model()
def plain(): return Model()
def with_examples(): return Model(), torch.zeros(2, 9, 4)
def with_named_examples(): return Model(), {"x": torch.zeros(2, 9, 4)}
def needs(path): return Model()
def raises(): raise FileNotFoundError("config.yml is missing\\nsecond line")
def leaves(): raise SystemExit(3)
def number(): return 7
def pair(): return 7, Model()
class Holder:
    build = staticmethod(plain)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the user's modules."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign_nets").mkdir()
    (tmp_path / "foreign_nets" / "nets.py").write_text(SOURCE)
    (tmp_path / "foreign_nets" / "broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "foreign_nets" / "wrong.py").write_text("def (:\n")
    yield tmp_path
    for name in [one for one in sys.modules if one.split(".")[0] == "foreign_nets"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "function", ["plain", "with_examples", "with_named_examples", "Model", "module", "Holder.build"]
)
def test_named_module_is_read(function: str, folder: Path) -> None:
    foreign = read_named(f"foreign_nets.nets:{function}")
    assert foreign.source.file == f"foreign_nets.nets:{function}"
    assert any("example inputs" in one for one in foreign.assumed) == ("examples" not in function)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("foreign_nets.nets", "expected a name of the form package.module:function"),
        ("foreign_nets.nets:plain()", "expected a name of the form package.module:function"),
        ("foreign_nets.none:plain", "found ModuleNotFoundError: No module named 'foreign_nets.none'"),
        ("foreign_nets.broken:plain", "found ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("foreign_nets.wrong:plain", "found SyntaxError"),
        ("foreign_nets.nets:plian", "expected 'plian' in foreign_nets.nets, found only .*plain"),
        ("foreign_nets.nets:raises", "found FileNotFoundError: config.yml is missing;"),
        ("foreign_nets.nets:leaves", "found SystemExit: 3"),
        ("foreign_nets.nets:needs", "found TypeError: needs.* missing 1 required positional argument"),
        ("foreign_nets.nets:Sized", "found TypeError: .* missing 1 required positional argument: 'width'"),
        ("foreign_nets.nets:number", "expected a function that returns an nn.Module, .* found int"),
        ("foreign_nets.nets:pair", "found a tuple of int, Model"),
    ],
)
def test_what_a_name_does_not_give_is_said(name: str, reason: str, folder: Path) -> None:
    with pytest.raises(Refused, match=reason):
        read_named(name)


def test_checkpoint_is_loaded_into_the_named_module(folder: Path) -> None:
    weights = {
        f"module.recurrent.{name}": torch.full(shape, 0.25)
        for name, shape in {
            "weight_ih_l0": (15, 4),
            "weight_hh_l0": (15, 5),
            "bias_ih_l0": (15,),
            "bias_hh_l0": (15,),
        }.items()
    }
    path = folder / "best.ckpt"
    torch.save({"state_dict": weights, "epoch": 7}, path)
    foreign = read_named("foreign_nets.nets:plain", checkpoint=path)
    assert foreign.oracle is not None
    (found,) = foreign.oracle({"x": torch.zeros(1, 1, 4).numpy()})
    gate = torch.sigmoid(torch.tensor(0.5))
    assert found.flatten() == pytest.approx(((1 - gate) * torch.tanh(0.25 + gate * 0.25)).expand(5).numpy())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b:c", True), ("a:c.d", True), ("a.onnx", False), ("C:/a.onnx", False), ("a:", False), (":b", False)],
)
def test_names_are_told_from_files(text: str, expected: bool) -> None:
    assert is_name(text) is expected
