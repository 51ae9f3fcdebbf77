"""`seqserve playground`: serves the web pages of the playground on this machine."""

import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated, Final

import typer

from seqserve import arguments
from seqserve.cli.output import escape_controls
from seqserve.cli.session import FAILED, WRONG_INPUT, GlobalOptions, ServerOption, TimeoutOption, UsageError
from seqserve.connection import DEFAULT_TIMEOUT_S
from seqserve.errors import SeqserveError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8090
_PACKAGES: Final = {"nicegui": "nicegui", "grpc_health": "grpcio-health-checking"}
_MISSING: Final = (
    "the playground needs {names}, of seqserve's extra 'playground': run 'make playground' in a clone of "
    "seqserve, or install the wheel with it, pip install 'FILE.whl[playground]'"
)
_OPEN_TO_ALL: Final = (
    "warning: {host} is reachable from other machines, and the playground asks for no password: whoever "
    "reaches it calls the server{token}"
)


def playground(
    context: typer.Context,
    *,
    host: Annotated[
        str,
        typer.Option(
            help="Host name or address to listen on. Whoever reaches it uses the token of this command."
        ),
    ] = DEFAULT_HOST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port to listen on.")] = DEFAULT_PORT,
    opens: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the default browser.")
    ] = True,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Serve web pages that show what the server does: models, text, classes, forecasts, the engine."""
    if missing := [name for module, name in _PACKAGES.items() if find_spec(module) is None]:
        typer.echo("error: " + _MISSING.format(names=" and ".join(missing)), err=True)
        raise typer.Exit(FAILED)
    outer: GlobalOptions = context.obj
    try:
        _run(outer, host, port, opens, server, timeout)
    except (SeqserveError, UsageError) as error:
        typer.echo("error: " + escape_controls(str(error), keep="\n"), err=True)
        raise typer.Exit(WRONG_INPUT) from error


def _run(
    outer: GlobalOptions, host: str, port: int, opens: bool, server: str | None, timeout_s: float | None
) -> None:
    """Serve the pages.

    Raises:
        UsageError: An option cannot be used, or the port is taken.
        WrongValue: The timeout is out of range.
    """
    # Not importable without the extra.
    from seqserve.playground.app import Listening, run  # noqa: PLC0415
    from seqserve.playground.guard import is_loopback  # noqa: PLC0415
    from seqserve.playground.server import Target  # noqa: PLC0415

    timeout_s = outer.timeout_s if timeout_s is None else timeout_s
    arguments.timeout("--timeout", timeout_s)
    token = outer.token()
    target = Target(
        outer.address(server),
        outer.credentials(),
        token,
        DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
    )
    _check_free(host, port)
    if not is_loopback(host):
        used = "" if token is None else " with the token of this command"
        typer.echo(_OPEN_TO_ALL.format(host=host, token=used), err=True)
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"playground of {target.address}: http://{shown}:{port}/ (Ctrl+C ends it)\n")
    # Ctrl+C is how it ends: nothing is interrupted.
    with suppress(KeyboardInterrupt):
        run(target, Listening(host, port, opens))


def _check_free(host: str, port: int) -> None:
    """Check that an address can be listened on; the web server would end without a word.

    Raises:
        UsageError: It cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(
            f"--host and --port: expected an address that is free, found {host} port {port}: {why}; "
            "--port PORT takes another"
        ) from error
