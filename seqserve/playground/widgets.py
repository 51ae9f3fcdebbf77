"""Elements that several pages use: bars, dropped files, tables, downloads, charts."""

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import events, ui

from seqserve.playground.bars import Bar
from seqserve.playground.context import Call
from seqserve.playground.downloads import MEDIA_TYPE
from seqserve.playground.drawing import category_color, chart_options
from seqserve.playground.uploads import (
    DATE_COLUMN,
    DATE_FORMAT,
    ENCODING,
    FUTURE_DATES,
    MAX_FILE_BYTES,
    OLDEST_FIRST,
    SEQUENCE_COLUMN,
    FileRefusedError,
    HowToRead,
    check_size,
)
from seqserve.playground.work import Work
from seqserve.tables.files import UTF8
from seqserve.tabular import Record

MAX_TABLE_ROWS = 200
MAX_TABLE_COLUMNS = 24
ROWS_A_PAGE = 10
# NiceGUI calls the slot's scope props. The title is a constant of a page.
_DROP_HEADER = (
    '<div class="row items-center no-wrap q-pa-sm"><div class="col">{title}</div>'
    '<q-btn type="a" label="Choose a file" icon="upload_file" flat no-caps @click="props.pickFiles">'
    "<q-uploader-add-trigger></q-uploader-add-trigger></q-btn></div>"
)
# Text, and lines that stay behind the data, on light and dark pages.
_GREY, _FAINT = "#757575", "rgba(128, 128, 128, 0.3)"
_AXIS: dict[str, Any] = {
    "axisLabel": {"color": _GREY},
    "axisLine": {"lineStyle": {"color": _GREY}},
    "splitLine": {"lineStyle": {"color": _FAINT}},
}
Legend = str | dict[str, str]
"""Name of a series in a legend, or its name and icon."""

_GRID = "display: grid; grid-template-columns: minmax(4rem, max-content) 1fr 4.5rem; gap: 6px 12px"


class BarRows:
    """Probabilities as bars, in rows of elements that screen readers read: label, bar, percent."""

    def __init__(self) -> None:
        self._grid = ui.element("div").classes("w-full items-center sq-bars").style(_GRID)
        self._rows: list[tuple[ui.label, ui.linear_progress, ui.label]] = []

    def show(self, bars: Sequence[Bar]) -> None:
        """Show bars instead of those before; the longest one's label is bold."""
        if len(bars) != len(self._rows):
            self._grid.clear()
            with self._grid:
                self._rows = [self._row(place) for place in range(len(bars))]
        longest = max((bar.share for bar in bars), default=0.0)
        for bar, (label, line, percent) in zip(bars, self._rows, strict=True):
            label.set_text(bar.label)
            label.classes(replace="text-bold" if bar.share == longest else "")
            line.set_value(bar.share)
            percent.set_text(bar.percent)

    @staticmethod
    def _row(place: int) -> tuple[ui.label, ui.linear_progress, ui.label]:
        label = ui.label()
        line = ui.linear_progress(0, show_value=False, size="14px", color=category_color(place))
        line.props("aria-hidden=true instant-feedback rounded")
        return label, line, ui.label().classes("text-right")


def drop_file(title: str, work: Work, read: Callable[[str, bytes], Call]) -> None:
    """Show a place to drop a file, or to choose one; its content is read in a call of the panel.

    Args:
        title: What to drop, in HTML.
        work: Runs the call.
        read: Makes the call of the file's name and its bytes.
    """

    async def uploaded(event: events.UploadEventArguments) -> None:
        check_size(event.file.name, event.file.size())
        await read(event.file.name, await event.file.read())

    def dropped(event: events.UploadEventArguments) -> None:
        work.action(lambda: uploaded(event))()
        upload.reset()

    async def rejected() -> None:
        raise FileRefusedError(
            f"The file is refused: expected one file of at most {MAX_FILE_BYTES >> 20} MiB"
        )

    upload = ui.upload(
        auto_upload=True, max_file_size=MAX_FILE_BYTES, on_upload=dropped, on_rejected=work.action(rejected)
    )
    upload.classes("w-full sq-drop").props("flat bordered max-files=1")
    upload.add_slot("header", _DROP_HEADER.format(title=title))


class Reading:
    """Controls that say how a file is read.

    Args:
        has_rows: Whether files hold rows of numbers, whose order and dates matter.
        has_sequences: Whether a column may tell sequences apart.
    """

    def __init__(self, *, has_rows: bool, has_sequences: bool = False) -> None:
        self._how: dict[str, Any] = {}
        with (
            ui.expansion("How files are read").classes("w-full").props("dense"),
            ui.row().classes("items-center"),
        ):
            self._text(ENCODING, "encoding", UTF8)
            if has_rows:
                self._text(DATE_COLUMN, "date_column", "")
                self._text(DATE_FORMAT, "date_format", "")
                self._switch(OLDEST_FIRST, "is_oldest_first")
                self._switch(FUTURE_DATES, "may_be_future")
            if has_sequences:
                self._text(SEQUENCE_COLUMN, "sequence_column", "")

    @property
    def how(self) -> HowToRead:
        """The options as the controls say now."""
        return HowToRead(**{name: control.value for name, control in self._how.items()})

    def _text(self, title: str, name: str, value: str) -> None:
        self._how[name] = ui.input(title, value=value).props("dense").classes("w-40")

    def _switch(self, title: str, name: str) -> None:
        self._how[name] = ui.switch(title)


def show_table(records: Sequence[Record]) -> None:
    """Show the first rows and columns of records, and say how many there are where that is not all."""
    titles = list(dict.fromkeys(title for record in records for title in record))
    columns = [
        {"name": f"c{place}", "label": title, "field": f"c{place}", "align": "left"}
        for place, title in enumerate(titles[:MAX_TABLE_COLUMNS])
    ]
    rows = [
        {"id": number}
        | {
            f"c{place}": cell_text(record.get(title, ""))
            for place, title in enumerate(titles[:MAX_TABLE_COLUMNS])
        }
        for number, record in enumerate(records[:MAX_TABLE_ROWS])
    ]
    table = ui.table(columns=columns, rows=rows, row_key="id", pagination={"rowsPerPage": ROWS_A_PAGE})
    table.classes("w-full sq-table").props("dense flat bordered")
    if len(rows) <= ROWS_A_PAGE:
        table.props("hide-pagination")
    if len(records) > len(rows) or len(titles) > len(columns):
        ui.label(
            f"The first {len(rows):,} of {len(records):,} rows, {len(columns):,} of {len(titles):,} columns; "
            "the download has all."
        ).classes("sq-quiet")


def cell_text(value: object) -> str:
    """Return a cell as text, of numbers six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def download_button(title: str, name: str, content: Callable[[], bytes]) -> ui.button:
    """Show a button that downloads a table as CSV.

    Args:
        title: Text of the button.
        name: Name of the file.
        content: Makes the file when the button is pressed.
    """

    def press() -> None:
        ui.download.content(content(), name, MEDIA_TYPE)

    return ui.button(title, icon="download", on_click=press).props("outline no-caps")


class LineChart:
    """Lines over numbered steps.

    Args:
        x_title: Title of the steps.
        y_title: Title of the values.
    """

    def __init__(self, x_title: str, y_title: str) -> None:
        self._x_title, self._y_title = x_title, y_title
        self._chart = ui.echart(self._options([], [], [])).classes("w-full sq-chart").style("height: 340px")

    def show(
        self,
        steps: Sequence[str],
        series: Sequence[dict[str, Any]],
        legend: Sequence[Legend],
        y_title: str = "",
    ) -> None:
        """Show lines instead of those before.

        Args:
            steps: Title of each step.
            series: Series of ECharts over the steps.
            legend: Names of the series that the legend lists.
            y_title: Title of the values; "": the one before.
        """
        self._y_title = y_title or self._y_title
        self._chart.options.update(self._options(steps, series, legend))
        self._chart.update()

    def _options(
        self, steps: Sequence[str], series: Sequence[dict[str, Any]], legend: Sequence[Legend]
    ) -> dict[str, Any]:
        return chart_options(
            {
                "legend": {
                    "type": "scroll",
                    "top": 0,
                    "data": list(legend),
                    "textStyle": {"color": _GREY},
                },
                "grid": {"left": 12, "right": 20, "top": 56, "bottom": 28, "containLabel": True},
                "xAxis": {
                    **_AXIS,
                    "type": "category",
                    "data": list(steps),
                    "name": self._x_title,
                    "nameTextStyle": {"color": _GREY},
                    "nameLocation": "middle",
                    "nameGap": 28,
                },
                "yAxis": {
                    **_AXIS,
                    "type": "value",
                    "scale": True,
                    "name": self._y_title,
                    "nameTextStyle": {"align": "left", "color": _GREY},
                },
                "series": list(series),
            }
        )
