"""Shows a run while it trains: a bar, the loss, and the time steps a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn


class Bar(NamedTuple):
    """The progress bar on the screen."""

    progress: Progress
    task: TaskID

    def say(self, line: str) -> None:
        """Print a line above the bar; nothing where the bar is off."""
        if not self.progress.disable:
            self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def advance(self, epoch: int, loss: float, rate: float) -> None:
        """Advance by a batch.

        `epoch` counts from 1, `loss` is its mean so far, `rate` its time steps a second.
        """
        self.progress.update(self.task, advance=1, epoch=epoch, loss=f"{loss:.4f}", rate=f"{rate:,.0f}")


@contextmanager
def progress(total: int, done: int, *, is_shown: bool = True) -> Iterator[Bar]:
    """Return a progress bar over so many batches."""
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]} time steps/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not is_shown) as bar:
        yield Bar(bar, bar.add_task("train", total=total, completed=done, loss="-", rate="-", epoch="-"))


class StepCounter:
    """Counts the valid time steps that go into a network, padding left out."""

    def __init__(self) -> None:
        self._steps = 0

    def take(self) -> int:
        """Return the time steps since the last call."""
        steps, self._steps = self._steps, 0
        return steps

    def count(self, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Count the time steps of a call of the network; a hook before it."""
        inputs, lengths, *_rest = (*arguments, None, None)
        lengths = named.get("lengths", lengths)
        self._steps += inputs.shape[0] * inputs.shape[1] if lengths is None else int(lengths.sum())


@contextmanager
def counting(network: nn.Module) -> Iterator[StepCounter]:
    """Count the time steps of a network while the block runs."""
    counter = StepCounter()
    hook = network.register_forward_pre_hook(counter.count, with_kwargs=True)
    try:
        yield counter
    finally:
        hook.remove()
