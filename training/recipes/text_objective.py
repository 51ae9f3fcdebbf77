"""Trains a network to predict the next token of a text, of characters or of larger pieces.

The text is cut into parallel streams and read in pieces of `STEPS` tokens, the state carried from piece to
piece and only gradients cut (truncated back-propagation through time, Williams & Peng 1990).
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.loop import parallel
from training.loop.tuning import Tuning
from training.networks.network import RecurrentNetwork, State
from training.recipes.sizes import ROWS, STEPS
from training.recipes.text_losses import mean_loss


class Ids(Protocol):
    """Token ids that are trained on, and those that pick the epoch: integers (N,)."""

    @property
    def train(self) -> Tensor:
        """Return the ids that are trained on."""
        ...

    @property
    def develop(self) -> Tensor:
        """Return the ids that pick the epoch."""
        ...


class NextTokenObjective:
    """Next-token cross-entropy over parallel streams of the training part."""

    def __init__(
        self,
        network: RecurrentNetwork,
        corpus: Ids,
        device: str,
        tuning: Tuning = Tuning(),
        rows: int = ROWS,
    ) -> None:
        self.network = network
        self.device = device
        self.develop_part = corpus.develop
        self.train_part = corpus.train
        longest = max(1, len(corpus.train) // (4 * STEPS))
        self.rows = tuning.batch_or(min(rows, longest), longest)
        self.width = (len(corpus.train) - 1) // self.rows
        self.steps_per_epoch = -(-self.width // STEPS)

    def streams(self) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, (rows, width) each.

        The text is a ring that is cut at a random place into streams side by side.
        """
        ring = torch.roll(self.train_part, int(torch.randint(len(self.train_part), ())))
        size = self.rows * self.width
        return ring[:size].view(self.rows, self.width), ring[1 : size + 1].view(self.rows, self.width)

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002 - the loop has set the epoch's seed
        """Yield the losses of the streams from front to back, cut anew in each epoch."""
        all_inputs, all_targets = self.streams()
        share = parallel.share()
        share.part_ways()
        part = share.part(self.rows)
        state: State | None = None
        for start in range(0, self.width, STEPS):
            inputs = all_inputs[part.rows, start : start + STEPS].to(self.device, torch.long)
            targets = all_targets[part.rows, start : start + STEPS].to(self.device, torch.long)
            hidden, after = self.network(inputs, state=state)
            state = [tensor.detach().float() for tensor in after]
            yield part.weight * cross_entropy(
                self.network.outputs_of(hidden).flatten(0, 1), targets.flatten()
            )

    def develop(self) -> float:
        """Return nats a token over the development part."""
        return mean_loss(self.network, self.develop_part, self.device)
