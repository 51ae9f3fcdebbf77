"""Exports PyTorch modules as their users would, without the warnings of the exporter."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


def export(
    module: nn.Module,
    examples: Sequence[Tensor],
    path: Path,
    inputs: Sequence[str] = ("inputs",),
    outputs: Sequence[str] = ("outputs",),
    dynamic: dict[str, dict[int, str]] | None = None,
) -> Path:
    """Write a module as an ONNX file by the tracing exporter, batch and time of the first tensors dynamic."""
    axes = {0: "batch", 1: "time"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(examples),
            str(path),
            dynamo=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={inputs[0]: axes, outputs[0]: axes} if dynamic is None else dynamic,
        )
    return path
