"""The model that a command calls when none is named: the only one that serves its task."""

import time
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

from seqserve.cli.session import RETRY, UsageError
from seqserve.client import Client
from seqserve.errors import Unavailable
from seqserve.results import ModelInfo, ModelStatus
from seqserve.retry import Attempts

GENERATION = "text-generation"
CLASSIFICATION = "text-classification"
FORECASTING = "forecasting"

ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Name of the model. Default: the only one that serves this task.",
        show_default=False,
    ),
]


def choose_model(client: Client, task: str, given: str | None) -> str:
    """Return the model that was named, or else the only one for the task that serves.

    Raises:
        UsageError: None was named, and no model or several models for the task serve.
        SeqserveError: The server's models cannot be listed.
    """
    if given is not None:
        return given
    known = _loaded(client)
    names = sorted({each.name for each in known if each.status is ModelStatus.READY and each.task == task})
    if len(names) == 1:
        return names[0]
    if names:
        raise UsageError(
            f"--model: expected one of the models for {task}, {', '.join(names)}, found none given"
        )
    raise UsageError(f"no model for {task} serves at this server; {_others(known)}")


def _loaded(client: Client) -> list[ModelInfo]:
    """List the versions, once one of them serves or none is being loaded any more.

    Raises:
        Unavailable: The server has not loaded a model within the time that a call is retried for.
    """
    attempts = Attempts(RETRY, None)
    while True:
        known = client.models()
        statuses = {each.status for each in known}
        if ModelStatus.READY in statuses or ModelStatus.LOADING not in statuses:
            return known
        failure = Unavailable("the server is still loading its models; try again in a moment")
        if (delay_s := attempts.next_delay_s(failure)) is None:
            raise failure
        time.sleep(delay_s)


def _others(known: Sequence[ModelInfo]) -> str:
    listed = [f"{each.name} {each.version} ({each.task or each.status})" for each in known]
    return f"there are {', '.join(listed)}: seqserve models" if listed else "it has no model at all"
