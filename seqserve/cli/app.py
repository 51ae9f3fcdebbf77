"""The command line: the global options and the list of commands."""

from typing import Annotated

import typer

from seqserve.cli.bench import bench
from seqserve.cli.classify import classify
from seqserve.cli.forecast import forecast
from seqserve.cli.generate import generate
from seqserve.cli.infer import infer
from seqserve.cli.label import label
from seqserve.cli.models import load, models, unload
from seqserve.cli.playground import playground
from seqserve.cli.score import score
from seqserve.cli.session import (
    GlobalOptions,
    JsonOption,
    ServerOption,
    TimeoutOption,
    TlsCaOption,
    TlsCertificateOption,
    TlsKeyOption,
    TlsOption,
    TokenFileOption,
)
from seqserve.version import __version__

app = typer.Typer(
    name="seqserve",
    help="Call a seqserve server, which runs recurrent networks: to generate, score, classify and label "
    "text, to forecast series, and to infer from sequences of any kind.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: typer's tables name the type of a flag as a value, <bool>, and drop text in square brackets.
    rich_markup_mode=None,
    context_settings={"max_content_width": 110},
)


def _print_version(is_asked: bool) -> None:
    """Print the version of this package and end, before a command is looked for."""
    if is_asked:
        typer.echo(f"seqserve {__version__}")
        raise typer.Exit


@app.callback()
def options(  # noqa: PLR0913 - one parameter per option
    context: typer.Context,
    *,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    has_tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    token_file: TokenFileOption = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version of seqserve and exit.",
        ),
    ] = False,
) -> None:
    """Options given before the command; --server, --timeout and --json may also follow it."""
    context.obj = GlobalOptions(
        server, timeout, as_json, has_tls, tls_ca, tls_certificate, tls_key, token_file
    )


for command in (generate, score, classify, forecast, infer, label, models, load, unload, bench, playground):
    app.command()(command)
