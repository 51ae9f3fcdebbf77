"""Reads weights from files of torch.save, without running anything that the file says.

torch.load(weights_only=True) builds tensors, numbers, texts and containers alone. A pickled module, or an
archive of torch.jit.save, would run its code: both are refused with what to do.
"""

import pickle
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.convert.foreign import Refused
from training.convert.pytorch.calls import described

# Where training programs put the weights beside optimizer and counters.
KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
# DataParallel puts the first before every name, torch.compile the second before those of what it compiled.
PARALLEL, COMPILED = "module.", "_orig_mod."
MAX_BYTES = 8 << 30
SAVE = "torch.save(module.state_dict(), 'weights.pt')"
MAX_NAMED = 5
_REFUSED_TYPE = re.compile(r"Unsupported global: GLOBAL ([\w.]{1,100})")

Weights = Mapping[str, Tensor]


def load_checkpoint(path: Path) -> Weights:
    """Read the weights of a checkpoint, which stand at its top or under one of the usual keys.

    Raises:
        Refused: it cannot be read without running code, is damaged, or holds no weights.
    """
    _check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refused(
            f"{path.name}: expected tensors alone, found {_object(error)} that only running the file's code "
            "could build",
            f"save the weights alone with {SAVE}, and name the class that builds the module",
        ) from error
    except Exception as error:
        raise Refused(
            f"{path.name}: expected a whole file of torch.save, found {described(error)}",
            f"write it anew with {SAVE}",
        ) from error
    return _weights(content, path.name)


def load_into(module: nn.Module, path: Path) -> None:
    """Load a checkpoint into a module, every weight of it.

    Raises:
        Refused: it cannot be read, or its names and shapes are not those of the module.
    """
    weights = fitting(load_checkpoint(path), module)
    problem = _mismatch(weights, module.state_dict())
    if problem:
        raise Refused(
            f"{path.name}: expected the weights of {type(module).__name__}, found {problem}",
            "build the module with the sizes that it was trained with",
        )
    try:
        module.load_state_dict(dict(weights))
    except Exception as error:
        raise Refused(
            f"{path.name}: expected the weights of {type(module).__name__}, found {described(error)}"
        ) from error


def refusal_of_file(path: Path) -> Refused:
    """Return why a .pt or .pth file alone cannot be converted, and what to do."""
    try:
        load_checkpoint(path)
    except Refused as error:
        return error
    return Refused(
        f"{path.name}: expected the module that the weights belong to, found weights alone",
        f"name the class or function that builds it: package.module:function --checkpoint {path.name}",
    )


def fitting(weights: Weights, module: nn.Module) -> Weights:
    """Take off the prefixes that training programs put before names, where the module has none of them."""
    wanted = set(module.state_dict())
    if wanted == set(weights):
        return weights
    weights = {name.replace(COMPILED, ""): one for name, one in weights.items()}
    while weights and wanted != set(weights) and all(name.startswith(PARALLEL) for name in weights):
        weights = {name.removeprefix(PARALLEL): one for name, one in weights.items()}
    return weights


def _object(error: pickle.UnpicklingError) -> str:
    """Return what torch refused to build, by its type where torch names one."""
    name = _REFUSED_TYPE.search(str(error))
    return f"an object ({name[1]})" if name else "an object"


def _check_file(path: Path) -> None:
    """Refuse what is no regular file of bounded size, and archives that torch.save did not write."""
    try:
        found = path.stat()
    except OSError as error:
        raise Refused(f"{path.name}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{path.name}: expected a regular file")
    if found.st_size > MAX_BYTES:
        raise Refused(f"{path.name}: expected at most {MAX_BYTES} bytes, found {found.st_size}")
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Refused(
            f"{path.name}: expected a whole file of torch.save, found {described(error)}",
            f"write it anew with {SAVE}",
        ) from error
    _check_members(path.name, members)


def _check_members(name: str, members: list[zipfile.ZipInfo]) -> None:
    if any(one.filename.partition("/")[2] == "constants.pkl" for one in members):
        raise Refused(
            f"{name}: expected weights, found an archive of torch.jit.save, whose code loading it would run",
            f"save the weights of the module it was made from with {SAVE}, and name its class",
        )
    # torch.save compresses nothing, so that a small file cannot become a large one.
    packed = [one.filename for one in members if one.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise Refused(f"{name}: expected members that are stored, found {packed[0]!r} compressed")


def _weights(content: Any, name: str) -> Weights:
    inner = [content.get(key) for key in KEYS] if isinstance(content, Mapping) else []
    for one in (content, *inner):
        if _is_weights(one):
            return dict(one)
    found = (
        f"the keys {_listed([str(key) for key in content])}"
        if isinstance(content, Mapping) and content
        else f"{type(content).__name__}"
    )
    raise Refused(
        f"{name}: expected weights by name at the top or under {', '.join(KEYS)}, found {found}",
        f"save the weights with {SAVE}",
    )


def _is_weights(value: Any) -> bool:
    """Tell whether an object is a mapping of names to tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) for key in value)
        and all(isinstance(one, Tensor) for one in value.values())
    )


def _mismatch(weights: Weights, wanted: Mapping[str, Any]) -> str:
    missing = [name for name in wanted if name not in weights]
    unexpected = [name for name in weights if name not in wanted]
    shapes = [
        f"{name} of shape {tuple(weights[name].shape)} instead of {tuple(one.shape)}"
        for name, one in wanted.items()
        if name in weights and isinstance(one, Tensor) and weights[name].shape != one.shape
    ]
    parts = []
    if missing:
        parts.append(f"no {_listed(missing)}")
    if unexpected:
        parts.append(f"{_listed(unexpected)} that it does not have")
    return " and ".join(parts + ([_listed(shapes)] if shapes else []))


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
