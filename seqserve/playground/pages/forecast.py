"""The page Forecast: a history, the fan of quantiles after it, and how it moves with each further row."""

import asyncio
from pathlib import PurePath

from nicegui import ui

from seqserve.errors import InvalidArgument
from seqserve.playground.context import Context
from seqserve.playground.downloads import csv_of_records
from seqserve.playground.drawing import OKABE_ITO
from seqserve.playground.examples import example_series
from seqserve.playground.fan import EARLIER, Fan, Target, fan_of, fan_records, fan_series
from seqserve.playground.kept_series import KeptSeries, Row, parse_row, row_text
from seqserve.playground.uploads import read_series, short_name
from seqserve.playground.widgets import Legend, LineChart, Reading, download_button, drop_file, show_table
from seqserve.playground.work import Work, choose
from seqserve.results import Forecast, ModelInfo

TASK = "forecasting"
HELD_BACK = 8
"""Rows at the end of an example that are not sent at first, but pushed one by one."""

MAX_HELD_BACK = 1000
_LEGEND = ("observed", "median", "naive")
_COLORS = ("#757575", OKABE_ITO[0], OKABE_ITO[5])


async def build(context: Context) -> None:
    """Let the user choose a model, and forecast with it."""
    await choose(context, "forecasting", lambda model: model.task == TASK, ForecastPanel)


class ForecastPanel:
    """A series, its forecast, and the rows that follow.

    Args:
        model: The model.
        work: Runs the calls.
    """

    def __init__(self, model: ModelInfo, work: Work) -> None:
        self._model, self._work = model, work
        self._target = Target.of(model)
        self._series: KeptSeries | None = None
        self._following: asyncio.Task[None] | None = None
        self._waiting: list[Row] = []
        self._fan: Fan | None = None
        self._name = ""
        self._show_input()
        self._show_output()

    def _show_input(self) -> None:
        columns, least = ", ".join(self._target.columns), self._target.least
        ui.label(
            f"Takes CSV with the columns {columns}, oldest row first, {least} rows or more; other columns "
            f"are left out. Forecasts {self._target.title}."
        ).classes("sq-quiet")
        drop_file("Drop a CSV file here", self._work, self._read)
        self._reading = Reading(has_rows=True)
        with ui.row().classes("items-center"):
            ui.button("Try an example", icon="lightbulb", on_click=self._work.action(self._try)).props(
                "outline no-caps"
            )
            self._held_back = (
                ui.number("Hold back the last rows", value=0, min=0, max=MAX_HELD_BACK, precision=0)
                .props("dense")
                .classes("w-44")
            )

    def _show_output(self) -> None:
        self._output = ui.column().classes("w-full")
        with self._output:
            self._notes = ui.label().classes("sq-quiet")
            self._told = ui.label().props("role=status").classes("sq-answer")
            self._chart = LineChart("steps from the last row", self._target.title)
            with ui.row().classes("w-full items-center"):
                self._next = ui.input(f"Next row ({', '.join(self._target.columns)})").classes("grow sq-next")
                self._button = ui.button("Push the next row", on_click=self._work.action(self._push))
                self._button.props("no-caps").classes("sq-send")
            self._left = ui.label().classes("sq-quiet")
            self._table = ui.column().classes("w-full")
        self._output.set_visibility(False)

    async def _read(self, name: str, data: bytes) -> None:
        columns, how = self._target.columns, self._reading.how
        found = await asyncio.to_thread(read_series, name, data, columns, how, self._target.calendar)
        wanted = max(0, int(self._held_back.value or 0))
        held_back = min(wanted, MAX_HELD_BACK, len(found.values) - 1)
        self._begin(short_name(name), found.values, held_back)
        self._notes.set_text(" ".join(found.notes))

    async def _try(self) -> None:
        rows = example_series(self._model)
        if not rows:
            self._work.context.alert.show("The model has no golden example to make a series of.")
            return
        self._notes.set_text(
            "A golden example of the model: the changes are real, the level of each column is not."
        )
        self._begin("example", rows, min(HELD_BACK, max(0, len(rows) - self._target.least)))

    def _begin(self, name: str, rows: list[Row], held_back: int) -> None:
        """Show a series without its last rows, which wait to be pushed."""
        self._name = name
        count = len(rows) - held_back
        self._waiting = rows[count:]
        self._series = KeptSeries(self._work.context.client, self._model, rows[:count])
        self._fan = None
        # What stands there belongs to the series before; this one may be refused.
        self._output.set_visibility(False)
        self._follow()

    def _follow(self) -> None:
        if self._following is not None:
            self._following.cancel()
        assert self._series is not None
        self._following = self._work.start(self._followed(self._series))

    async def _followed(self, series: KeptSeries) -> None:
        try:
            await series.follow(self._show, self._refused)
        finally:
            self._button.enable()

    def _refused(self, error: InvalidArgument) -> None:
        self._button.enable()
        self._work.context.fail(error)

    async def _push(self) -> None:
        if self._series is None or self._following is None:
            return
        row = parse_row(self._next.value or "", self._target.columns)
        if self._following.done():
            # The call has failed: the rows so far are sent again, over a new stream.
            self._follow()
        self._series.push(row)
        # Until the answer, the field holds the row that was pushed.
        self._button.disable()
        if self._waiting and row_text(self._waiting[0]) == row_text(row):
            self._waiting.pop(0)

    def _show(self, forecast: Forecast) -> None:
        assert self._series is not None
        rows = self._series.rows
        before, self._fan = self._fan, fan_of(self._target.history(rows), forecast)
        series = fan_series(self._fan, _COLORS, before)
        legend: list[Legend] = [*_LEGEND, *([EARLIER] if before else [])]
        legend += [{"name": band.title, "icon": "roundRect"} for band in self._fan.bands]
        steps = [f"{place:+d}" if place else "0" for place in self._fan.places]
        self._chart.show(steps, series, legend)
        last = forecast.steps[-1].value
        self._told.set_text(
            f"{self._name}: after {len(rows):,} rows, {self._target.title} {forecast.last_value:.6g}; "
            f"{len(forecast.steps)} steps ahead {last:.6g}"
        )
        self._next.set_value(row_text(self._waiting[0] if self._waiting else rows[-1]))
        self._left.set_text(
            f"{len(self._waiting):,} rows held back"
            if self._waiting
            else "The field begins with the last row."
        )
        self._button.enable()
        self._show_table(self._fan)
        self._output.set_visibility(True)

    def _show_table(self, fan: Fan) -> None:
        self._table.clear()
        with self._table:
            records = fan_records(fan)
            name = f"{PurePath(self._name).stem}-forecast.csv"
            download_button("Download the forecast", name, lambda: csv_of_records(records)).classes(
                "sq-download"
            )
            show_table(records)
