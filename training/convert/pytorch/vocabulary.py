"""Finds how many token ids a module takes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.convert.foreign import Refused
from training.convert.pytorch.calls import Call, outputs_of
from training.convert.pytorch.watching import watched

# A module that takes ids beyond this takes any, as far as a trial can tell.
MAX_TRIED = 1 << 20


def embedded_ids(module: nn.Module, call: Call) -> int | None:
    """Return the smallest number of rows of the Embedding layers that get a tensor of integers as it is."""
    given = [one for one in call.tensors.values() if not one.is_floating_point()]
    sizes: list[int] = []

    def note(one: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(one, nn.Embedding) and arguments and _is_one_of(arguments[0], given):
            sizes.append(one.num_embeddings)

    with watched(module, nn.Embedding, note):
        outputs_of(module, call, list(call.tensors.values()))
    return min(sizes, default=None)


def tried_ids(module: nn.Module, call: Call, data: int) -> int | None:
    """Find by trial how many ids a module takes that has no Embedding for them, as one that encodes one-hot.

    Args:
        module: the module.
        call: how it is called.
        data: index of the tensor of ids.

    Returns:
        The number of ids; None: it takes any.
    """
    tensors = list(call.tensors.values())
    taken, refused = max(1, int(tensors[data].max()) + 1), MAX_TRIED

    def takes(count: int) -> bool:
        ids = tensors[data].clone()
        ids.view(-1)[0] = count - 1
        try:
            outputs_of(module, call, [*tensors[:data], ids, *tensors[data + 1 :]])
        except Refused:
            return False
        return True

    if takes(refused):
        return None
    while refused - taken > 1:
        middle = min(2 * taken, (taken + refused) // 2)
        taken, refused = (middle, refused) if takes(middle) else (taken, middle)
    return taken


def _is_one_of(value: Tensor, given: Sequence[Tensor]) -> bool:
    return any(value.numel() == one.numel() and torch.equal(value.flatten(), one.flatten()) for one in given)
