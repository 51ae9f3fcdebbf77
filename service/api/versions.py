"""Lookup of versions by model name and number, and their leases."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from service.api.caller import trace
from service.contract import spec
from service.models.loading import Served
from service.models.table import VersionTable

Task = TypeVar("Task")


class TaskVersions(Generic[Task]):
    """Versions that serve one task.

    Args:
        table: versions by name and number.
        name: name of the task in model.json.
        kind: class of the task.
    """

    def __init__(self, table: VersionTable, name: spec.Task, kind: type[Task]) -> None:
        self._table = table
        self._name = name
        self._kind = kind

    @contextmanager
    def lease(
        self, model: str, version: int, holder: "asyncio.Task[Any] | None" = None
    ) -> Iterator[tuple[Served, Task]]:
        """Find a version and lease it while the context lasts, so that it is not unloaded.

        Args:
            model: name of the model.
            version: number of the version; 0: the newest that serves.
            holder: the task that needs it; None: the current one.

        Raises:
            InvalidArgument, NotFound, NotReady, NotServed: no version of that name and number serves the
                task.
            Withdrawn: too many newer versions have replaced it meanwhile.
        """
        served = self._table.find(model, version, self._name)
        task = served.task
        assert isinstance(task, self._kind), "a version's task is of its task's class"
        _trace(served)
        with served.leases if holder is None else served.leases.held_by(holder):
            yield served, task


@contextmanager
def lease_any(table: VersionTable, model: str, version: int) -> Iterator[Served]:
    """Find and lease a version of any task, as `TaskVersions.lease` does."""
    found = table.get(model, version).served
    # A version that does not serve is refused with the same error for every task.
    task: spec.Task = found.spec.task if found is not None else "text-generation"
    served = table.find(model, version, task)
    _trace(served)
    with served.leases:
        yield served


def _trace(served: Served) -> None:
    """Tell the call's trace which version answers; do nothing where the call is not traced."""
    if (traced := trace.get()) is not None:
        traced.serve(served.spec.name, served.spec.version, served.spec.task)
