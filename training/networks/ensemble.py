"""Joins several networks of one shape into one network, their outputs averaged.

The mean of the logits of a few small networks that differ by their seed alone errs less than each (Hansen &
Salamon 1990). A recurrent network whose matrices are block-diagonal computes exactly that, so an ensemble is
served like any other network. It costs what a network of its width costs.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from training.networks.network import RecurrentNetwork


def side_by_side(networks: Sequence[RecurrentNetwork], weights: Sequence[float] = ()) -> RecurrentNetwork:
    """Return one network whose output is the weighted sum of the outputs of several.

    None of them sees the state of another.

    Args:
        networks: one or more with token input and a head, alike but for their widths.
        weights: of their outputs; (): the mean.
    Returns:
        A network, as wide as all of them together, in evaluation mode on the CPU; the first one itself, where
        it is alone.
    """
    first, configs = networks[0], [network.config for network in networks]
    if len(networks) == 1 and not weights:
        return first
    wide = replace(
        first.config,
        embedding=sum(config.embedding for config in configs),
        hidden=sum(config.hidden for config in configs),
    )
    assert wide.vocabulary
    assert wide.outputs
    assert all(replace(config, embedding=wide.embedding, hidden=wide.hidden) == wide for config in configs)
    joined = RecurrentNetwork(wide)
    shares = weights or [1 / len(networks)] * len(networks)
    widths, states = (
        [config.hidden for config in configs],
        [network.cpu().state_dict() for network in networks],
    )
    joined.load_state_dict(
        {name: _joined(name, [state[name] for state in states], widths, shares) for name in states[0]}
    )
    return joined.eval()


def _joined(name: str, parts: Sequence[Tensor], widths: Sequence[int], shares: Sequence[float]) -> Tensor:
    """Return a parameter of the wide network, made of those of the narrow ones."""
    if name.startswith("head."):
        parts = [share * part for share, part in zip(shares, parts, strict=True)]
    if name.startswith("input_layer."):
        return torch.cat(list(parts), dim=1)  # (V, E) -> (V, members * E)
    if name == "head.weight":
        return torch.cat(list(parts), dim=1)  # (outputs, H)
    if name == "head.bias":
        return torch.stack(list(parts)).sum(dim=0)
    # PyTorch stacks the gates in the first dimension; each gate has the members one after the other.
    gates = [
        part.view(-1, hidden, *part.shape[1:]).unbind(0) for part, hidden in zip(parts, widths, strict=True)
    ]
    if name.startswith("recurrent.bias"):
        return torch.cat([member for gate in zip(*gates, strict=True) for member in gate])
    return torch.cat([torch.block_diag(*gate) for gate in zip(*gates, strict=True)])  # type: ignore[no-untyped-call]
