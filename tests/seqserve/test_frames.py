"""Tables are read by the names of their columns, whatever package they are of, and never by position."""

import json
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pytest

from seqserve import AsyncClient, Client, InvalidArgument, NotFound, WrongType, WrongValue
from seqserve.frames import Frame, ModelColumns, in_order, read_observations
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, stock_forecast

COLUMNS = ModelColumns("stock", 2, ("open", "close", "volume"))
ROWS = [[1.0, 2.0, 300.0], [1.5, 2.5, 310.0], [1.75, 2.75, 320.0]]
DAYS = [date(2024, 1, 1) + timedelta(days=day) for day in (0, 1, 4)]
VALUES = dict(zip(COLUMNS.names, map(list, zip(*ROWS, strict=True)), strict=True))
SHUFFLED = {"Volume": VALUES["volume"], " close": VALUES["close"], "OPEN": VALUES["open"]}


class Bar(NamedTuple):
    volume: float
    close: float
    open: float


class ArrowColumn:
    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def to_pylist(self) -> list[Any]:
        return self._values


class ArrowTable:
    """The methods of a pyarrow.Table that are used, which is no dependency of the tests."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    def column(self, place: int) -> Any:
        return ArrowColumn(list(self._columns.values())[place])


def _read(value: Any, columns: ModelColumns = COLUMNS) -> list[list[float]]:
    found = read_observations("observations", value)
    assert isinstance(found, Frame)
    return in_order("observations", found, columns)


STRUCTURED = np.array(
    [(volume, open_, close) for open_, close, volume in ROWS],
    dtype=[("volume", "i8"), ("open", "f4"), ("close", "f8")],
)
TABLES = {
    "pandas": pd.DataFrame(SHUFFLED),
    "polars": pl.DataFrame(SHUFFLED),
    "pyarrow": ArrowTable(SHUFFLED),
    "a structured array": STRUCTURED,
    "rows of a structured array": list(STRUCTURED),
    "dicts": pl.DataFrame(SHUFFLED).to_dicts(),
    "dicts in other orders": [
        {"close": 2.0, "open": 1.0, "volume": 300},
        {"volume": 310, "close": 2.5, "open": 1.5},
        {"open": 1.75, "volume": 320, "close": 2.75},
    ],
    "named tuples": [Bar(volume, close, open_) for open_, close, volume in ROWS],
    "itertuples": list(pd.DataFrame(VALUES).itertuples()),
    "named rows of polars": list(pl.DataFrame(SHUFFLED).iter_rows(named=True)),
    "rows of pandas": [row for _, row in pd.DataFrame(SHUFFLED).iterrows()],
    "pandas, nullable": pd.DataFrame(SHUFFLED).convert_dtypes(),
    "pandas by date": pd.DataFrame(VALUES, index=pd.DatetimeIndex(DAYS)),
    "pandas by date in a zone": pd.DataFrame(VALUES, index=pd.DatetimeIndex(DAYS, tz="UTC")),
    "pandas by period": pd.DataFrame(VALUES, index=pd.PeriodIndex(DAYS, freq="D")),
    "pandas by ISO text": pd.DataFrame(VALUES, index=list(map(str, DAYS))),
    "pandas, rows chosen": pd.DataFrame(VALUES, index=[3, 5, 9]),
    "pandas, concatenated": pd.DataFrame(VALUES, index=[0, 1, 0]),
    "pandas with dates": pd.DataFrame({"Date": DAYS, **VALUES}),
    "pandas with timestamps": pd.DataFrame({"when": pd.DatetimeIndex(DAYS), **VALUES}),
    "pandas with ISO text": pd.DataFrame({"date": list(map(str, DAYS)), **VALUES}),
    "pandas after reset_index": pd.DataFrame(VALUES, index=pd.DatetimeIndex(DAYS)).reset_index(),
    "polars with dates": pl.DataFrame({"when": DAYS, **VALUES}),
    "polars with seconds": pl.DataFrame({"timestamp": [10, 20, 30], **VALUES}),
    "dicts with dates": pl.DataFrame({"day": DAYS, **VALUES}).to_dicts(),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_columns_come_in_the_order_of_the_model(table: Any) -> None:
    assert _read(table) == ROWS


def test_a_name_in_the_same_case_comes_first() -> None:
    frame = pl.DataFrame({"Open": [9.0], "open": [1.0], "Close": [2.0], "VOLUME": [300.0]})
    with pytest.raises(WrongValue, match="found also Open"):
        _read(frame)
    assert _read(frame, ModelColumns("m", 1, ("open", "Open", "close", "volume"))) == [[1.0, 9.0, 2.0, 300.0]]


Lonely = namedtuple("Lonely", ["o", "c", "v"])
FALLING = DAYS[::-1]
REFUSED: dict[str, tuple[Any, str]] = {
    "a missing column": (pd.DataFrame(VALUES).drop(columns="close"), "missing: close"),
    "a missing column in polars": (pl.DataFrame(VALUES).drop("open"), "missing: open"),
    "another column": (pd.DataFrame({**VALUES, "adj close": 1.0}), "found also adj close"),
    "a name of the series": (pl.DataFrame({**VALUES, "ticker": ["A", "B", "A"]}), "found also ticker"),
    "no names": (pd.DataFrame(ROWS), "found 0, 1, 2; missing: open, close, volume"),
    "several levels of names": (
        pd.DataFrame(np.array(ROWS), columns=pd.MultiIndex.from_product([["GOOG"], COLUMNS.names])),
        "missing: open",
    ),
    "a name twice": (
        pd.DataFrame(np.ones((2, 4)), columns=["open", "open", "close", "volume"]),
        "expected one column open, found 2",
    ),
    "a name twice in other cases": (
        pd.DataFrame(np.ones((2, 4)), columns=["Open", "OPEN", "close", "volume"]),
        "expected one column open, found 2",
    ),
    "dicts of other names": ([{"o": 1.0}], "found o; missing"),
    "dicts that differ": ([dict.fromkeys(COLUMNS.names, 1.0), {"open": 1.0}], r"observations\[1\]: expected"),
    "a dict, then a list": ([dict.fromkeys(COLUMNS.names, 1.0), [1.0, 2.0, 3.0]], r"\[1\]: .*found a list"),
    "named tuples of other names": ([Lonely(1.0, 2.0, 3.0)], "found o, c, v"),
    "newest first by index": (pd.DataFrame(VALUES, index=pd.DatetimeIndex(FALLING)), "dates that rise"),
    "newest first by text": (pd.DataFrame(VALUES, index=list(map(str, FALLING))), "dates that rise"),
    "newest first by column": (pl.DataFrame({"day": FALLING, **VALUES}), "dates that rise .* column day"),
    "newest first by ISO text": (
        pd.DataFrame({"date": list(map(str, FALLING)), **VALUES}),
        "dates that rise",
    ),
    "newest first by seconds": (pl.DataFrame({"timestamp": [3, 2, 1], **VALUES}), "dates that rise"),
    "newest first in dicts": (pl.DataFrame({"day": FALLING, **VALUES}).to_dicts(), "dates that rise"),
    "turned round": (pd.DataFrame(VALUES)[::-1], "row numbers that fall from 2 to 0"),
    "one date out of order": (
        pd.DataFrame(VALUES, index=pd.DatetimeIndex([DAYS[1], DAYS[0], DAYS[2]])),
        "found 2024-01-01 00:00:00 in row 1 after 2024-01-02",
    ),
    "dates that cannot be read": (
        pd.DataFrame({"date": ["one day"] * 3, **VALUES}),
        "found one day in row 0; sort the rows oldest first, then leave it out",
    ),
    "labels that cannot be read": (pd.DataFrame(VALUES, index=list("abc")), "the index, found a in row 0"),
    "a missing date": (
        pd.DataFrame(VALUES, index=pd.DatetimeIndex([*DAYS[:2], pd.NaT])),
        "found NaT in row 2",
    ),
    "dates of two kinds": (
        pd.DataFrame({"date": [datetime(2024, 1, 1), datetime(2024, 1, 2, tzinfo=UTC), 3], **VALUES}),
        "dates of one kind in column date",
    ),
    "several levels of index": (
        pd.DataFrame(VALUES, index=pd.MultiIndex.from_product([["GOOG"], DAYS])),
        "expected dates",
    ),
    "a gap": (pd.DataFrame({**VALUES, "close": [1.0, None, 2.0]}), r"\[1\].close: expected a finite .*nan"),
    "a gap in polars": (pl.DataFrame({**VALUES, "close": [1.0, None, 2.0]}), r"\[1\].close: .*found None"),
    "text": (
        pd.DataFrame({**VALUES, "close": ["1", "2", "3"]}),
        r"\[0\].close: expected a number, found a str",
    ),
    "truth": (pl.DataFrame({**VALUES, "close": [True] * 3}), r"\[0\].close: .*found a bool"),
    "dates for numbers": (pd.DataFrame({**VALUES, "close": pd.DatetimeIndex(DAYS)}), "found a Timestamp"),
    "a lazy frame": (pl.LazyFrame(VALUES), "expected a pandas or polars DataFrame.*found a LazyFrame"),
}


@pytest.mark.parametrize(("table", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_tables_that_may_be_misread_are_refused(table: Any, message: str) -> None:
    with pytest.raises((WrongType, WrongValue), match=message) as caught:
        _read(table)
    assert caught.value.violations[0].field.startswith("observations")


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (pd.DataFrame(VALUES).iloc[0], "a float"),
        (pd.DataFrame({"day": DAYS, **VALUES}).iloc[0], "a date"),
        (ROWS[0], "a float"),
        (np.array(ROWS[0]), "a float"),
        (Bar(1.0, 2.0, 3.0), "a float"),
    ],
)
def test_a_single_observation_is_told_to_go_into_a_list(row: Any, found: str) -> None:
    with pytest.raises(
        WrongType, match=rf"observations\[0\]: .*found {found}; .*goes into a list.*: push\(\[row\]"
    ):
        read_observations("observations", row)


def test_a_model_that_names_no_columns_takes_no_table() -> None:
    with pytest.raises(WrongValue, match="stock version 2 names no columns"):
        _read(TABLES["pandas"], ModelColumns("stock", 2, ()))


@pytest.fixture
def stock_server(server: ScriptedServer) -> ScriptedServer:
    spec = {"forecasting": {"columns": [{"name": name} for name in COLUMNS.names]}}
    server.models.models.add(name="stock", version=2, spec_json=json.dumps(spec))
    server.forecasts = stock_forecast()
    return server


def _rows_of(observations: Any) -> list[list[float]]:
    return [list(row.values) for row in observations]


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "a structured array"])
@pytest.mark.parametrize("wrap", [lambda each: each, lambda each: [each, each]], ids=["alone", "in a list"])
def test_forecast_takes_tables(stock_server: ScriptedServer, kind: str, wrap: Callable[..., Any]) -> None:
    with Client(stock_server.address, timeout_s=WAIT_S) as client:
        client.forecast(wrap(TABLES[kind]))
    asked, sent = stock_server.requests
    assert asked == models.GetModelRequest(model="stock")
    assert isinstance(sent, forecasting.ForecastRequest)
    assert sent.version == 2, "the version that the names are of"
    assert [_rows_of(series.observations) for series in sent.series] in ([ROWS], [ROWS, ROWS])


async def test_tables_and_lists_may_be_mixed(stock_server: ScriptedServer) -> None:
    async with AsyncClient(stock_server.address, timeout_s=WAIT_S) as client:
        await client.forecast([ROWS[:1], TABLES["polars"], np.array(ROWS)], version=2)
        await client.forecast([TABLES["pandas"]], version=2)
    requests = stock_server.requests
    assert [type(request).__name__ for request in requests] == [
        "GetModelRequest",
        "ForecastRequest",
        "ForecastRequest",
    ], "a version that is given is looked up once"
    assert isinstance(requests[1], forecasting.ForecastRequest)
    assert [_rows_of(series.observations) for series in requests[1].series] == [ROWS[:1], ROWS, ROWS]


@pytest.mark.parametrize("kind", ["sync", "aio"])
async def test_pushes_take_tables(stock_server: ScriptedServer, kind: str) -> None:
    week, today = pl.DataFrame(SHUFFLED), pd.DataFrame(SHUFFLED)[-1:]
    if kind == "sync":
        with Client(stock_server.address) as client, client.forecast_stream() as stream:
            stream.push(week)
            with pytest.raises(WrongValue, match=r"^observations: .*missing: open"):
                stream.push(week.drop("OPEN"))
            assert stream.push(today).last_value == 320.0
    else:
        async with AsyncClient(stock_server.address) as aio, aio.forecast_stream() as following:
            await following.push(week)
            with pytest.raises(WrongValue, match=r"^observations: .*missing: open"):
                await following.push(week.drop("OPEN"))
            assert (await following.push(today)).last_value == 320.0
    first, last = [
        request for request in stock_server.requests if isinstance(request, forecasting.ForecastStreamRequest)
    ]
    assert (first.version, _rows_of(first.observations)) == (2, ROWS)
    assert _rows_of(last.observations) == ROWS[-1:]


def test_an_open_series_is_read_by_the_columns_of_its_own_version(stock_server: ScriptedServer) -> None:
    with Client(stock_server.address) as client, client.forecast_stream() as stream:
        stream.push(ROWS)
        stream.push(TABLES["pandas"])
    asked = [request for request in stock_server.requests if isinstance(request, models.GetModelRequest)]
    assert asked == [models.GetModelRequest(model="stock", version=4)], "the version that answered"


def test_a_model_that_is_unknown_is_not_found(stock_server: ScriptedServer, client: Client) -> None:
    stock_server.failure = None
    stock_server.breaks.append((0, _not_found()))
    with pytest.raises(NotFound):
        client.forecast(TABLES["pandas"])


def _not_found() -> Any:
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    return Status(code=5, message="no model stock")


def test_refusals_are_invalid_arguments() -> None:
    with pytest.raises(InvalidArgument):
        _read(REFUSED["a missing column"][0])
