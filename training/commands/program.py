"""The program `python -m training`: its commands, and the exit status of an error or interruption."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from training.commands import classify, forecast, generate, label, series, versions
from training.failures import exit_status
from training.interrupts import INTERRUPTED, raise_at_interrupt
from training.lecture.command import lecture
from training.shapes.command import shapes


class _Commands(TyperGroup):
    """Group of the commands, which says where one was interrupted that does not say so itself."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    help="Train a model, measure it on held-out data beside simple baselines, export it for the service.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (generate, classify, forecast, label, series, versions):
    module.register(app)
app.command(
    "lecture", help="six lessons of seconds each, from one letter to a share's price: docs/lecture.md"
)(lecture)
app.command(
    "shapes", help="one to one, one to many, many to one, many to many, and with delay: docs/shapes.md"
)(shapes)


def main() -> int:
    """Run the command, and return its exit status."""
    raise_at_interrupt()
    return exit_status(
        lambda: app(sys.argv[1:] or ["--help"], prog_name="python -m training", standalone_mode=False)
    )
