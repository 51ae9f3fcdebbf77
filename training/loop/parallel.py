"""Data-parallel training: several processes, started by torchrun, train one network on one row of batches.

Every process draws the same batches in the same order and computes its share of each; the gradients are added
up and every process takes the same step. DistributedDataParallel does that inside one `forward`; here a loss
comes out of several calls (the recurrence, the head), carries state from batch to batch and is weighted by
rows, and the networks are small, so one sum over all gradients after the backward pass is both simpler and
enough.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Result = TypeVar("Result")

# The other processes wait for the leader while it measures the development part; one that died is noticed by
# its closed connection.
PATIENCE = timedelta(hours=12)
# Far from the seeds of other epochs.
NOISE_APART = 7_368_787


class Part(NamedTuple):
    """Part of a batch that one process computes.

    Attributes:
        rows: which of the batch's rows.
        weight: their share of the batch; 0 where there are fewer rows than processes: one row is computed
            then, and does not count.
    """

    rows: slice
    weight: float


class Share(NamedTuple):
    """Place of a process among those that train together.

    Attributes:
        rank: its number, 0 being the leader, which alone prints, measures, saves and exports.
        size: how many they are.
    """

    rank: int
    size: int

    @property
    def is_leader(self) -> bool:
        """Return whether this process prints, measures and saves."""
        return self.rank == 0

    def part(self, rows: int) -> Part:
        """Return this process's part of a batch: every `size`-th row.

        So rows sorted by length are dealt out evenly.
        """
        if self.rank >= rows:
            return Part(slice(0, 1), 0.0)
        return Part(slice(self.rank, rows, self.size), len(range(self.rank, rows, self.size)) / rows)

    def part_ways(self) -> None:
        """Let random numbers differ between processes from here on, for dropout.

        It is called after an epoch's order is drawn.
        """
        if not self.is_leader:
            torch.manual_seed(torch.initial_seed() + self.rank * NOISE_APART)

    def add_up(self, parameters: Iterable[nn.Parameter], *numbers: float) -> list[float]:
        """Replace gradients by their sum over all processes; return the sums of the numbers.

        Raises:
            ConnectionError: another process has ended.
        """
        if self.size == 1:
            return list(numbers)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        device = gradients[0].device if gradients else torch.device("cpu")
        together = torch.cat(
            [*(gradient.flatten() for gradient in gradients), torch.tensor(numbers, device=device)]
        )
        with _peers():
            dist.all_reduce(together)
        *sums, totals = torch.split(together, [*(gradient.numel() for gradient in gradients), len(numbers)])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))
        return [float(total) for total in totals]

    def from_leader(self, make: Callable[[], Result]) -> Result:
        """Return in every process what `make` returns in the leader; raise everywhere what it raises there.

        Raises:
            ConnectionError: another process has ended.
        """
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.is_leader:
            try:
                box[0] = make()
            except Exception as error:
                box[1] = error
        with _peers():
            dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        result: Result = box[0]
        return result

    def everyone(self, mine: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the objects of all processes by rank.

        Raises:
            ConnectionError: another process has ended.
        """
        if self.size == 1:
            return [mine]
        all_of_them: list[Any] = [None] * self.size
        with _peers():
            dist.all_gather_object(all_of_them, mine)
        return all_of_them

    def copy_leader(self, tensors: Iterable[Tensor]) -> None:
        """Copy the leader's values into the tensors of every process."""
        if self.size > 1:
            with _peers():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def dismiss_followers(self) -> None:
        """End all processes but the leader, with status 0."""
        if not self.is_leader:
            raise _Dismissed


class _Dismissed(BaseException):
    """Signal that takes a process to the end of `joined`."""


def share() -> Share:
    """Return the place of this process; the whole where it trains alone."""
    return (
        Share(dist.get_rank(), dist.get_world_size())
        if dist.is_available() and dist.is_initialized()
        else Share(0, 1)
    )


def local_rank() -> int:
    """Return the number of this process on its machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarts() -> int:
    """Return how often torchrun has started the processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined() -> Iterator[None]:
    """Train together with the other processes that torchrun started, if any, while the block runs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    has_cuda = torch.cuda.is_available() and dist.is_nccl_available()
    if has_cuda and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
    # The launcher keeps its store over a restart, and in it the addresses of the processes that are gone: a
    # name of its own for each start.
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"start_{restarts()}", store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if has_cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        if share().is_leader:
            yield
        else:
            with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield
    except _Dismissed:
        pass
    finally:
        dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError("another process of this run has ended; it says why") from error
