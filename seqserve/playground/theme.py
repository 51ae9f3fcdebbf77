"""The frame around every page: header with navigation and the server's state, drawer, theme, keys."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from nicegui import ui

from seqserve.playground.pages import PAGES, Page
from seqserve.playground.server import Health, Server, Status

_FOLDER: Final = Path(__file__).parent / "static"
STYLE: Final = (_FOLDER / "playground.css").read_text(encoding="utf-8")
SCRIPT: Final = (_FOLDER / "playground.js").read_text(encoding="utf-8")
THEME_COOKIE: Final = "seqserve-theme"
# Name, value of ui.dark_mode, icon. The button goes from one to the next.
_THEMES: Final = (
    ("auto", None, "brightness_auto"),
    ("light", False, "light_mode"),
    ("dark", True, "dark_mode"),
)
_ICONS: Final = {
    Status.CONNECTING: "hourglass_empty",
    Status.SERVING: "check_circle",
    Status.NOT_SERVING: "pause_circle",
    Status.UNREACHABLE: "cancel",
}
_KEYS: Final = (
    ("Ctrl+Enter", "send"),
    ("Esc", "cancel what runs"),
    ("g, then a letter", "open a page"),
    ("?", "show this help"),
    ("Tab, Shift+Tab", "next and previous control"),
)


def head_html() -> str:
    """Return what the head of every page has: the styles and the script of the keys, both constants."""
    routes = {page.key: page.route for page in PAGES}
    return f"<style>{STYLE}</style><script>const sqRoutes = {json.dumps(routes)};\n{SCRIPT}</script>"


def frame(page: Page, server: Server, theme: str) -> AbstractContextManager[object]:
    """Build the frame of a page, and return the element that its contents go into.

    Args:
        page: The page.
        server: The server.
        theme: Name of the theme as the cookie says it; an unknown name means auto.
    """
    ui.colors(
        primary="#0072B2", secondary="#5D5D5D", accent="#CC79A7", positive="#009E73", negative="#B3261E"
    )
    keys = _help()
    with ui.left_drawer(value=False, bordered=True).props("behavior=mobile width=240") as drawer:
        _links(page, "column")
    with ui.header().classes("sq-header items-center no-wrap"):
        ui.button(icon="menu", on_click=drawer.toggle, color=None).props(
            'flat round dense aria-label="Pages"'
        ).classes("sq-menu")
        ui.label("seqserve").classes("sq-name")
        with ui.row().classes("sq-nav no-wrap items-center"):
            _links(page, "row")
        ui.space()
        _state(server)
        _theme_button(theme)
        ui.button(icon="keyboard", on_click=keys.open, color=None).props(
            'flat round dense id=sq-help aria-label="Keys"'
        )
    with ui.column().classes("sq-page w-full").props("role=main"):
        _banner(server)
        ui.label(page.title).props("role=heading aria-level=1").classes("sq-title")
        content = ui.column().classes("w-full")
    ui.skip_link("Skip to the page", target=content)
    return content


def _links(current: Page, direction: str) -> None:
    with (
        ui.element("nav").props(f'aria-label="Pages, {direction}"').classes(f"sq-links sq-links-{direction}")
    ):
        for page in PAGES:
            link = ui.link(target=page.route).classes("sq-link")
            if page is current:
                link.props("aria-current=page")
            with link:
                ui.icon(page.icon).props("aria-hidden=true")
                ui.label(page.title)


def _state(server: Server) -> None:
    with ui.row().classes("sq-state no-wrap items-center").props("role=status") as row:
        icon = ui.icon("hourglass_empty").props("aria-hidden=true")
        label = ui.label().classes("sq-state-text")
        tooltip = ui.tooltip("")

    def show(health: Health) -> None:
        icon.props(f"name={_ICONS[health.status]}")
        label.set_text(f"{server.address}: {health.status}")
        tooltip.set_text(f"{server.address}{' (TLS)' if server.has_tls else ''}: {health.status}")

    row.client.on_delete(server.listen(show))


def _banner(server: Server) -> None:
    with ui.row().classes("sq-banner w-full items-center no-wrap").props("role=alert") as row:
        ui.icon("cloud_off").props("aria-hidden=true")
        label = ui.label().classes("grow")

    def show(health: Health) -> None:
        label.set_text(health.advice)
        row.set_visibility(bool(health.advice))

    row.client.on_delete(server.listen(show))


def _theme_button(theme: str) -> None:
    dark = ui.dark_mode()
    button = ui.button(color=None).props("flat round dense id=sq-theme")

    def apply(index: int, *, is_kept: bool) -> None:
        name, value, icon = _THEMES[index]
        dark.set_value(value)
        button.props(f'icon={icon} aria-label="Theme: {name}"')
        if is_kept:
            # A cookie, because the server has to know it before it sends a page; it holds one of three words.
            ui.run_javascript(
                f"document.cookie = '{THEME_COOKIE}={name}; path=/; SameSite=Strict; max-age=31536000'"
            )

    current = next((index for index, (name, *_) in enumerate(_THEMES) if name == theme), 0)
    state = {"index": current}

    def turn() -> None:
        state["index"] = (state["index"] + 1) % len(_THEMES)
        apply(state["index"], is_kept=True)

    button.on_click(turn)
    apply(current, is_kept=False)


def _help() -> ui.dialog:
    with ui.dialog() as dialog, ui.card():
        ui.label("Keys").props("role=heading aria-level=2").classes("text-h6")
        with ui.grid(columns="auto 1fr").classes("sq-keys"):
            for key, what in (*_KEYS, *((f"g {page.key}", page.title) for page in PAGES)):
                ui.label(key).classes("sq-key")
                ui.label(what)
        ui.button("Close", on_click=dialog.close).props("flat")
    return dialog
