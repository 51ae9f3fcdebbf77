"""Trains in float32, or for the most part in 16 bits (Micikevicius et al. 2018).

Weights and optimiser stay in float32.

Development and held-out parts are always measured in float32, since that is what is exported.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]

HALVES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def chosen(choice: PrecisionChoice, device: str) -> Precision:
    """Return the precision of a choice; auto: fp32 on a CPU; on CUDA bf16 where the GPU has it, else fp16."""
    if choice != "auto":
        return choice
    if device == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def computed_in(precision: Precision, device_type: str, losses: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield the losses, their forward passes computed in a precision.

    Args:
        precision: of the operations that bear it; sums and losses stay in float32.
        device_type: "cpu" or "cuda".
        losses: each computed when it is asked for.
    """
    if precision == "fp32":
        yield from losses
        return
    while True:
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(device_type, HALVES[precision]))
            if device_type == "cpu":
                # oneDNN has no 16-bit LSTM for training on many processors and fails; PyTorch's own cells do.
                stack.enter_context(_without_onednn())
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


def gradient_scaler(precision: Precision, device_type: str) -> torch.amp.GradScaler:
    """Return a scaler that keeps gradients in the range of float16; in other precisions it does nothing."""
    return torch.amp.GradScaler(device_type, enabled=precision == "fp16")


@contextmanager
def _without_onednn() -> Iterator[None]:
    # Not flags(): it also sets what PyTorch warns of.
    before = torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])  # type: ignore[no-untyped-call]
