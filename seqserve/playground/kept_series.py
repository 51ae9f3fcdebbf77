"""One series of a forecasting model, kept on the server while a page shows it."""

import asyncio
from collections.abc import Callable

from seqserve.aio import AsyncClient
from seqserve.aio_calls import AsyncForecastStream
from seqserve.errors import InvalidArgument
from seqserve.playground.uploads import FileRefusedError
from seqserve.results import Forecast, ModelInfo
from seqserve.tables.errors import TableError
from seqserve.tables.numbers import parse_number

MAX_ROWS_A_MESSAGE = 5000
"""Rows of a long series that are sent in one message; servers take 10,000 unless configured."""

MAX_VALUES_A_MESSAGE = 200_000
"""Numbers in one message, well below the 4 MiB that servers take."""

Row = list[float]


class KeptSeries:
    """A series and the rows that wait to be pushed to it.

    Args:
        client: The client.
        model: The model.
        rows: Rows of the series so far, oldest first.

    Attributes:
        rows: Rows that the server has answered, and those that it has not seen yet at the start.
    """

    def __init__(self, client: AsyncClient, model: ModelInfo, rows: list[Row]) -> None:
        self._client = client
        self._model = model
        self._coming: asyncio.Queue[Row] = asyncio.Queue()
        self.rows = list(rows)

    def push(self, row: Row) -> None:
        """Queue the next row."""
        self._coming.put_nowait(row)

    async def follow(
        self, show: Callable[[Forecast], None], refuse: Callable[[InvalidArgument], None]
    ) -> None:
        """Send the rows over one stream, then each row that is queued, until the task is cancelled.

        The server keeps the state of the series, so that a row costs one time step. A row that the server
        refuses leaves the series as it was.

        Args:
            show: Called with the forecast after all rows, and after each further one.
            refuse: Called with the refusal of a further row.

        Raises:
            SeqserveError: The rows were refused, or the call failed.
        """
        async with self._client.forecast_stream(
            model=self._model.name, version=self._model.version
        ) as stream:
            show(await self._send_all(stream))
            while True:
                row = await self._coming.get()
                try:
                    forecast = await stream.push([row])
                except InvalidArgument as error:
                    refuse(error)
                    continue
                self.rows.append(row)
                show(forecast)

    async def _send_all(self, stream: AsyncForecastStream) -> Forecast:
        width = len(self.rows[0]) if self.rows else 1
        count = min(MAX_ROWS_A_MESSAGE, MAX_VALUES_A_MESSAGE // width) or 1
        forecast = await stream.push(self.rows[:count])
        for begin in range(count, len(self.rows), count):
            forecast = await stream.push(self.rows[begin : begin + count])
        return forecast


def parse_row(text: str, names: tuple[str, ...]) -> Row:
    """Parse the values of one row, with commas, semicolons or spaces between them.

    Raises:
        FileRefusedError: There are more or fewer values than names, or one is no finite number.
    """
    cells = text.replace(",", " ").replace(";", " ").split()
    if len(cells) != len(names):
        raise FileRefusedError(
            f"Next row: expected {len(names)} values ({', '.join(names)}), found {len(cells)}"
        )
    try:
        return [parse_number(f"Next row: {name}", cell) for name, cell in zip(names, cells, strict=True)]
    except TableError as error:
        raise FileRefusedError(str(error)) from error


def row_text(row: Row) -> str:
    """Return a row as text that `parse_row` reads."""
    return ", ".join(f"{value:.8g}" for value in row)
