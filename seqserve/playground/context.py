"""Declares what a page is built with: the server, and the tab that shows the page.

Calls of a page run as tasks of its tab. When the tab closes they are cancelled, which cancels their calls at
the server. The failure of a call becomes a sentence at the top of the page.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nicegui import Client, background_tasks, ui

from seqserve.aio import AsyncClient
from seqserve.errors import SeqserveError, Unavailable
from seqserve.playground.server import Server

_LOG: Final = logging.getLogger("seqserve.playground")
_FAULT: Final = (
    "This is a fault of the playground, {what}; the terminal names the place. Reload the page to go on."
)

Call = Coroutine[Any, Any, None]


@dataclass(eq=False, slots=True)
class Tab:
    """One browser tab and the tasks that run for it.

    Attributes:
        client: NiceGUI's connection to the tab.
    """

    client: Client
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self, call: Call) -> asyncio.Task[None]:
        """Run a coroutine until it ends or the tab closes; new elements go into the tab's page."""
        task: asyncio.Task[None] = background_tasks.create(call, name="call of a page", context=self.client)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel the tasks, and return once all of them have ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Alert:
    """The sentence about the latest failure, at the top of a page; screen readers say it at once."""

    def __init__(self) -> None:
        with ui.row().classes("sq-alert w-full items-center no-wrap").props("role=alert") as self._row:
            ui.icon("error_outline").props("aria-hidden=true")
            self._label = ui.label().classes("grow")
            ui.button(icon="close", on_click=self.clear, color=None).props(
                'flat round dense aria-label="Close the message"'
            )
        self.clear()

    @property
    def text(self) -> str:
        """The sentence, or ""."""
        return self._label.text if self._row.visible else ""

    def show(self, text: str, *, is_outage: bool = False) -> None:
        """Show a sentence instead of the one before.

        Args:
            text: The sentence.
            is_outage: Whether it says that the server cannot be reached, which `end_outage` then takes back.
        """
        self._is_outage = is_outage
        self._label.set_text(text)
        self._row.set_visibility(True)

    def end_outage(self) -> None:
        """Take back a sentence about a server that could not be reached, once it is."""
        if self._is_outage:
            self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._is_outage = False
        self._label.set_text("")
        self._row.set_visibility(False)


@dataclass(frozen=True, slots=True)
class Context:
    """The server and the tab that a page is built with.

    Attributes:
        server: The server and its health.
        tab: The tab that shows the page.
        alert: Shows the latest failure.
    """

    server: Server
    tab: Tab
    alert: Alert

    @property
    def client(self) -> AsyncClient:
        """The client, which all tabs share."""
        return self.server.client

    def start(self, call: Call) -> asyncio.Task[None]:
        """Run a call in the tab; its failure is shown, and it is cancelled when the tab closes.

        Cancelling the task that is returned cancels the call at the server.
        """
        return self.tab.start(self._told(call))

    def action(self, handler: Callable[[], Call]) -> Callable[[], None]:
        """Return an event handler that clears the alert and starts the call that `handler` makes."""

        def act() -> None:
            self.alert.clear()
            self.start(handler())

        return act

    def fail(self, error: Exception) -> None:
        """Show a failure; of one that is no failed call, the log gets type and place, and never the text."""
        if isinstance(error, SeqserveError):
            self.alert.show(self.server.describe(error), is_outage=isinstance(error, Unavailable))
        elif isinstance(error, TimeoutError):  # of a script in the browser; calls raise DeadlineExceeded
            self.alert.show("The browser did not answer in time: reload the page.")
        else:
            log_fault(error)
            self.alert.show(_FAULT.format(what=type(error).__name__))

    async def _told(self, call: Call) -> None:
        try:
            await call
        except Exception as error:
            self.fail(error)


def log_fault(error: Exception) -> None:
    """Log the type and the place of an exception; its text may hold what a user typed."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
    _LOG.error("%s at %s", type(error).__name__, place)
