"""Weights come from checkpoints as training programs write them, and nothing in a file is run."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.convert.pytorch.networks import Network
from training.convert.foreign import Refused
from training.convert.pytorch import load_checkpoint, read_module
from training.convert.pytorch.checkpoint import KEYS, load_into
from training.convert.ways import read


def saved(content: Any, folder: Path) -> Path:
    path = folder / "weights.pt"
    torch.save(content, path)
    return path


def prefixed(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: one for name, one in module.state_dict().items()}


@pytest.mark.parametrize("key", [None, *KEYS])
def test_weights_are_found_at_the_top_and_under_usual_keys(key: str | None, tmp_path: Path) -> None:
    weights = Network().state_dict()
    content = weights if key is None else {"epoch": 3, "optimizer": {"lr": 0.1}, key: weights}
    found = load_checkpoint(saved(content, tmp_path))
    assert all(torch.equal(found[name], one) for name, one in weights.items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(prefix: str, tmp_path: Path) -> None:
    given, module = Network(), Network()
    load_into(module, saved(prefixed(given, prefix), tmp_path))
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), given.parameters(), strict=True))


def test_prefix_that_the_module_has_itself_stays(tmp_path: Path) -> None:
    given, module = (nn.ModuleDict({"module": nn.Linear(2, 3)}) for _ in range(2))
    load_into(module, saved(given.state_dict(), tmp_path))
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), given.parameters(), strict=True))


def test_older_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(Network().state_dict(), path, _use_new_zipfile_serialization=False)
    assert "head.weight" in load_checkpoint(path)


def test_read_module_leaves_the_given_weights_alone(tmp_path: Path) -> None:
    module, trained = Network(), Network()
    before = [one.clone() for one in module.parameters()]
    foreign = read_module(module, checkpoint=saved(trained.state_dict(), tmp_path))
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), before, strict=True))
    tokens = np.arange(5).reshape(1, 5)
    assert foreign.oracle is not None
    with torch.no_grad():
        assert np.array_equal(foreign.oracle({"x": tokens})[0], trained(torch.from_numpy(tokens)).numpy())
    assert foreign.source.file == "weights.pt"


def test_missing_unexpected_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    weights = dict(Network().state_dict())
    weights["extra"] = weights.pop("head.bias")
    weights["head.weight"] = torch.zeros(4, 5)
    reason = (
        "expected the weights of Network, found no head.bias and extra that it does not have and "
        r"head.weight of shape \(4, 5\) instead of \(3, 5\)"
    )
    with pytest.raises(Refused, match=reason):
        load_into(Network(), saved(weights, tmp_path))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for content, kind in (
        (Network(), r"tests\.training\.convert\.pytorch\.networks\.Network"),
        ({"state_dict": Network().state_dict(), "config": Trap(sprung)}, r"pathlib\.Path\.touch|getattr"),
    ):
        reason = rf"found an object \(.*({kind})\) that only running the file's code could build"
        with pytest.raises(Refused, match=reason) as refusal:
            load_checkpoint(saved(content, tmp_path))
        assert "torch.save(module.state_dict(), 'weights.pt')" in refusal.value.advice
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(Refused):
        load_checkpoint(plain)
    assert not sprung.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_archive_of_torch_jit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.script(nn.GRU(3, 4)), str(path))
    with pytest.raises(
        Refused, match=r"found an archive of torch\.jit\.save, whose code loading it would run"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = saved(Network().state_dict(), tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(Refused, match=r"weights\.pt: expected"):
        load_checkpoint(path)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    path = saved(Network().state_dict(), tmp_path)
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for member in one.namelist():
            other.writestr(member, one.read(member))
    with pytest.raises(Refused, match="expected members that are stored"):
        load_checkpoint(packed)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "ema": {"a": torch.zeros(1)}}, "found the keys epoch, ema"),
        (torch.zeros(3), "found Tensor"),
        ({}, "found dict"),
        ({"state_dict": {}}, "found the keys state_dict"),
    ],
    ids=["unusual key", "tensor", "empty", "empty state dict"],
)
def test_file_without_weights_is_refused(content: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"expected weights by name at the top or under state_dict.*{found}"):
        load_checkpoint(saved(content, tmp_path))


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read: No such file"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(Refused, match="expected a regular file"):
        load_checkpoint(tmp_path)


def test_weights_alone_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="found weights alone") as refusal:
        read(saved(Network().state_dict(), tmp_path), tmp_path)
    assert refusal.value.advice.endswith("package.module:function --checkpoint weights.pt")
