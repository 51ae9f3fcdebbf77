"""`seqserve forecast`: CSV in, table, plot or JSON out."""

import gzip
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from seqserve.cli.plot import draw_forecast
from seqserve.messages import forecasts
from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import models_pb2 as models
from tests.seqserve.command import run
from tests.seqserve.scripted_server import ScriptedServer, stock_forecast

CSV = "date,close,open\n2004-08-19,98,97\n2004-08-20,99,98\n2004-08-23,100,99\n"
SPEC = {
    "forecasting": {
        "columns": [{"name": "open", "unit": "USD"}, {"name": "close", "unit": "USD", "transform": "log"}],
        "target": "close",
    }
}


@pytest.fixture
def forecasting_server(server: ScriptedServer) -> ScriptedServer:
    server.models.models.add(
        name="stock",
        version=1,
        status=models.MODEL_STATUS_READY,
        task="forecasting",
        spec_json=json.dumps(SPEC),
    )
    server.forecasts = stock_forecast()
    return server


def test_columns_are_sent_in_the_order_of_the_model(forecasting_server: ScriptedServer) -> None:
    run(
        forecasting_server,
        "forecast",
        "--last",
        "2",
        "--horizon",
        "2",
        "--quantile",
        "0.1",
        "--quantile",
        "0.9",
        stdin=CSV,
    )
    assert forecasting_server.calls[1:] == [
        forecasting.ForecastRequest(
            model="stock",
            series=[
                forecasting.Series(
                    observations=[
                        forecasting.Observation(values=[98, 99]),
                        forecasting.Observation(values=[99, 100]),
                    ]
                )
            ],
            horizon=2,
            quantiles=[0.1, 0.9],
        )
    ]


def test_the_table_shows_quantiles_and_the_naive_forecast(forecasting_server: ScriptedServer) -> None:
    lines = [line.split("\t") for line in run(forecasting_server, "forecast", stdin=CSV).stdout.splitlines()]
    assert lines == [
        ["ahead", "median", "0.1", "0.9", "naive", "change %"],
        ["1", "101", "97", "105", "100", "+1.00"],
        ["2", "102", "98", "106", "100", "+2.00"],
    ]


@pytest.mark.parametrize(
    ("transform", "last", "medians", "title", "changes"),
    [
        ("none", -6.4, (-7.57, -5.0), "change", ["-1.17", "+1.4"]),
        ("none", 0.0, (1.5, -2.0), "change", ["+1.5", "-2"]),
        ("none", 5.0, (6.0, 5.0), "change", ["+1", "+0"]),
        ("log", 5.0, (6.0, 4.0), "change %", ["+20.00", "-20.00"]),
        (None, -6.4, (-7.57, -5.0), "change", ["-1.17", "+1.4"]),
    ],
)
def test_the_change_has_the_sign_of_its_direction(
    forecasting_server: ScriptedServer,
    transform: str | None,
    last: float,
    medians: tuple[float, float],
    title: str,
    changes: list[str],
) -> None:
    spec = {"forecasting": {"columns": [{"name": "close", "transform": transform}], "target": "close"}}
    forecasting_server.models.models[0].spec_json = json.dumps(spec)
    steps = [forecasting.ForecastStep(value=median) for median in medians]
    forecasting_server.forecasts = forecasting.ForecastResponse(
        forecasts=[forecasting.Forecast(steps=steps, last_value=last)]
    )
    header, *lines = run(forecasting_server, "forecast", stdin="close\n1\n").stdout.splitlines()
    assert header.split("\t")[-1] == title
    assert [line.split("\t")[-1] for line in lines] == changes


def test_json_is_the_forecast_with_its_target(forecasting_server: ScriptedServer) -> None:
    found = json.loads(run(forecasting_server, "forecast", "--json", stdin=CSV).stdout)
    assert (found["target"], found["unit"], found["last_value"]) == ("close", "USD", 100.0)
    assert found["steps"][1]["quantiles"][0] == {"level": 0.1, "value": 98.0}


def test_a_plot_comes_when_asked_for(forecasting_server: ScriptedServer) -> None:
    plot = run(forecasting_server, "forecast", "--plot", stdin=CSV).stdout.split("+2.00\n")[1]
    assert "close (USD), then the median, 10 % to 90 %" in plot
    assert "now" in plot
    assert "\x1b" not in plot


def test_a_model_that_names_nothing_still_forecasts(forecasting_server: ScriptedServer) -> None:
    forecasting_server.models.models[0].spec_json = ""
    result = run(forecasting_server, "forecast", "--plot", stdin="1,2\n3,100\n")
    assert result.exit_code == 0
    assert "observed, then the median" in result.stdout


def test_a_plot_has_colors_on_a_terminal_alone() -> None:
    (forecast,) = forecasts(stock_forecast())
    assert "\x1b[38" in draw_forecast([98.0, 100.0], forecast, width=80, subject="", colors=True)
    assert "\x1b[38" not in draw_forecast([98.0, 100.0], forecast, width=80, subject="", colors=False)


def test_a_bad_number_is_named_by_row_and_column(forecasting_server: ScriptedServer) -> None:
    result = run(forecasting_server, "forecast", stdin="open,close\n1,x\n")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: standard input: line 2: column close: expected a finite number, found 'x'\n",
    )


NEWEST_FIRST = "date,close,open\n08/20/2004,99,98\n08/19/2004,98,97\n"


@contextmanager
def _ways(folder: Path, data: bytes) -> Iterator[list[tuple[str, ...]]]:
    """The options that name the same bytes: as a file, an open file, a FIFO and a pipe."""
    (folder / "rows.csv").write_bytes(data)
    os.mkfifo(folder / "fifo")
    reader, writer = os.pipe()
    feeds = [
        threading.Thread(target=(folder / "fifo").write_bytes, args=(data,)),
        threading.Thread(target=_feed, args=(writer, data)),
    ]
    for feed in feeds:
        feed.start()
    with (folder / "rows.csv").open("rb") as opened:
        names = [str(folder / "rows.csv"), str(folder / "fifo")]
        numbers = [f"/dev/fd/{opened.fileno()}", f"/dev/fd/{reader}"]
        yield [("--file", name) for name in (*names, *numbers)]
    os.close(reader)
    for feed in feeds:
        feed.join()


def _feed(writer: int, data: bytes) -> None:
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(data)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (CSV.encode(), 0),
        (f"\ufeff{CSV}".encode(), 0),
        (CSV.encode("utf-16"), 2),
        (CSV.replace(",", ";").encode(), 0),
        (NEWEST_FIRST.encode(), 2),
        (f"\ufeff{NEWEST_FIRST}".encode(), 2),
        (gzip.compress(CSV.encode()), 2),
        (b"", 2),
    ],
    ids=[
        "rows",
        "with a mark",
        "UTF-16",
        "semicolons",
        "newest first",
        "newest first, mark",
        "gzip",
        "nothing",
    ],
)
def test_the_same_bytes_get_the_same_answer_or_refusal_whichever_way_they_come(
    forecasting_server: ScriptedServer, tmp_path: Path, data: bytes, status: int
) -> None:
    results = [run(forecasting_server, "forecast", stdin=data)]
    with _ways(tmp_path, data) as ways:
        results += [run(forecasting_server, "forecast", *options) for options in ways]
    assert [result.exit_code for result in results] == [status] * 5
    assert len({result.stdout for result in results}) == 1
    assert len({result.stderr.partition(": ")[2].partition(": ")[2] for result in results}) == 1
    sent = [one for one in forecasting_server.requests if isinstance(one, forecasting.ForecastRequest)]
    assert len(sent) == (5 if status == 0 else 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "none.csv: cannot be read: No such file or directory"),
        (".", ".: cannot be read: Is a directory"),
        ("/dev/zero", "/dev/zero: expected a file or a pipe, found a device"),
    ],
)
def test_what_is_no_file_is_refused_by_its_name(
    forecasting_server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(forecasting_server, "forecast", "--file", name)
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")


def test_order_that_cannot_be_checked_is_said(forecasting_server: ScriptedServer) -> None:
    rows = "close,open\n98,97\n99,98\n"
    result = run(forecasting_server, "forecast", "--json", stdin=rows)
    (note,) = json.loads(result.stdout)["notes"]
    assert "standard input: no column of dates was recognised" in note
    assert result.stderr == f"note: {note}\n"
    for stated in (("--oldest-first",), ("--date-column", "")):
        result = run(forecasting_server, "forecast", "--json", *stated, stdin=rows)
        assert (json.loads(result.stdout)["notes"], result.stderr) == ([], "")


@pytest.mark.parametrize(
    "options",
    [
        ("--oldest-first",),
        ("--date-column", "sent"),
        ("--date-format", "%d.%m.%y", "--date-column", "4"),
        ("--allow-future-dates", "--date-column", "due"),
    ],
)
def test_options_say_what_the_rows_do_not(
    forecasting_server: ScriptedServer, options: tuple[str, ...]
) -> None:
    rows = "date,close,open,sent,due\n2,98,97,01.02.13,9013-01-01\n1,99,98,02.02.13,9013-01-02\n"
    assert "newest first" in run(forecasting_server, "forecast", stdin=rows).stderr
    assert run(forecasting_server, "forecast", *options, stdin=rows).exit_code == 0


def test_encoding_and_delimiter_are_read_as_they_are_named(forecasting_server: ScriptedServer) -> None:
    data = CSV.replace(",", ":").encode("utf-16")
    options = ("--encoding", "utf-16", "--delimiter", ":")
    assert run(forecasting_server, "forecast", *options, stdin=data).exit_code == 0
    wrong = run(forecasting_server, "forecast", "--delimiter", "::", stdin=data)
    assert wrong.stderr == "error: --delimiter: expected one character or tab, found '::'\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--date-format", "%d%d"), "--date-format: expected a form of dates as strptime has it, .* '%d%d'"),
        (
            ("--date-column", "nope"),
            r"a\\nb.csv: --date-column: expected a column nope, found no such column .*",
        ),
        (("--date-column", "open"), r"a\\nb.csv: line 3: column open: .*"),
    ],
)
def test_refusals_name_the_option_and_the_file_on_one_line(
    forecasting_server: ScriptedServer, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    file = tmp_path / "a\nb.csv"
    file.write_text(CSV.replace("\n2004-08-20,99,98", "\n2004-08-20,99,97"))
    result = run(forecasting_server, "forecast", "--file", str(file), *options)
    assert result.exit_code == 2
    assert re.fullmatch(f"error: (.*/)?{message}\n", result.stderr)


@pytest.mark.parametrize(
    ("field", "description", "told"),
    [
        (
            "series[0].observations",
            "expected at least 7 observations, found 3",
            "standard input: expected at least 7 rows, found 3",
        ),
        ("quantiles", "expected levels among [0.1], found [0.2]", "--quantile: expected levels among [0.1]"),
        ("quantiles[0]", "expected a level", "--quantile: expected a level"),
        ("horizon", "expected at most 5, found 9", "--horizon: expected at most 5, found 9"),
        ("version", "expected 1", "version: expected 1"),
    ],
)
def test_refusals_of_the_server_are_told_in_the_terms_of_the_command(
    forecasting_server: ScriptedServer, field: str, description: str, told: str
) -> None:
    violation = BadRequest.FieldViolation(field=field, description=description)
    status = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=f"{field}: {description}")
    status.details.add().Pack(BadRequest(field_violations=[violation]))
    # The questions for the models come first.
    forecasting_server.breaks.extend([(0, None), (0, None), (0, status)])
    result = run(forecasting_server, "forecast", stdin=CSV)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {told}")
    assert result.stderr.count("\n") == 1
