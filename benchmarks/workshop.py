"""What the rows share: models made once, the size of a run, cores, one event loop. And what a row is."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import uvloop

from benchmarks.machine import Cores, pinned
from benchmarks.models import Model
from benchmarks.rounds import Claim, Contestants
from benchmarks.untrained import export_model

Found = TypeVar("Found")


class Skipped(Exception):
    """A row cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A row made ready.

    Attributes:
        contestants: by name, warmed up: no run of theirs is thrown away.
        claims: on their samples.
        load: what is measured, in a sentence: sizes, counts, threads.
        facts: numbers found while making it ready, by name and unit.
    """

    contestants: Contestants
    claims: Sequence[Claim] = ()
    load: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        name: short, as --rows takes it.
        title: what is measured.
        unit: of the samples' values.
        open: makes it ready; leaving the context ends what was started.
        most_rounds: where more would take too long.
    """

    name: str
    title: str
    unit: str
    open: Callable[["Workshop"], AbstractContextManager[Contest]]
    most_rounds: int | None = None


class Workshop:
    """A context; what is opened in it is closed with it.

    Args:
        folder: an empty one, for models.
        cores: to use.
        is_quick: small loads, to see that everything works.
    """

    def __init__(self, folder: Path, cores: Cores, is_quick: bool) -> None:
        self._folder = folder
        self.cores = cores
        self.is_quick = is_quick
        self._models: dict[str, Model] = {}
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.close()

    def size(self, full: int, quick: int) -> int:
        """How much of something: in a full run, and in a quick one."""
        return quick if self.is_quick else full

    def model(self, name: str) -> Model:
        """One of the untrained models, exported when first asked for into a repository of its own."""
        if name not in self._models:
            self._models[name] = export_model(self._folder / name, name)
        return self._models[name]

    def run(self, work: Coroutine[Any, Any, Found]) -> Found:
        """Run a load generator's coroutine on the client's core."""
        with pinned({self.cores.client}):
            return self._runner.run(work)

    def alone(self, work: Callable[[], Found]) -> Callable[[], Found]:
        """The same work, done in this process on the server's core."""

        def done() -> Found:
            with pinned({self.cores.server}):
                return work()

        return done
