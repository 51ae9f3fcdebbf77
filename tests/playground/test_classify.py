"""The page Classify: bars while one types, and a file of lines."""

from pathlib import Path
from typing import Any

from seqserve.aio import AsyncClient
from seqserve.playground.class_lines import ClassifiedLine, classify_lines, table_of
from seqserve.playground.uploads import Line
from tests.integration.process import ServerProcess
from tests.playground.browsing import Browser
from tests.playground.test_forecast import SLOW

GOOD, BAD = "A wonderful, moving film.", "A dull, pathetic mess."


async def test_lines_are_classified_and_an_empty_one_has_its_own_error(served: ServerProcess) -> None:
    lines = [Line(1, GOOD), Line(2, ""), Line(3, BAD)]
    async with AsyncClient(served.address) as client:
        found = [each async for each in classify_lines(client, lines, "sentiment")]
    labels = {each.line.number: each.result.label if each.result else each.error for each in found}
    assert labels == {1: "positive", 2: "line 2 is empty", 3: "negative"}
    rows = table_of(found, ["negative", "positive"]).decode().splitlines()
    assert rows[0] == "line,text,label,probability,error,probability negative,probability positive"
    assert rows[1].startswith(f'1,"{GOOD}",positive,0.')
    assert rows[2] == "2,,,,line 2 is empty,,"


async def test_more_lines_than_may_be_in_flight_are_all_answered(served: ServerProcess) -> None:
    lines = [Line(number, f"{GOOD} {number}") for number in range(1, 401)]
    found: list[ClassifiedLine] = []
    async with AsyncClient(served.address) as client:
        async for each in classify_lines(client, lines, "sentiment"):
            found.append(each)
    assert sorted(each.line.number for each in found) == list(range(1, 401))
    assert all(each.result for each in found)


async def test_an_example_fills_the_field_and_shows_probabilities(user: Any) -> None:
    await user.open("/classify")
    await user.should_see("Lines of a file", retries=SLOW)
    user.find("Try an example").click()
    await user.should_see("tokens", retries=SLOW)
    await user.should_see("negative")


async def test_a_text_is_classified_while_it_is_typed(browser: Browser) -> None:
    browser.open("/classify", shows="Lines of a file")
    box = browser.find("textarea")
    box.send_keys(BAD)
    browser.wait_for(lambda _: "negative," in browser.find(".sq-answer").text, "expected the label negative")
    box.send_keys(" " + GOOD * 3)
    browser.wait_for(lambda _: "positive," in browser.find(".sq-answer").text, "expected the label positive")
    browser.shot("classify")


async def test_a_file_of_lines_becomes_a_table_with_an_error_for_an_empty_line(
    browser: Browser, tmp_path: Path
) -> None:
    browser.open("/classify", shows="Lines of a file")
    (file := tmp_path / "reviews.txt").write_text(f"{GOOD}\n\n{BAD}\n<b>{BAD}</b>\n")
    browser.driver.find_element("css selector", "input[type=file]").send_keys(str(file))
    browser.wait_for_text("4 lines: negative 2, positive 1, 1 refused")
    browser.wait_for_text("line 2 is empty")
    browser.wait_for_text("<b>")
    browser.shot("classify-file")
