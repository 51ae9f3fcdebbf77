"""Several networks of one shape as one network: side by side, none seeing another's state, their outputs averaged.

The mean of the logits of a few small networks that differ by their seed alone errs less than each (Hansen & Salamon 1990). A recurrent network whose
matrices are block-diagonal computes exactly that, so an ensemble is served like any other network. It costs what a network of its width costs.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from training.network import RecurrentNetwork


def side_by_side(networks: Sequence[RecurrentNetwork]) -> RecurrentNetwork:
    """One network whose output is the mean of the outputs of several.

    Args:
        networks: one or more, of one configuration, with token input and a head.
    Returns:
        A network, as wide as all of them together, in evaluation mode on the CPU; the first one itself, where it is alone.
    """
    first, count = networks[0], len(networks)
    if count == 1:
        return first
    config = first.config
    assert config.vocabulary
    assert config.outputs
    assert all(network.config == config for network in networks)
    joined = RecurrentNetwork(replace(config, embedding=count * config.embedding, hidden=count * config.hidden))
    weights = [network.cpu().state_dict() for network in networks]
    joined.load_state_dict({name: _joined(name, [one[name] for one in weights], config.hidden) for name in weights[0]})
    return joined.eval()


def _joined(name: str, parts: Sequence[Tensor], hidden: int) -> Tensor:
    """A parameter of the wide network from those of the narrow ones."""
    if name.startswith("input_layer."):
        return torch.cat(list(parts), dim=1)  # (V, E) -> (V, members * E)
    if name == "head.weight":
        return torch.cat(list(parts), dim=1) / len(parts)
    if name == "head.bias":
        return torch.stack(list(parts)).mean(dim=0)
    # PyTorch stacks the gates in the first dimension; each gate has the members one after the other.
    gates = [part.view(-1, hidden, *part.shape[1:]).unbind(0) for part in parts]
    if name.startswith("recurrent.bias"):
        return torch.cat([member for gate in zip(*gates, strict=True) for member in gate])
    return torch.cat([torch.block_diag(*gate) for gate in zip(*gates, strict=True)])  # type: ignore[no-untyped-call]
