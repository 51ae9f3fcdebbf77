"""Runs the playground: registers the pages, connects to the server, and serves until it is ended."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nicegui import Client, app, ui
from starlette.requests import Request

from seqserve.errors import Unavailable
from seqserve.playground.context import Alert, Context, Tab, log_fault
from seqserve.playground.guard import Guard
from seqserve.playground.pages import PAGES, Page
from seqserve.playground.server import Health, Server, Status, Target
from seqserve.playground.theme import THEME_COOKIE, frame, head_html

# A page that waits for more than this long for its browser's connection is given up.
_CONNECT_TIMEOUT_S: Final = 30.0
MAX_TYPED: Final = 150_000
"""Characters in a field, of at most 6 bytes each in JSON. The browser's side drops a message of more than a
megabyte without a word, and the page would go on with the text before."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The place where the playground listens.

    Attributes:
        host: Host name or address to listen on.
        port: TCP port.
        opens_browser: Whether to open a tab of the default browser.
    """

    host: str
    port: int
    opens_browser: bool


def install(target: Target) -> None:
    """Register the pages with NiceGUI, and open and close the server with it."""
    server = Server(target)
    app.on_startup(server.open)
    app.on_shutdown(server.close)
    ui.add_head_html(head_html(), shared=True)
    for kind in (ui.input, ui.textarea, ui.input_chips):
        kind.default_props(f"maxlength={MAX_TYPED}")
    for page in PAGES:
        ui.page(page.route, title=f"{page.title} - seqserve")(_shown(page, server))


def run(target: Target, listening: Listening) -> None:
    """Serve the playground until SIGINT or SIGTERM."""
    _quiet()
    install(target)
    app.add_middleware(Guard, host=listening.host)
    ui.run(
        host=listening.host,
        port=listening.port,
        title="seqserve",
        favicon=_FAVICON,
        dark=None,
        language="en-US",
        show=listening.opens_browser,
        reload=False,
        show_welcome_message=False,
        uvicorn_logging_level="error",
        access_log=False,
    )


_FAVICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<rect width="16" height="16" rx="3" fill="#0072B2"/>'
    '<path d="M3 11h3V7h3V4h4" fill="none" stroke="#fff" stroke-width="2"/></svg>'
)


def _shown(page: Page, server: Server) -> Any:
    async def show(request: Request, client: Client) -> None:
        content = frame(page, server, request.cookies.get(THEME_COOKIE, ""))
        tab = Tab(client)
        client.on_delete(tab.close)
        with content:
            context = Context(server, tab, alert := Alert())
            client.on_delete(server.listen(partial(_follow, alert)))
            body = ui.column().classes("w-full")
        client.on_exception(context.fail)
        await client.connected(timeout=_CONNECT_TIMEOUT_S)
        context.start(_built(page, context, body))

    return show


def _follow(alert: Alert, health: Health) -> None:
    if health.status is Status.SERVING:
        alert.end_outage()


async def _built(page: Page, context: Context, body: ui.column) -> None:
    """Fill a page; where the server cannot be reached, once more when it is back."""
    while True:
        try:
            with body:
                await page.build(context)
        except Unavailable as error:
            context.fail(error)
        else:
            return
        await context.server.until_serving()
        body.clear()
        context.alert.clear()


def _quiet() -> None:
    """Keep NiceGUI's tracebacks, whose texts may hold what a user typed, out of the log."""
    for name in ("nicegui", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    app.on_exception(partial(log_fault))
