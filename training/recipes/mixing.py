"""Decides on the development part whether a language model is served mixed with an n-gram.

The n-gram counts the training part alone. The weights of the mixture are fitted on the development part, too,
so its gain there is measured by weights that were fitted on other pieces of it.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.networks.mixture import MixedNetwork, fitted_weights, kinds_of
from training.networks.network import RecurrentNetwork, State
from training.networks.ngram import count_ngrams

ORDER = 5
# Of the n-gram's table, which is part of the exported graph.
MAX_BYTES = 4 << 20
# Tokens side by side whose gains are alike, taken as one observation.
BLOCK = 64
# The gain must be so many standard errors above zero.
STANDARD_ERRORS = 2.0
# Larger vocabularies are not mixed: each step looks up every token in a context of each length.
MAX_VOCABULARY = 1024
_FEWEST_BLOCKS = 8
_PIECE = 2000


class Mixing(NamedTuple):
    """What was chosen.

    Attributes:
        network: mixed or as it was.
        gain: what mixing saves on the development part, nats a token.
        error: its standard error.
        share: mean weight of the network in the mixture.
    """

    network: RecurrentNetwork
    gain: float
    error: float
    share: float

    @property
    def is_mixed(self) -> bool:
        """Return whether mixing helped beyond chance."""
        return isinstance(self.network, MixedNetwork)

    def __str__(self) -> str:
        found = f"{self.gain:+.4f} ± {self.error:.4f} nats a token on the development part"
        if not self.is_mixed:
            return f"n-gram: left out: mixing it in brings {found}"
        return f"n-gram: mixed in, {100 * (1 - self.share):.0f} % {ORDER}-gram on average: it brings {found}"


class _Given(NamedTuple):
    """Probabilities of the tokens of the development part.

    Attributes:
        network, ngram: float64 (N,).
        kind: int64 (N,), which weight applies.
    """

    network: NDArray[np.float64]
    ngram: NDArray[np.float64]
    kind: NDArray[np.int64]

    def pick(self, chosen: NDArray[np.bool_]) -> "_Given":
        return _Given(self.network[chosen], self.ngram[chosen], self.kind[chosen])


def mix(network: RecurrentNetwork, train: Tensor, develop: Tensor) -> Mixing:
    """Mix a network with the n-gram of its training part, if that helps on the development part.

    Args:
        network: trained, with tokens in and logits of as many out.
        train: (N,) token ids, counted.
        develop: (M,) token ids, which decide.
    Returns:
        The network that is to be served, and what mixing brings.
    """
    vocabulary = network.config.vocabulary
    table = count_ngrams(train.long().numpy(), vocabulary, ORDER, MAX_BYTES)
    kinds = kinds_of(ORDER)
    mixed = MixedNetwork(network, table, np.full(kinds, 0.5, np.float32))
    given = _probabilities(mixed, develop)
    size = len(given.kind)
    blocks = np.arange(size) // min(BLOCK, max(1, size // _FEWEST_BLOCKS))
    gains = np.zeros(len(blocks))
    for fold in (0, 1):
        is_other = blocks % 2 == fold
        weights = fitted_weights(*given.pick(~is_other), kinds)
        gains[is_other] = _gains(given.pick(is_other), weights)
    means = np.bincount(blocks, gains) / np.bincount(blocks)
    gain, error = (
        float(gains.mean()),
        float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else np.inf,
    )
    weights = fitted_weights(*given, kinds)
    share = float(weights[given.kind].mean())
    if not gain > STANDARD_ERRORS * error:
        return Mixing(network, gain, error, share)
    return Mixing(MixedNetwork(network, table, weights), gain, error, share)


def _gains(given: _Given, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what mixing saves at each token, nats."""
    weight = weights[given.kind].astype(np.float64)
    mixed = weight * given.network + (1 - weight) * given.ngram
    result: NDArray[np.float64] = np.log(mixed) - np.log(given.network)
    return result


def _probabilities(mixed: MixedNetwork, ids: Tensor) -> _Given:
    """Return what network and n-gram say of tokens 2..N of a text."""
    width, device = mixed.config.hidden, mixed.weights.device
    state: State | None = None
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(ids) - 1, _PIECE):
            inputs = ids[start : min(start + _PIECE, len(ids) - 1)].to(device, torch.long)
            targets = ids[start + 1 : start + 1 + len(inputs)].to(device, torch.long)[:, None]
            hidden, state = mixed(inputs[None], state=state)
            own = mixed.own_logits(hidden[0]).double().softmax(-1)
            said = mixed.evidence(hidden[0, :, width:])
            found.append(
                (own.gather(1, targets)[:, 0], said.probabilities.gather(1, targets)[:, 0], said.kind)
            )
    network, ngram, kind = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    # A probability of a token that came is never zero but by underflow.
    tiny = np.finfo(np.float64).tiny
    return _Given(np.maximum(network, tiny), ngram.astype(np.float64), kind)
