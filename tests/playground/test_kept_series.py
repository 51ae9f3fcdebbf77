"""A series kept on the server while a page shows it: the same forecasts as those of the whole series."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from seqserve.aio import AsyncClient
from seqserve.errors import InvalidArgument
from seqserve.playground import kept_series
from seqserve.playground.kept_series import KeptSeries, parse_row, row_text
from seqserve.playground.uploads import FileRefusedError
from seqserve.results import Forecast
from tests.integration.process import ServerProcess

ROWS = [[100.0 + math.sin(day), 101.0, 99.0, 100.0 + math.cos(day), 1e6] for day in range(30)]
NAMES = ("open", "close")


@pytest_asyncio.fixture
async def client(served: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.address) as client:
        yield client


class Following:
    """A series that is followed, and what it was told."""

    def __init__(self, series: KeptSeries) -> None:
        self.told: asyncio.Queue[Forecast | InvalidArgument] = asyncio.Queue()
        self.task = asyncio.create_task(series.follow(self.told.put_nowait, self.told.put_nowait))

    async def end(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def test_each_pushed_row_gives_the_forecast_of_the_whole_series(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_series, "MAX_ROWS_A_MESSAGE", 8)
    series = KeptSeries(client, await client.model("stock"), ROWS[:27])
    following = Following(series)
    expected = await client.forecast([ROWS[:27], ROWS[:28], ROWS[:29]], model="stock")
    assert await following.told.get() == expected[0]
    for count in (28, 29):
        series.push(ROWS[count - 1])
        assert await following.told.get() == expected[count - 27]
    assert series.rows == ROWS[:29]
    await following.end()


async def test_a_refused_row_leaves_the_series_as_it_was(client: AsyncClient) -> None:
    series = KeptSeries(client, await client.model("stock"), ROWS[:20])
    following = Following(series)
    first = await following.told.get()
    series.push([-1.0, 1.0, 1.0, 1.0, 1.0])
    assert isinstance(await following.told.get(), InvalidArgument)
    assert len(series.rows) == 20
    series.push(ROWS[20])
    assert await following.told.get() != first
    await following.end()


async def test_a_series_that_is_too_short_ends_with_the_server_s_reason(client: AsyncClient) -> None:
    following = Following(KeptSeries(client, await client.model("stock"), ROWS[:3]))
    with pytest.raises(InvalidArgument, match="7"):
        await following.task


def test_a_row_is_read_back_as_it_is_shown() -> None:
    row = [92.664632, 7.5e6]
    assert parse_row(row_text(row), NAMES) == row
    assert parse_row("1; 2", NAMES) == parse_row("1 2", NAMES) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1", r"Next row: expected 2 values \(open, close\), found 1"),
        ("1, two", "Next row: close: expected a finite number, found 'two'"),
        ("1, nan", "Next row: close: expected a finite number, found 'nan'"),
    ],
)
def test_a_row_of_other_values_is_refused_by_its_column(text: str, told: str) -> None:
    with pytest.raises(FileRefusedError, match=told):
        parse_row(text, NAMES)
