"""The page Models: what each version takes and gives, its figures, its card with pictures, and health."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from nicegui import ui

from seqserve.cli.describing import command, sentence
from seqserve.errors import NotFound, Unimplemented
from seqserve.playground.cards import markdown_of
from seqserve.playground.context import Context
from seqserve.results import ModelInfo, ModelStatus

_SERVICES: Final = ("TextGeneration", "TextClassification", "Forecasting", "Sequences", "Models")
_ICONS: Final = {
    ModelStatus.READY: "check_circle",
    ModelStatus.LOADING: "hourglass_empty",
    ModelStatus.DRAINING: "pause_circle",
    ModelStatus.FAILED: "error",
}
_MAX_ROWS: Final = 200
"""Rows of a table that are shown; a model may have thousands of labels."""


async def build(context: Context) -> None:
    """Show the services' health and the model versions."""
    page = _Page(context)
    await page.refresh()


class _Page:
    """The list of versions, which is made anew at each refresh.

    Args:
        context: The page's context.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        ui.button("Refresh", icon="refresh", on_click=context.action(self.refresh)).props("flat")
        self._services = ui.row().classes("w-full")
        self._list = ui.column().classes("w-full")

    async def refresh(self) -> None:
        """Ask for the versions and their health, and show them."""
        known = await self._context.client.models()
        services = [f"seqserve.v1.{name}" for name in _SERVICES]
        names = sorted({one.name for one in known})
        checked = [*services, *(f"model/{name}" for name in names)]
        found = await asyncio.gather(*map(self._context.server.check, checked))
        health = dict(zip(checked, found, strict=True))
        self._services.clear()
        with self._services:
            for name in services:
                _health(name.removeprefix("seqserve.v1."), health[name])
        self._list.clear()
        with self._list:
            if not known:
                ui.label("The server has no models.")
            for one in known:
                _Version(self._context, one, health[f"model/{one.name}"])


class _Version:
    """One version: a line, and its details once it is opened.

    Args:
        context: The page's context.
        model: The version as the list has it.
        health: Health of the model.
    """

    def __init__(self, context: Context, model: ModelInfo, health: str) -> None:
        self._context = context
        self._model = model
        self._is_filled = False
        title, icon = f"{model.name} {model.version}", _ICONS.get(model.status, "help")
        caption = f"{model.status}{f', {model.task}' if model.task else ''}; model {model.name}: {health}"
        with ui.expansion(title, caption=caption, icon=icon, on_value_change=self._opened) as expansion:
            self._body = ui.column().classes("w-full")
        expansion.classes("sq-version w-full")

    def _opened(self) -> None:
        if not self._is_filled:
            self._is_filled = True
            self._context.start(self._fill())

    async def _fill(self) -> None:
        try:
            model = await self._context.client.model(self._model.name, self._model.version)
        except BaseException:
            self._is_filled = False
            raise
        with self._body:
            _details(model)
        try:
            card = await self._context.client.card(model.name, model.version)
        except (NotFound, Unimplemented) as error:
            said = self._context.server.describe(error)
            with self._body:
                ui.label(f"No model card: {said}").classes("sq-quiet")
            return
        with self._body:
            ui.separator()
            # The card is what somebody wrote: its HTML is sanitized in the browser.
            ui.markdown(markdown_of(card)).classes("sq-card w-full")


def _health(name: str, status: str) -> None:
    with ui.row().classes("sq-health items-center no-wrap"):
        ui.icon("check_circle" if status == "serving" else "pause_circle").props("aria-hidden=true")
        ui.label(f"{name}: {status}")


def _details(model: ModelInfo) -> None:
    if model.message:
        ui.label(model.message).classes("sq-alert w-full")
    if said := sentence(model):
        ui.label(said)
    if tried := command(model):
        with ui.row().classes("w-full items-center"):
            ui.label("Try it:")
            ui.label(tried).classes("sq-key sq-command")
    with ui.row().classes("w-full items-start"):
        _table("Figures", ("figure", "value"), _figures(model))
        _table("Metrics on held-out data", ("metric", "value"), _metrics(model))
        _table("Values of a time step", ("name", "unit"), [(one.name, one.unit) for one in model.features])
        _table("Labels", ("label",), [(label,) for label in model.labels])


def _figures(model: ModelInfo) -> list[tuple[str, str]]:
    layers = ", ".join(
        f"{'2 x ' if one.bidirectional else ''}{one.kind} {one.width}" for one in model.layer_info
    )
    found = [
        ("task", model.task),
        ("input", model.input),
        ("output", model.output),
        ("layers", layers or str(model.layers)),
        ("kind", model.kind),
        ("weights", model.variant),
        ("provider", model.provider.removesuffix("ExecutionProvider")),
        ("same bits in any batch", "yes" if model.batch_invariant else "no"),
        ("error on golden examples", f"{model.golden_max_error:.3g}"),
        ("source", model.source),
    ]
    return [(name, value) for name, value in found if value]


def _metrics(model: ModelInfo) -> list[tuple[str, str]]:
    return [(name, f"{value:.6g}") for name, value in sorted(model.metrics.items())]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Show rows of text; empty rows, and a table without others, are not shown."""
    known = [row for row in rows if any(row)]
    if not known:
        return
    with ui.column().classes("sq-half"):
        ui.label(title).classes("sq-table-title")
        names = [f"c{index}" for index in range(len(columns))]
        ui.table(
            columns=[
                {"name": name, "label": label, "field": name, "align": "left"}
                for name, label in zip(names, columns, strict=True)
            ],
            rows=[dict(zip(names, row, strict=True)) for row in known[:_MAX_ROWS]],
        ).props("dense flat bordered wrap-cells").classes("sq-metrics w-full")
        if len(known) > _MAX_ROWS:
            ui.label(f"These are the first {_MAX_ROWS} of {len(known)}.").classes("sq-quiet")
