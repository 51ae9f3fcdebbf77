"""`seqserve classify`: classifies texts in one request, or any number of lines over one stream.

Lines are answered in their order.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from seqserve.cli.choosing import CLASSIFICATION, ModelOption, choose_model
from seqserve.cli.inputs import FileOption, should_read_input
from seqserve.cli.output import can_print
from seqserve.cli.session import (
    FAILED,
    JsonOption,
    ModelVersion,
    ServerOption,
    Session,
    TimeoutOption,
    print_json,
    session,
)
from seqserve.cli.tables import escape, has_wide_terminal, print_tab_separated
from seqserve.cli.texts import GivenText, explain, explained, from_arguments, raise_if_too_large, read_lines
from seqserve.client import Client
from seqserve.errors import InvalidArgument, Overloaded, SeqserveError
from seqserve.results import Classification, ClassifyAnswer

# Enough to fill the slots of a busy server, yet few answers wait for an earlier line.
MAX_IN_FLIGHT = 128
_BAR_WIDTH = 20
_BAR, _PLAIN_BAR = ("█", "░"), ("#", ".")


class Row(NamedTuple):
    """A text and its classification, or the error it got."""

    given: GivenText
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
            failures = _print(
                current,
                classify_lines(current.client, read_lines(file), name, version, current.timeout_s),
            )
        else:
            given = from_arguments(arguments)
            with explained(given):
                results = current.client.classify([each.text for each in given], model=name, version=version)
            failures = _print(current, map(Row, given, results))
        if failures:
            typer.echo(f"error: {failures} could not be classified", err=True)
            raise typer.Exit(FAILED)


def classify_lines(
    client: Client, lines: Iterable[GivenText], model: str, version: int, timeout_s: float | None
) -> Iterator[Row]:
    """Classify lines over one stream.

    Yields:
        Rows in the order of the lines, each as soon as it and those before it are answered. At most
        MAX_IN_FLIGHT lines are sent and not yet yielded.

    Raises:
        UsageError: A line is larger than the server takes in one request.
    """
    asked: dict[str, GivenText] = {}
    answered: dict[str, ClassifyAnswer] = {}
    free = threading.Semaphore(MAX_IN_FLIGHT)

    def requests() -> Iterator[tuple[str, str]]:
        for number, line in enumerate(lines):
            free.acquire()
            asked[str(number)] = line
            yield str(number), line.text

    with client.classify_stream(requests(), model=model, version=version, timeout_s=timeout_s) as stream:
        turn = 0
        try:
            for answer in stream:
                answered[answer.id] = answer
                while (ready := answered.pop(str(turn), None)) is not None:
                    yield Row(asked.pop(ready.id), ready.error or ready.results[0])
                    free.release()
                    turn += 1
        except Overloaded as error:
            raise_if_too_large(error, list(asked.values()))
            raise


def _print(current: Session, rows: Iterable[Row]) -> int:
    """Print rows as they arrive.

    Returns:
        The number of rows that failed.
    """
    show = _print_json if current.as_json else _print_drawn if has_wide_terminal() else _print_plain
    if show is _print_plain:
        print_tab_separated(("label", "probability", "text"))
    failures = 0
    for row in rows:
        show(row)
        if isinstance(row.outcome, SeqserveError):
            failures += 1
            if show is _print_plain:
                typer.echo(f"error: {_described(row.given, row.outcome)}", err=True)
    return failures


def _described(given: GivenText, error: SeqserveError) -> str:
    """Describe an error with its line, also where the server blames no field."""
    told = explain(error, [given])
    return told if given.place in told else f"{given.place}: {told}"


def _print_json(row: Row) -> None:
    print_json(
        {"text": row.given.text}
        | (
            {"error": _error_facts(row.given, row.outcome)}
            if isinstance(row.outcome, SeqserveError)
            else asdict(row.outcome)
        )
    )


def _error_facts(given: GivenText, error: SeqserveError) -> dict[str, Any]:
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    return {
        "code": error.code.name,
        "message": _described(given, error),
        "violations": [violation._asdict() for violation in violations],
    }


def _print_plain(row: Row) -> None:
    if isinstance(row.outcome, SeqserveError):
        print_tab_separated(("error", "", row.given.text))
    else:
        print_tab_separated((row.outcome.label, f"{row.outcome.probability:.6f}", row.given.text))


def _print_drawn(row: Row) -> None:
    if isinstance(row.outcome, SeqserveError):
        told = _described(row.given, row.outcome)
        line = Text.assemble(("error: ", "red"), told, "  ", (escape(row.given.text), "dim"))
    else:
        label_width = max(len(escape(each.label)) for each in row.outcome.probabilities)
        full, empty = _BAR if can_print("".join(_BAR)) else _PLAIN_BAR
        bar = (full * round(_BAR_WIDTH * row.outcome.probability)).ljust(_BAR_WIDTH, empty)
        line = Text.assemble(
            (escape(row.outcome.label).ljust(label_width), "bold"),
            f"  {row.outcome.probability:6.1%}  ",
            (bar, "cyan"),
            f"  {escape(row.given.text)}",
        )
    Console().print(line, no_wrap=True, overflow="ellipsis")
