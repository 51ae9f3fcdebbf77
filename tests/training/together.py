"""What torchrun starts in the tests of training by several processes: a small problem of their own, or the
command with its dropout off.

torchrun --nproc-per-node 2 -m tests.training.together FOLDER [die]
torchrun --nproc-per-node 2 -m tests.training.together command ARGUMENTS...
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from training.errors import TrainingError
from training.loop import parallel
from training.loop.checkpoint import Epoch
from training.loop.fit import build_network, fit
from training.loop.schedule import Schedule
from training.networks.network import NetworkConfig, RecurrentNetwork

CONFIG = NetworkConfig("gru", 1, 8, 3, features=2)
SCHEDULE = Schedule(epochs=3, learning_rate=1e-2)


class Sums:
    """Batches of seven rows and of one, drawn anew in each epoch; a process may end in the second."""

    def __init__(self, network: RecurrentNetwork, trouble: str = "") -> None:
        self.network = network
        self.sizes = (7, 7, 1)
        self.steps_per_epoch = len(self.sizes)
        self.trouble = trouble

    def losses(self, epoch: int) -> Iterator[Tensor]:
        batches = torch.randn(sum(self.sizes), 5, 2).split(self.sizes)  # type: ignore[no-untyped-call]
        share = parallel.share()
        share.part_ways()
        for index, batch in enumerate(batches):
            if epoch == 1 and index == 1 and not share.is_leader and not parallel.restarts():
                self._get_into_trouble()
            part = share.part(len(batch))
            yield part.weight * self._loss(batch[part.rows])

    def _get_into_trouble(self) -> None:
        if self.trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)

    def develop(self) -> float:
        return float(self._loss(torch.linspace(-1, 1, 40).view(4, 5, 2)))

    def _loss(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.network(inputs)
        return (self.network.outputs_of(hidden[:, -1]) - inputs.sum(1)[:, :1]).square().mean()


def train(folder: Path, trouble: str = "") -> list[Epoch]:
    """The small problem, resumed where a checkpoint is; each process starts from weights of its own, which
    the leader's replace.
    """
    torch.set_num_threads(1)
    network = build_network(CONFIG, parallel.share().rank, "cpu")
    history = fit(Sums(network, trouble), SCHEDULE, folder, True, {})
    parallel.share().dismiss_followers()
    print("only the leader is here")
    return history


def main(arguments: list[str]) -> int:
    if arguments[0] == "command":
        from training.__main__ import main as command  # noqa: PLC0415
        from training.recipes import sizes  # noqa: PLC0415

        sizes.SMALL_DROPOUT = (0.0, 0.0)
        sys.argv = ["training", *arguments[1:]]
        return command()
    try:
        with parallel.joined():
            train(Path(arguments[0]), *arguments[1:])
    except (TrainingError, ConnectionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
