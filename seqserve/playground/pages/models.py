"""The page Models: what the server's model versions take and give, and their health."""

from nicegui import ui

from seqserve.cli.describing import sentence
from seqserve.playground.context import Context


async def build(context: Context) -> None:
    """List the model versions."""
    for model in await context.client.models():
        with ui.card().classes("w-full"):
            ui.label(f"{model.name} {model.version}").classes("text-h6")
            ui.label(sentence(model))
