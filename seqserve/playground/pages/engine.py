"""The page Engine: the ticks of a model's engines as they run, and the numbers of the last second."""

import asyncio
from pathlib import Path
from typing import Final

from nicegui import ui

from seqserve.engine_results import EngineTicks
from seqserve.playground.context import Context
from seqserve.playground.engine_load import NUM_SEQUENCES, send_load
from seqserve.playground.engine_numbers import EngineNumbers, EngineWindow
from seqserve.playground.engine_picture import SPANS, EnginePicture, looks
from seqserve.playground.server import Health, Status
from seqserve.results import ModelInfo, ModelStatus

_SPAN_S: Final = 2.0
_STYLE: Final = Path(__file__).parents[1] / "static" / "engine.css"
_TILES: Final = (
    ("rows", "Rows in a tick", "mean of the last second"),
    ("active", "Hold a slot", "sequences now"),
    ("waiting", "Waiting", "sequences now"),
    ("useful", "Useful time steps", "share of those computed; the rest is padding"),
    ("first_token", "Time to first token", "mean of the last 10 seconds"),
    ("ticks", "Ticks per second", "runs of the network"),
    ("tokens", "Tokens per second", "generated"),
)

_READING: Final = """
Each line is a slot, and a pale bar in it is a sequence: it joins when it gets the slot and leaves when it
is over, without waiting for the others. Each block on it is a **tick**, one run of the network over all
blocks that stand above each other. A *chunk tick* (P, L, E, S) runs a few time steps of input that is
given, a *step tick* (D) one sampled token or a few of each generation; where there are both, they take
turns. The number in a block are the time steps of that row in that tick, and its pale part is padding. The
strip below has the rows of each tick, and a line for those that wait.

Pause, or click a block, and go from tick to tick with the arrow keys; plus, minus and the mouse wheel zoom.
"""


async def build(context: Context) -> None:
    """Show the engines of a model that serves."""
    models = [one for one in await context.client.models() if one.status is ModelStatus.READY]
    if not models:
        ui.label("No model serves: the page Models says why.")
        return
    ui.add_css(_STYLE)
    EnginePage(context, models)


class EnginePage:
    """The page of one tab: one watch at a time, and one load at a time.

    Args:
        context: Server and tab.
        models: Versions that serve.
    """

    def __init__(self, context: Context, models: list[ModelInfo]) -> None:
        self._context = context
        self._watch: asyncio.Task[None] | None = None
        self._load: asyncio.Task[None] | None = None
        self._window = EngineWindow()
        self._is_stopped = False
        # Prefill and decode are seen with a model that generates, which comes first.
        models = sorted(models, key=lambda model: model.task != "text-generation")
        names = list(dict.fromkeys(model.name for model in models))
        with ui.row().classes("w-full items-center sq-engine-bar"):
            self._model = ui.select(names, value=names[0], label="Model", on_change=self._begin_watch)
            self._model.classes("sq-model")
            self._stop = ui.button("Pause", icon="pause", on_click=self._turn).props("outline id=sq-pause")
            self._send = ui.button(
                f"Send {NUM_SEQUENCES} sequences",
                icon="play_arrow",
                on_click=context.action(self._begin_load),
            ).classes("sq-send")
            self._cancel = ui.button("Cancel", icon="close", on_click=self._end_load).classes("sq-cancel")
            self._cancel.props("outline").set_visibility(False)
            self._span = ui.select(
                {span: f"{span:g} s" for span in SPANS}, value=_SPAN_S, label="Width", on_change=self._zoom
            )
        self._tiles = _tiles()
        self._watched = ui.label("").classes("sq-quiet").props("role=status")
        _legend()
        self._picture = EnginePicture(_SPAN_S, self._stop_picture, self._show_span)
        self._picture.classes("w-full")
        _explain()
        self._picture.client.on_delete(context.server.listen(self._follow))

    def _follow(self, health: Health) -> None:
        """Watch again once the server is back."""
        is_watching = self._watch is not None and not self._watch.done()
        if health.status is Status.SERVING and not is_watching:
            self._begin_watch()

    def _begin_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._window = EngineWindow()
        self._picture.forget()
        self._show_stopped(False)
        self._watch = self._context.start(self._run_watch(self._model.value))

    async def _run_watch(self, model: str) -> None:
        async with self._context.client.watch_engine(model) as watch:
            async for item in watch:
                self._show(item)

    def _show(self, item: EngineTicks) -> None:
        numbers = self._window.add(item)
        for name, text in texts_of(numbers).items():
            self._tiles[name].set_text(text)
        slots = " + ".join(map(str, item.slots))
        missed = f"; {numbers.dropped} ticks were too many to send" if numbers.dropped else ""
        self._watched.set_text(f"Watching {item.model} {item.version}, {slots} slots{missed}")
        if item.ticks and not self._is_stopped:
            self._picture.push(item)

    def _turn(self) -> None:
        self._picture.stop(not self._is_stopped)
        self._show_stopped(not self._is_stopped)

    def _stop_picture(self) -> None:
        """Note that the picture has stopped by itself."""
        self._show_stopped(True)

    def _show_stopped(self, is_stopped: bool) -> None:
        self._is_stopped = is_stopped
        self._stop.set_text("Go on" if is_stopped else "Pause")
        self._stop.props(
            f"icon={'play_arrow' if is_stopped else 'pause'} aria-pressed={str(is_stopped).lower()}"
        )

    def _show_span(self, span_s: float) -> None:
        """Show the width that the picture was zoomed to."""
        self._span.set_value(span_s)

    def _zoom(self) -> None:
        self._picture.show_span(self._span.value)

    async def _begin_load(self) -> None:
        """Send the load; the button is off meanwhile, so that a tab sends one at a time."""
        self._load = asyncio.current_task()
        self._send.disable()
        self._cancel.set_visibility(True)
        try:
            model = await self._context.client.model(self._model.value)
            await send_load(self._context.client, model)
        finally:
            self._send.enable()
            self._cancel.set_visibility(False)

    def _end_load(self) -> None:
        if self._load is not None:
            self._load.cancel()


def texts_of(numbers: EngineNumbers) -> dict[str, str]:
    """Return what the tiles show, by their names."""
    first_token_ms = None if numbers.first_token_s is None else numbers.first_token_s * 1000
    useful = None if numbers.useful is None else numbers.useful * 100
    return {
        "rows": _number(numbers.rows, "", 1),
        "active": str(numbers.active),
        "waiting": str(numbers.waiting),
        "useful": _number(useful, " %", 1),
        "first_token": _number(first_token_ms, " ms", 1),
        "ticks": _number(numbers.ticks_per_s, "", 0),
        "tokens": _number(numbers.tokens_per_s, "", 0),
    }


def _number(value: float | None, unit: str, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def _tiles() -> dict[str, ui.label]:
    tiles = {}
    with ui.element("dl").classes("sq-tiles w-full"):
        for name, title, note in _TILES:
            with ui.element("div").classes("sq-tile"):
                with ui.element("dt"):
                    ui.label(title)
                    ui.label(note).classes("sq-quiet sq-note")
                with ui.element("dd"):
                    tiles[name] = ui.label("-").classes(f"sq-number sq-number-{name}")
    return tiles


def _legend() -> None:
    with ui.row().classes("sq-kinds").props('aria-label="Colours" role=list'):
        for look in looks()[:-1]:
            with ui.row().classes("items-center no-wrap").props("role=listitem"):
                ui.label(look["letter"]).classes("sq-swatch").style(
                    f"background: {look['color']}; color: {look['text']}"
                )
                ui.label(look["name"])
        ui.label("pale: padding").classes("sq-quiet")


def _explain() -> None:
    with ui.expansion("How to read it", icon="help_outline").classes("w-full"):
        ui.markdown(_READING)
