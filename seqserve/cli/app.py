"""The command line as a whole: options of every command, and the commands."""

import typer

from seqserve.cli.bench import bench
from seqserve.cli.classify import classify
from seqserve.cli.forecast import forecast
from seqserve.cli.generate import generate
from seqserve.cli.models import load, models, unload
from seqserve.cli.score import score
from seqserve.cli.session import (
    JsonOption,
    ServerOption,
    Settings,
    TimeoutOption,
    TlsCaOption,
    TlsCertificateOption,
    TlsKeyOption,
    TlsOption,
    TokenFileOption,
)

app = typer.Typer(
    name="seqserve",
    help="Talk to a seqserve server: recurrent networks that write, score and classify text and forecast series.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
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
) -> None:
    """Options given before the command; each command takes --server, --timeout and --json too."""
    context.obj = Settings(server, timeout, as_json, has_tls, tls_ca, tls_certificate, tls_key, token_file)


for command in (generate, score, classify, forecast, models, load, unload, bench):
    app.command()(command)
