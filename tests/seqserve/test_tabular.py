"""Results as tables: frames, HTML of bounded size without markup of their own, and short reprs."""

import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from seqserve import (
    Answers,
    Classification,
    ClassifyAnswer,
    Client,
    FinishReason,
    Forecast,
    ForecastStep,
    Generation,
    InvalidArgument,
    LabelProbability,
    ModelInfo,
    ModelStatus,
    Quantile,
    TextPiece,
    TextScore,
    Usage,
)
from seqserve.tabular import MAX_CELL, MAX_ROWS, Tabular
from tests.seqserve.scripted_server import ScriptedServer, stock_forecast

EVIL = "<script>alert('x')</script>\" & \u2028"
FORECAST = Forecast(
    tuple(
        ForecastStep(value, (Quantile(0.1, value - 1), Quantile(0.9, value + 1))) for value in (-7.5, -6.0)
    ),
    last_value=-6.5,
    state=b"sealed",
)
GOOD = Classification("good", 0.75, (LabelProbability("good", 0.75), LabelProbability("bad", 0.25)), 3)
SCORE = TextScore((-1.0, -2.0), -3.0, 4.5)
GENERATION = Generation("To be", (-0.5,), 7, FinishReason.STOP, Usage(2, 9), b"sealed")
MODEL = ModelInfo(
    "stock", 2, ModelStatus.READY, "", "forecasting", "gru", 1, 32, "fp32", "CPU", True, 0.0, {}, {"a": "b"}
)
FAILED = ClassifyAnswer("b", (), InvalidArgument("texts[0]: no token"))
TABLES: dict[str, tuple[Tabular, list[str], list[tuple[object, ...]]]] = {
    "forecast": (
        FORECAST,
        ["ahead", "median", "0.1", "0.9", "naive", "change"],
        [(1, -7.5, -8.5, -6.5, -6.5, -1.0), (2, -6.0, -7.0, -5.0, -6.5, 0.5)],
    ),
    "forecasts": (
        Answers([FORECAST, FORECAST]),
        ["series", "ahead", "median", "0.1", "0.9", "naive", "change"],
        [
            (series, ahead, median, median - 1, median + 1, -6.5, change)
            for series in (0, 1)
            for ahead, median, change in ((1, -7.5, -1.0), (2, -6.0, 0.5))
        ],
    ),
    "classification": (GOOD, ["label", "probability"], [("good", 0.75), ("bad", 0.25)]),
    "classifications": (
        Answers([GOOD, GOOD]),
        ["label", "probability", "tokens"],
        [("good", 0.75, 3), ("good", 0.75, 3)],
    ),
    "answer": (
        ClassifyAnswer("a", (GOOD,)),
        ["id", "label", "probability", "tokens"],
        [("a", "good", 0.75, 3)],
    ),
    "failed answer": (FAILED, ["id", "error"], [("b", "texts[0]: no token")]),
    "score": (SCORE, ["token", "logprob"], [(2, -1.0), (3, -2.0)]),
    "scores": (Answers([SCORE]), ["perplexity", "nats/token", "tokens"], [(4.5, 1.5, 3)]),
    "generation": (
        GENERATION,
        ["text", "prompt tokens", "tokens", "finish reason", "seed"],
        [("To be", 2, 9, "stop", 7)],
    ),
    "models": (
        Answers([MODEL]),
        ["name", "version", "status", "task", "cell", "layers", "hidden", "variant", "message"],
        [("stock", 2, "ready", "forecasting", "gru", 1, 32, "fp32", "")],
    ),
    "nothing": (Answers(), [], []),
}


class Cells(HTMLParser):
    """Collects the tags of a page, and the text of its cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the name of HTMLParser
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize(("result", "titles", "rows"), TABLES.values(), ids=TABLES.keys())
def test_results_are_frames_and_html(
    result: Tabular, titles: list[str], rows: list[tuple[object, ...]]
) -> None:
    frame = result.to_frame()
    assert list(frame.columns) == titles
    assert [tuple(row) for row in frame.itertuples(index=False, name=None)] == rows
    shown = Cells(result._repr_html_())
    assert shown.tags - {"td"} == {"table", "thead", "tbody", "tr"} | ({"th"} if titles else set())
    assert shown.texts[: len(titles)] == titles


@pytest.mark.parametrize(
    "make",
    [
        lambda text: Answers([Classification(text, 0.5, (LabelProbability(text, 0.5),), 1)]),
        lambda text: Classification(text, 0.5, (LabelProbability(text, 0.5),), 1),
        lambda text: Generation(text, (), 7, FinishReason.STOP, Usage(1, 1)),
        lambda text: ClassifyAnswer(text, (), InvalidArgument(text)),
        lambda text: ModelInfo(text, 1, ModelStatus.FAILED, text, text, "", 0, 0, "", "", False, 0.0, {}, {}),
    ],
    ids=["classifications", "classification", "generation", "answer", "model"],
)
def test_texts_and_labels_are_no_markup(make: Callable[[str], Tabular]) -> None:
    shown = Cells(make(EVIL)._repr_html_())
    assert shown.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert EVIL in "".join(shown.texts)


def test_html_is_bounded() -> None:
    page = Answers([GOOD] * 10_000)._repr_html_()
    assert page.count("<tr>") == MAX_ROWS + 1
    assert f"and {10_000 - MAX_ROWS} more rows" in page
    long = Generation("<" * 10**6, (), 7, FinishReason.STOP, Usage(1, 1))._repr_html_()
    assert long.count("&lt;") == MAX_CELL


def test_reprs_are_short() -> None:
    text, numbers = "x" * 10**6, (0.5,) * 10**4
    for result in (
        TextPiece(text, 5, numbers, 7, FinishReason.STOP),
        Generation(text, numbers, 7, FinishReason.STOP, Usage(1, 1)),
        TextScore(numbers, -3.0, 4.5),
        Classification("good", 0.75, tuple(LabelProbability("good", 0.1) for _ in range(10**4)), 3),
        Forecast(tuple(ForecastStep(1.0, ()) for _ in range(10**4)), 1.0),
        Answers([GOOD] * 10**4),
        Answers([FORECAST] * 10**4),
    ):
        assert len(repr(result)) < 500
    assert repr(FORECAST) == "Forecast(2 steps, medians -7.5 to -6, last_value=-6.5)"
    assert repr(GENERATION) == "Generation('To be', seed=7, finish_reason='stop', generated_tokens=9)"
    good = "Classification(label='good', probability=0.75, token_count=3, version=0)"
    assert repr(Answers([GOOD])) == f"[{good}]"


def test_without_pandas_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="needs the package pandas") as caught:
        FORECAST.to_frame()
    assert caught.value.name == "pandas"
    assert "<table>" in FORECAST._repr_html_()


def test_what_a_client_returns_is_a_list_and_a_table(client: Client, server: ScriptedServer) -> None:
    server.forecasts = stock_forecast()
    found: Any = client.forecast([[[1.0]]])
    assert isinstance(found.to_frame(), pd.DataFrame)
    assert isinstance(found, list)
    assert found == [found[0]]
    assert len(client.classify(["so good", "bad"]).to_frame()) == 2
