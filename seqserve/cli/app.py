"""The command line as a whole: options of every command, and the commands."""

import typer

from seqserve.cli.classify import classify
from seqserve.cli.forecast import forecast
from seqserve.cli.generate import generate
from seqserve.cli.models import models
from seqserve.cli.score import score
from seqserve.cli.session import JsonOption, ServerOption, Settings, TimeoutOption

app = typer.Typer(
    name="seqserve",
    help="Talk to a seqserve server: recurrent networks that write, score and classify text and forecast series.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(context: typer.Context, server: ServerOption = None, timeout: TimeoutOption = None, as_json: JsonOption = False) -> None:
    """Options given before the command; each command takes them too."""
    context.obj = Settings(server, timeout, as_json)


for command in (generate, score, classify, forecast, models):
    app.command()(command)
