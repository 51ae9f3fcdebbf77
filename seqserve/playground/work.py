"""The choice of a model at the top of a page, and the calls that belong to the model that is chosen."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nicegui import ui

from seqserve.playground.context import Call, Context
from seqserve.playground.uploads import FileRefusedError
from seqserve.results import ModelInfo, ModelStatus

STYLE: Final = (Path(__file__).parent / "static" / "panels.css").read_text(encoding="utf-8")


class Work:
    """The calls of one model's panel: they end with the tab, and when another model is chosen.

    Args:
        context: The page.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: Call) -> asyncio.Task[None]:
        """Run a call; its failure, or the refusal of a file, is shown at the top of the page."""
        task = self.context.start(self._told(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def action(self, handler: Callable[[], Call]) -> Callable[[], None]:
        """Return an event handler that clears the alert and starts the call that `handler` makes."""

        def act() -> None:
            self.context.alert.clear()
            self.start(handler())

        return act

    def cancel(self) -> None:
        """Cancel what runs, which cancels the calls at the server."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _told(self, call: Call) -> None:
        try:
            await call
        except FileRefusedError as error:
            self.context.alert.show(str(error))


async def choose(
    context: Context,
    what: str,
    fits: Callable[[ModelInfo], bool],
    show: Callable[[ModelInfo, Work], object],
) -> None:
    """Let the user choose one of the versions that serve, and show its panel; the first one at once.

    Args:
        context: The page.
        what: The use of the models in words, for the case that none serves.
        fits: Tells whether a version can be chosen.
        show: Fills the panel of a version, whose `spec` is complete.

    Raises:
        SeqserveError: The versions could not be listed.
    """
    ui.add_css(STYLE)
    models = await context.client.models()
    found = [each for each in models if each.status is ModelStatus.READY and fits(each)]
    if found:
        await _offer(context, found, show)
    else:
        ui.label(f"No model for {what} serves here. The page Models lists the versions.")


async def _offer(context: Context, found: list[ModelInfo], show: Callable[[ModelInfo, Work], object]) -> None:
    """Show the choice, and the panel of the first version."""
    titles = {place: f"{model.name}, version {model.version}" for place, model in enumerate(found)}
    select = ui.select(titles, value=0, label="Model").classes("w-64")
    body = ui.column().classes("w-full")
    choices, panel = Work(context), Work(context)

    async def fill() -> None:
        chosen = found[select.value]
        model = await context.client.model(chosen.name, chosen.version)
        panel.cancel()
        body.clear()
        with body:
            show(model, panel)

    def change() -> None:
        choices.cancel()
        choices.action(fill)()

    select.on_value_change(change)
    await fill()
