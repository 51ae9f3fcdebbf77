"""What every command shares: the connection, its options, and how failures end."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import typer

from seqserve.client import Client
from seqserve.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S
from seqserve.errors import InvalidArgument, Overloaded, SeqserveError

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130

ServerOption: TypeAlias = Annotated[
    str | None, typer.Option("--server", metavar="HOST:PORT", help=f"Where the server listens; {DEFAULT_ADDRESS} where not given.")
]
TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help=f"Most that a call may take; {DEFAULT_TIMEOUT_S:g} where not given, without limit for classifying line by line.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
ModelVersion: TypeAlias = Annotated[int, typer.Option("--version", min=0, max=2**32 - 1, help="Version of the model; 0: the newest that serves.")]


class UsageError(Exception):
    """What the user gave cannot be used; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options as given; None: not given.

    Attributes:
        server: address.
        timeout_s: of each call.
        as_json: print JSON.
    """

    server: str | None
    timeout_s: float | None
    as_json: bool


@dataclass(frozen=True, slots=True)
class Session:
    """A command under way.

    Attributes:
        client: connected to the server asked for.
        timeout_s: as given, for the calls that have no limit by default.
        as_json: print JSON.
    """

    client: Client
    timeout_s: float | None
    as_json: bool


@contextmanager
def session(context: typer.Context, server: str | None, timeout_s: float | None, as_json: bool) -> Iterator[Session]:
    """Connect for one command, by its own options or else those before it, and turn failures into a message and an exit status.

    Raises:
        typer.Exit: with 1, 2 or 130; the message is on stderr.
    """
    outer: Settings = context.obj
    timeout_s = outer.timeout_s if timeout_s is None else timeout_s
    try:
        with Client(server or outer.server or DEFAULT_ADDRESS, timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s) as client:
            yield Session(client, timeout_s, as_json or outer.as_json)
    except SeqserveError as error:
        typer.echo(f"error: {describe(error)}", err=True)
        raise typer.Exit(WRONG_INPUT if isinstance(error, InvalidArgument) else FAILED) from error
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(WRONG_INPUT) from error
    except UnicodeError as error:
        typer.echo(f"error: the text is not UTF-8: {error}", err=True)
        raise typer.Exit(WRONG_INPUT) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


def describe(error: SeqserveError) -> str:
    """An error for people: the message, then what is wrong field by field, as far as the message does not say it."""
    lines = [str(error)]
    if isinstance(error, InvalidArgument):
        lines += [f"  {field}: {description}" for field, description in error.violations if description not in lines[0]]
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        lines.append(f"  try again in {error.retry_after_s:.3g} s")
    return "\n".join(lines)


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON, sent at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
