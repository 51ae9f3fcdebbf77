"""Lookup of versions by model name and number, and their leases."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, get_args

from service.api.caller import trace
from service.contract import spec
from service.models.loading import Served
from service.models.table import VersionTable
from service.tasks.sequences import SequencesTask

Task = TypeVar("Task")
_ALL_TASKS: tuple[spec.Task, ...] = get_args(spec.Task)


class TaskVersions(Generic[Task]):
    """Versions that serve one task.

    Args:
        table: versions by name and number.
        name: name of the task in model.json.
        kind: class of the task.
    """

    def __init__(self, table: VersionTable, name: spec.Task, kind: type[Task]) -> None:
        self._table = table
        self._names: tuple[spec.Task, ...] = (name,)
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
        served = self._table.find(model, version, *self._names)
        task = self._task_of(served)
        _trace(served)
        with served.leases if holder is None else served.leases.held_by(holder):
            yield served, task

    def _task_of(self, served: Served) -> Task:
        assert isinstance(served.task, self._kind), "a version's task is of its task's class"
        return served.task


class SequenceVersions(TaskVersions[SequencesTask]):
    """Versions that answer the service Sequences: of the tasks sequences and text-classification.

    Args:
        table: versions by name and number.
    """

    def __init__(self, table: VersionTable) -> None:
        super().__init__(table, "sequences", SequencesTask)
        self._names = ("sequences", "text-classification")

    def _task_of(self, served: Served) -> SequencesTask:
        assert served.sequences is not None, "versions of these tasks have one"
        return served.sequences


def find_any(table: VersionTable, model: str, version: int) -> Served:
    """Find a version of any task, which the caller leases.

    Args:
        table: versions by name and number.
        model: name of the model.
        version: number of the version; 0: the newest that serves.

    Raises:
        InvalidArgument, NotFound, NotReady, NotServed: no version of that name and number serves.
    """
    served = table.find(model, version, *_ALL_TASKS)
    _trace(served)
    return served


def _trace(served: Served) -> None:
    """Tell the call's trace which version answers; do nothing where the call is not traced."""
    if (traced := trace.get()) is not None:
        traced.serve(served.spec.name, served.spec.version, served.spec.task)
