"""Connection, common options and error handling, shared by all commands."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import grpc
import typer

from seqserve import arguments
from seqserve.cli import INTERRUPTED
from seqserve.cli.connecting import explain, server_address
from seqserve.cli.output import escape_controls, json_line
from seqserve.client import Client
from seqserve.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, SERVER_VARIABLE, tls
from seqserve.errors import InvalidArgument, Overloaded, SeqserveError
from seqserve.retry import Retry

FAILED = 1
WRONG_INPUT = 2

_TEXTS = frozenset({"texts", "prompt", "stop"})
"""Parameters whose commands decode them by `decode_argument`, whatever the locale."""

RETRY = Retry(attempts=6)
"""Fewer retries than in a program, so that a mistyped address is reported within 2 s."""

ServerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help=f"Address of the server. Default: {SERVER_VARIABLE}, or else {DEFAULT_ADDRESS}.",
    ),
]
TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help=f"Timeout of a call; inf is none. Default: {DEFAULT_TIMEOUT_S:g}; "
        "inf for classifying line by line.",
    ),
]
TlsOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--tls", help="Encrypt the connection, and verify the server with the roots that gRPC ships."
    ),
]
TlsCaOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Encrypt the connection, and verify the server with these certificates.",
        show_default=False,
    ),
]
TlsCertificateOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tls-certificate",
        metavar="FILE",
        help="Encrypt the connection, and present this certificate to the server.",
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
        help="File with the token to send with every call.",
        show_default=False,
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
ModelVersion: TypeAlias = Annotated[
    int,
    typer.Option(
        "--version", min=0, max=2**32 - 1, help="Version of the model; 0 means the newest that serves."
    ),
]


class UsageError(Exception):
    """The user's input cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options before the command; None means not given.

    Attributes:
        server: Address of the server.
        timeout_s: Timeout of each call in seconds.
        as_json: Whether to print JSON.
        has_tls: Whether to encrypt the connection.
        tls_ca: File of CA certificates.
        tls_certificate: File of the client's certificate chain.
        tls_key: File of the private key.
        token_file: File of the token.
    """

    server: str | None
    timeout_s: float | None
    as_json: bool
    has_tls: bool
    tls_ca: Path | None
    tls_certificate: Path | None
    tls_key: Path | None
    token_file: Path | None

    @property
    def is_encrypted(self) -> bool:
        """True if an option asks for TLS."""
        return self.has_tls or (self.tls_ca, self.tls_certificate, self.tls_key) != (None, None, None)

    def address(self, server: str | None) -> str:
        """Return the address to connect to; `server`, given after the command, counts most."""
        try:
            return server_address(server, self.server)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Load the credentials of an encrypted connection, or return None for plaintext."""
        if not self.is_encrypted:
            return None
        try:
            return tls(self.tls_ca, self.tls_certificate, self.tls_key)
        except (OSError, ValueError) as error:
            raise UsageError(f"TLS: {error}") from error

    def token(self) -> str | None:
        """Read the token from its file, without surrounding whitespace."""
        if self.token_file is None:
            return None
        try:
            found = self.token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise UsageError(f"--token-file: {error}") from error
        except UnicodeDecodeError as error:  # its text shows a byte of the token
            text = f"expected ASCII text, found another byte at position {error.start}"
            raise UsageError(f"--token-file: {text}") from None
        if not (found and found.isprintable()):
            raise UsageError("--token-file: expected one line, a token")
        return found


@dataclass(frozen=True, slots=True)
class Session:
    """The context in which a command runs.

    Attributes:
        client: The connected client.
        timeout_s: Timeout as given, for calls without a default timeout; infinity means no limit.
        as_json: Whether to print JSON.
    """

    client: Client
    timeout_s: float | None
    as_json: bool


@contextmanager
def session(
    context: typer.Context, server: str | None, timeout_s: float | None, as_json: bool
) -> Iterator[Session]:
    """Connect for one command, and convert failures to a message and an exit status.

    The command's own options override those before it.

    Raises:
        typer.Exit: The command failed, with status 1, 2 or 130; the message is on standard error.
    """
    outer: GlobalOptions = context.obj
    timeout_s = outer.timeout_s if timeout_s is None else timeout_s
    address = ""
    try:
        _check_encoding(context)
        address = outer.address(server)
        arguments.timeout("--timeout", timeout_s)
        with Client(
            address,
            credentials=outer.credentials(),
            token=outer.token(),
            timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
            retry=RETRY,
        ) as client:
            yield Session(client, timeout_s, as_json or outer.as_json)
    except SeqserveError as error:
        said = explain(error, address, has_tls=outer.is_encrypted)
        said = describe(error) if said is None else escape_controls(said, keep="\n")
        typer.echo(f"error: {said}", err=True)
        raise typer.Exit(WRONG_INPUT if isinstance(error, InvalidArgument) else FAILED) from error
    except UsageError as error:
        typer.echo("error: " + escape_controls(str(error), keep="\n"), err=True)
        raise typer.Exit(WRONG_INPUT) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


def _check_encoding(context: typer.Context) -> None:
    """Check that the texts and names on the command line are UTF-8.

    Raises:
        UsageError: One is not; the text names it and its first wrong byte.
    """
    found = [
        (parameter, level.params.get(parameter.name or ""))
        for level in (context.parent, context)
        if level is not None
        for parameter in level.command.params
    ]
    for parameter, value in found:
        is_option = parameter.param_type_name == "option"
        for number, each in enumerate(value if isinstance(value, list) else [value], 1):
            if isinstance(each, str):
                place = parameter.opts[0] if is_option else f"argument {number}"
                if decode_argument(each, place) != each and parameter.name not in _TEXTS:
                    raise UsageError(f"{place}: the locale cannot represent it; set LC_ALL to a UTF-8 locale")


def decode_argument(text: str, place: str) -> str:
    """Return the UTF-8 text of an argument that Python has decoded by the locale.

    Raises:
        UsageError: Its bytes are not UTF-8; the text names the place and the first wrong byte.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        # Python represents bytes that the locale's encoding lacks by surrogates. In an ASCII locale these
        # are all but ASCII, and they may be UTF-8 all the same.
        found = os.fsencode(text)
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise UsageError(not_utf8(place, found[error.start], error.start)) from error
    return text


def not_utf8(place: str, byte: int, before: int) -> str:
    """Describe a byte that is no UTF-8, after so many others."""
    return f"{place}: expected UTF-8 text, found byte 0x{byte:02x} at byte {before + 1}"


def describe(error: SeqserveError) -> str:
    """Format an error for users: the message, then each field and retry delay that it lacks."""
    lines = [escape_controls(str(error))]
    if isinstance(error, InvalidArgument):
        lines += [
            escape_controls(f"  {field}: {description}")
            for field, description in error.violations
            if description not in str(error)
        ]
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        lines.append(f"  try again in {error.retry_after_s:.3g} s")
    return "\n".join(lines)


def print_json(value: dict[str, Any]) -> None:
    """Print one line of JSON and flush it; the sealed state, which no command requests, is left out."""
    sys.stdout.write(json_line({key: each for key, each in value.items() if key != "state"}) + "\n")
    sys.stdout.flush()
