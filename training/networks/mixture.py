"""A network whose distribution is mixed with that of an n-gram.

On little text a network and an n-gram err on different tokens: what a network has not learned yet, an n-gram
has seen. The distribution that is served is weight * network + (1 - weight) * n-gram, in probabilities, and
the output is its logarithm. The weight depends on how much the n-gram has seen: on the length of the longest
context that it knows, and on how often that occurred.

A state tensor more holds the numbers of the contexts, integers below 2**24, which float32 holds exactly. They
follow from the tokens alone, so the same text has the same bits however it is cut.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.networks.network import RecurrentNetwork, State
from training.networks.ngram import EMPTY, UNSEEN, NgramTable

CONTEXT_STATE = "ngram.contexts"
# Counts of the longest known context from which on another weight applies.
COUNT_STEPS = (2, 4, 16)
# Stands for the count of a context where none is known.
NO_COUNT = float(1 << 24)
# Turns of the expectation maximisation; the first half of them fits one weight for all kinds.
_TURNS = 60
# Tokens of the prior in favour of that one weight.
_PRIOR = 30.0


class Evidence(NamedTuple):
    """What an n-gram says after each of some contexts.

    Attributes:
        probabilities: float32 (..., V).
        kind: int64 (...), which weight applies: 0..kinds_of(order)-1.
    """

    probabilities: Tensor
    kind: Tensor


def kinds_of(order: int) -> int:
    """Return the number of weights that a mixture with an n-gram of this order has."""
    return order * (len(COUNT_STEPS) + 1)


def unigram_of(table: NgramTable) -> NDArray[np.float32]:
    """Return what the n-gram says without a context: float32 (V,)."""
    nothing = np.full((1, table.order - 1), UNSEEN, np.int32)
    unigram: NDArray[np.float32] = table.probabilities(nothing)[0].astype(np.float32)
    return unigram


class MixedNetwork(RecurrentNetwork):
    """A trained network and an n-gram; its hidden states carry the contexts behind the network's own.

    Args:
        network: trained, with token input and a head as wide as the vocabulary.
        table: n-grams over the same tokens, of order 2 or more.
        weights: float32 (kinds_of(order),) in 0..1, of the network's distribution.
    """

    base: Tensor
    context: Tensor
    count: Tensor
    unigram: Tensor
    weights: Tensor

    def __init__(self, network: RecurrentNetwork, table: NgramTable, weights: NDArray[np.float32]) -> None:
        assert network.config.vocabulary == network.config.outputs == table.vocabulary
        super().__init__(network.config)
        self.load_state_dict(network.state_dict())
        self.to(next(network.parameters()).device)
        self.table = table
        device = next(network.parameters()).device
        for name, value in {
            "base": table.base,
            "context": table.context,
            "count": table.count,
            "unigram": unigram_of(table),
            "weights": weights,
        }.items():
            self.register_buffer(name, torch.from_numpy(value.copy()).to(device))
        self.eval()

    @property
    def state_sizes(self) -> tuple[tuple[str, int], ...]:
        """Return the names and widths of the state tensors, that of the contexts last."""
        return (*super().state_sizes, (CONTEXT_STATE, self.table.order - 1))

    def forward(
        self, inputs: Tensor, lengths: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run a batch of sequences, as the network does.

        Returns:
            Hidden states with the contexts behind them, float32 (B, T, H + order - 1), and the state after
            each row's last valid step.
        """
        hidden, after = super().forward(inputs, lengths, None if state is None else state[:-1])
        before = self._nothing(len(inputs)) if state is None else state[-1]
        contexts = self._contexts(inputs, before)
        ends = (
            contexts[:, -1]
            if lengths is None
            else contexts[torch.arange(len(inputs)), lengths.to(contexts.device).long() - 1]
        )
        return torch.cat([hidden, contexts], 2), [*after, ends]

    def outputs_of(self, hidden: Tensor) -> Tensor:
        """Return the logarithms of the mixed probabilities: (..., H + order - 1) -> float32 (..., V)."""
        logits, said = self.own_logits(hidden), self.evidence(hidden[..., self.config.hidden :])
        weight = self.weights[said.kind][..., None]
        return (weight * logits.float().softmax(-1) + (1 - weight) * said.probabilities).log()

    def own_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the network alone, from hidden states with contexts behind them."""
        return super().outputs_of(hidden[..., : self.config.hidden])

    def evidence(self, contexts: Tensor) -> Evidence:
        """Return what the n-gram says after contexts, float32 (..., order - 1)."""
        numbers = contexts.long()[..., None]  # (..., order - 1, 1)
        places = self.base[numbers].long() + torch.arange(self.config.vocabulary, device=contexts.device)
        counts = self.count[places] * (self.context[places] == numbers)  # (..., order - 1, V)
        total = counts.sum(-1, keepdim=True)
        followers = (counts > 0).float().sum(-1, keepdim=True)
        is_known = (total > 0).float()
        lost = followers + (1 - is_known)  # an unknown context says what the shorter one says
        own, share = counts / (total + lost), lost / (total + lost)
        given = self.unigram.expand(*contexts.shape[:-1], -1)
        for level in range(contexts.shape[-1]):
            given = own[..., level, :] + share[..., level, :] * given
        depth = is_known[..., 0].sum(-1)
        rarest = torch.where(total > 0, total, NO_COUNT)[..., 0].amin(-1)
        bucket = sum((rarest >= step).float() for step in COUNT_STEPS)
        return Evidence(given, (depth * (len(COUNT_STEPS) + 1) + bucket).long())

    def _nothing(self, rows: int) -> Tensor:
        return torch.full((rows, self.table.order - 1), float(UNSEEN), device=self.base.device)

    def _contexts(self, inputs: Tensor, before: Tensor) -> Tensor:
        """Return the contexts after each step: (B, T), (B, order - 1) -> float32 (B, T, order - 1)."""
        shorter = torch.full_like(inputs, EMPTY)
        levels = []
        for level in range(self.table.order - 1):
            places = self.base[shorter].long() + inputs
            found = torch.where(self.context[places] == shorter, places, UNSEEN)
            levels.append(found)
            shorter = torch.cat([before[:, level : level + 1].long(), found[:, :-1]], 1)
        return torch.stack(levels, 2).float()


def fitted_weights(
    network: NDArray[np.float64], ngram: NDArray[np.float64], kind: NDArray[np.int64], kinds: int
) -> NDArray[np.float32]:
    """Fit the weights of a mixture by expectation maximisation, those of rare kinds close to that of all.

    Args:
        network, ngram: (N,), the probabilities that each gives to the tokens that came.
        kind: (N,), which weight applies to each.
        kinds: number of weights.
    Returns:
        float32 (kinds,).
    """
    weights = np.full(kinds, 0.5)
    for turn in range(_TURNS):
        mixed = weights[kind] * network
        responsibility = mixed / (mixed + (1 - weights[kind]) * ngram)
        overall = responsibility.mean()
        if turn < _TURNS // 2:
            weights[:] = overall
            continue
        sums, sizes = (np.bincount(kind, one, kinds) for one in (responsibility, None))
        weights = (sums + _PRIOR * overall) / (sizes + _PRIOR)
    return weights.astype(np.float32)
