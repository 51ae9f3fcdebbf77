"""`seqserve classify`: classifies texts in one request, or any number of lines over one stream.

Lines are answered in their order.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from seqserve.cli.choosing import CLASSIFICATION, ModelOption, choose_model
from seqserve.cli.inputs import FileOption, iter_lines, open_input, should_read_input
from seqserve.cli.session import (
    FAILED,
    JsonOption,
    ModelVersion,
    ServerOption,
    Session,
    TimeoutOption,
    describe,
    print_json,
    session,
)
from seqserve.cli.tables import escape, print_tab_separated
from seqserve.client import Client
from seqserve.errors import InvalidArgument, SeqserveError
from seqserve.results import Classification, ClassifyAnswer

# Enough to fill the slots of a busy server, yet few answers wait for an earlier line.
MAX_IN_FLIGHT = 128
_BAR_WIDTH = 20


class Row(NamedTuple):
    """A text and its classification, or the error it got."""

    text: str
    outcome: Classification | SeqserveError


def classify(
    context: typer.Context,
    *,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to classify; without any, or with -, the lines of standard input.", show_default=False
        ),
    ] = None,
    file: FileOption = None,
    model: ModelOption = None,
    version: ModelVersion = 0,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify texts, or each line of a file or of standard input.

    A line that the server rejects gets an error in its place, and the other lines go on; the exit status is
    then 1.
    """
    with session(context, server, timeout, as_json) as current:
        arguments = texts or []
        reads_input = should_read_input(arguments, file)
        name = choose_model(current.client, CLASSIFICATION, model)
        if reads_input:
            with open_input(file) as stream:
                failures = _print(
                    current,
                    classify_lines(current.client, iter_lines(stream), name, version, current.timeout_s),
                )
        else:
            results = current.client.classify(arguments, model=name, version=version)
            failures = _print(current, map(Row, arguments, results))
        if failures:
            typer.echo(f"error: {failures} could not be classified", err=True)
            raise typer.Exit(FAILED)


def classify_lines(
    client: Client, lines: Iterable[str], model: str, version: int, timeout_s: float | None
) -> Iterator[Row]:
    """Classify lines over one stream.

    Yields:
        Rows in the order of the lines, each as soon as it and those before it are answered. At most
        MAX_IN_FLIGHT lines are sent and not yet yielded.
    """
    asked: dict[str, str] = {}
    answered: dict[str, ClassifyAnswer] = {}
    free = threading.Semaphore(MAX_IN_FLIGHT)

    def requests() -> Iterator[tuple[str, str]]:
        for number, line in enumerate(lines):
            free.acquire()
            asked[str(number)] = line
            yield str(number), line

    with client.classify_stream(requests(), model=model, version=version, timeout_s=timeout_s) as stream:
        turn = 0
        for answer in stream:
            answered[answer.id] = answer
            while (ready := answered.pop(str(turn), None)) is not None:
                yield Row(asked.pop(ready.id), ready.error or ready.results[0])
                free.release()
                turn += 1


def _print(current: Session, rows: Iterable[Row]) -> int:
    """Print rows as they arrive.

    Returns:
        The number of rows that failed.
    """
    show = _print_json if current.as_json else _print_drawn if sys.stdout.isatty() else _print_plain
    if show is _print_plain:
        print_tab_separated(("label", "probability", "text"))
    failures = 0
    for number, row in enumerate(rows, start=1):
        show(row)
        if isinstance(row.outcome, SeqserveError):
            failures += 1
            if show is _print_plain:
                typer.echo(f"error: text {number}: {describe(row.outcome)}", err=True)
    return failures


def _print_json(row: Row) -> None:
    print_json(
        {"text": row.text}
        | (
            {"error": _error_facts(row.outcome)}
            if isinstance(row.outcome, SeqserveError)
            else asdict(row.outcome)
        )
    )


def _error_facts(error: SeqserveError) -> dict[str, Any]:
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    return {
        "code": error.code.name,
        "message": str(error),
        "violations": [violation._asdict() for violation in violations],
    }


def _print_plain(row: Row) -> None:
    if isinstance(row.outcome, SeqserveError):
        print_tab_separated(("error", "", row.text))
    else:
        print_tab_separated((row.outcome.label, f"{row.outcome.probability:.6f}", row.text))


def _print_drawn(row: Row) -> None:
    if isinstance(row.outcome, SeqserveError):
        line = Text.assemble(("error: ", "red"), describe(row.outcome), "  ", (escape(row.text), "dim"))
    else:
        label_width = max(len(each.label) for each in row.outcome.probabilities)
        bar = ("█" * round(_BAR_WIDTH * row.outcome.probability)).ljust(_BAR_WIDTH, "░")
        line = Text.assemble(
            (row.outcome.label.ljust(label_width), "bold"),
            f"  {row.outcome.probability:6.1%}  ",
            (bar, "cyan"),
            f"  {escape(row.text)}",
        )
    Console().print(line, no_wrap=True, overflow="ellipsis")
