"""`seqserve forecast`: CSV in, table, plot or JSON out."""

import json

import pytest

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
        "error: row 2, column close: 'x' is not a finite number\n",
    )
