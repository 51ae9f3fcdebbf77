"""Checks a module before it is converted, and copies it where it is in another precision or place."""

from copy import deepcopy

import torch
from torch import nn

from training.convert.foreign import Refused
from training.convert.pytorch.calls import described


def checked_copy(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module that is converted, and sentences on how it differs from the given one.

    Wrappers of torch.compile and DataParallel are taken off; a module on another device or in another
    precision is copied to float32 on the CPU.

    Raises:
        Refused: it is no module of plain torch, or has layers that cannot be served.
    """
    said: list[str] = []
    module = _unwrapped(module, said)
    _check_layers(module)
    values = [*module.parameters(), *module.buffers()]
    floats = {one.dtype for one in values if one.is_floating_point()} - {torch.float32}
    if floats or any(one.device.type != "cpu" for one in values):
        module = _float_copy(module)
    if floats:
        kinds = ", ".join(sorted(str(one).removeprefix("torch.") for one in floats))
        said.append(
            f"the weights are converted from {kinds} to float32, and so is the original compared with"
        )
    return module, tuple(said)


def _unwrapped(module: nn.Module, said: list[str]) -> nn.Module:
    for name in ("_orig_mod", "module"):
        is_wrapper = name == "_orig_mod" or isinstance(
            module, nn.DataParallel | nn.parallel.DistributedDataParallel
        )
        inner = getattr(module, name, None)
        if is_wrapper and isinstance(inner, nn.Module):
            said.append(f"{type(module).__name__} is taken off the module")
            module = inner
    return module


def _check_layers(module: nn.Module) -> None:
    for name, one in module.named_modules():
        if isinstance(one, torch.jit.ScriptModule):
            raise Refused(
                f"module {shown(name)}: expected an nn.Module, found a ScriptModule",
                "give the module that it was scripted or traced from",
            )
        if getattr(one, "proj_size", 0):
            raise Refused(
                f"layer {shown(name)}: expected an LSTM without projection, found proj_size {one.proj_size}",
                "onnxruntime has no LSTM with a projection: train it with proj_size=0 and a Linear behind it",
            )
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if isinstance(value, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise Refused(f"{name}: expected weights, found a lazy layer", "run the module once before")


def _float_copy(module: nn.Module) -> nn.Module:
    """Copy a module without touching the given one's weights.

    Raises:
        Refused: it cannot be copied.
    """
    try:
        return deepcopy(module).to("cpu", torch.float32)
    except Exception as error:
        raise Refused(
            f"{type(module).__name__}: expected float32 weights on the CPU, or a module that can be copied, "
            f"found {described(error)}",
            "give module.float().cpu()",
        ) from error


def shown(name: str) -> str:
    """Return a submodule's path in quotes, or words for the module itself."""
    return f"'{name}'" if name else "at the top"
