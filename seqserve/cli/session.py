"""What every command shares: the connection, its options, and how failures end."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import grpc
import typer

from seqserve.client import Client
from seqserve.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, tls
from seqserve.errors import InvalidArgument, Overloaded, SeqserveError
from seqserve.retry import Retry

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130

RETRY = Retry(attempts=6)
"""Less patient than a program's: who mistyped the address should know within 2 s."""

ServerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="HOST:PORT", help=f"Where the server listens; {DEFAULT_ADDRESS} where not given."
    ),
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
TlsOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--tls", help="Encrypt the connection, and check the server against the roots that gRPC ships."
    ),
]
TlsCaOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Encrypt, and check the server against these certificates.",
        show_default=False,
    ),
]
TlsCertificateOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tls-certificate",
        metavar="FILE",
        help="Encrypt, and show the server this certificate.",
        show_default=False,
    ),
]
TlsKeyOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--tls-key", metavar="FILE", help="Private key of --tls-certificate.", show_default=False),
]
TokenFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File that holds the token to send with every call.",
        show_default=False,
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
ModelVersion: TypeAlias = Annotated[
    int,
    typer.Option("--version", min=0, max=2**32 - 1, help="Version of the model; 0: the newest that serves."),
]


class UsageError(Exception):
    """What the user gave cannot be used; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options as given; None: not given.

    Attributes:
        server: address.
        timeout_s: of each call.
        as_json: print JSON.
        has_tls: the connection is encrypted.
        tls_ca, tls_certificate, tls_key: files for it.
        token_file: holds the token.
    """

    server: str | None
    timeout_s: float | None
    as_json: bool
    has_tls: bool
    tls_ca: Path | None
    tls_certificate: Path | None
    tls_key: Path | None
    token_file: Path | None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For an encrypted connection, where one is wanted."""
        files = (self.tls_ca, self.tls_certificate, self.tls_key)
        if not self.has_tls and files == (None, None, None):
            return None
        try:
            return tls(*files)
        except (OSError, ValueError) as error:
            raise UsageError(f"TLS: {error}") from error

    def token(self) -> str | None:
        """What the token file holds, without the space around it."""
        if self.token_file is None:
            return None
        try:
            found = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            raise UsageError(f"--token-file: {error}") from error
        if not (found and found.isprintable()):
            raise UsageError("--token-file: expected one line, a token")
        return found


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
def session(
    context: typer.Context, server: str | None, timeout_s: float | None, as_json: bool
) -> Iterator[Session]:
    """Connect for one command, by its own options or else those before it, and turn failures into a message
    and an exit status.

    Raises:
        typer.Exit: with 1, 2 or 130; the message is on stderr.
    """
    outer: Settings = context.obj
    timeout_s = outer.timeout_s if timeout_s is None else timeout_s
    try:
        with Client(
            server or outer.server or DEFAULT_ADDRESS,
            credentials=outer.credentials(),
            token=outer.token(),
            timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
            retry=RETRY,
        ) as client:
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
    """An error for people: the message, then what is wrong field by field, as far as the message does not say
    it.
    """
    lines = [str(error)]
    if isinstance(error, InvalidArgument):
        lines += [
            f"  {field}: {description}"
            for field, description in error.violations
            if description not in lines[0]
        ]
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        lines.append(f"  try again in {error.retry_after_s:.3g} s")
    return "\n".join(lines)


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON, sent at once; without a sealed state, which no command asks for."""
    sys.stdout.write(
        json.dumps({key: each for key, each in value.items() if key != "state"}, ensure_ascii=False) + "\n"
    )
    sys.stdout.flush()
