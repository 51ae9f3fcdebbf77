"""The page Forecast: the fan of an example and of a file, pushed rows, and refusals as sentences."""

from pathlib import Path
from typing import Any

from nicegui import ui
from nicegui.elements.upload_files import SmallFileUpload

from tests.integration.process import ROOT
from tests.playground.browsing import Browser

GOOG = (ROOT / "training" / "data" / "goog.csv").read_text().splitlines(keepends=True)
SLOW = 100
"""How often a simulated user looks for what a call brings, ten times a second."""


async def drop(user: Any, name: str, text: str) -> None:
    """Drop a file on the page."""
    [upload] = user.find(kind=ui.upload).elements
    with user:
        await upload.handle_uploads([SmallFileUpload(name, "text/csv", text.encode())])


async def test_an_example_is_forecast_and_a_pushed_row_moves_the_fan(user: Any) -> None:
    await user.open("/forecast")
    await user.should_see("Takes CSV with the columns open, high, low, close, volume", retries=SLOW)
    user.find("Try an example").click()
    await user.should_see("example: after 56 rows", retries=SLOW)
    await user.should_see("8 rows held back")
    [chart] = user.find(kind=ui.echart).elements
    before = medians(chart)
    user.find("Push the next row").click()
    await user.should_see("example: after 57 rows", retries=SLOW)
    await user.should_see("7 rows held back")
    assert medians(chart) != before


def medians(chart: ui.echart) -> list[float]:
    [median] = [each["data"] for each in chart.options["series"] if each["name"] == "median"]
    return [value for value in median if value is not None]


async def test_a_missing_column_is_a_sentence_that_names_it(user: Any) -> None:
    await user.open("/forecast")
    await user.should_see("Takes CSV", retries=SLOW)
    await drop(user, "prices.csv", "date,open,high,low,close\n2004-08-19,1,2,3,4\n")
    await user.should_see("prices.csv: line 1: expected a column volume, found no such column", retries=SLOW)


async def test_a_series_that_is_too_short_is_refused_and_a_whole_one_then_shown(user: Any) -> None:
    await user.open("/forecast")
    await user.should_see("Takes CSV", retries=SLOW)
    await drop(user, "goog.csv", "".join(GOOG[:4]))
    await user.should_see("expected at least 7 observations, found 3", retries=SLOW)
    await drop(user, "goog.csv", "".join(GOOG[:41]))
    await user.should_see("goog.csv: after 40 rows", retries=SLOW)
    await user.should_not_see("expected at least 7")


async def test_a_dropped_file_is_drawn_and_the_next_row_pushed_by_the_keyboard(
    browser: Browser, tmp_path: Path
) -> None:
    (file := tmp_path / "goog.csv").write_text("".join(GOOG[:101]))
    browser.open("/forecast", shows="Takes CSV")
    browser.driver.find_element("css selector", "input[type=file]").send_keys(str(file))
    browser.wait_for_text("goog.csv: after 100 rows")
    browser.find(".sq-chart canvas")
    field = browser.find("input.q-field__native[aria-label^='Next row']")
    browser.driver.execute_script("arguments[0].select()", field)
    field.send_keys(GOOG[101].partition(",")[2].strip())
    browser.press("\ue009", "\ue007")  # Ctrl+Enter
    browser.wait_for_text("goog.csv: after 101 rows")
    browser.wait_for_text("Download the forecast")
    browser.shot("forecast")
