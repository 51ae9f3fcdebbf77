"""The page Sequences: every kind of output, files, and the live stream."""

from pathlib import Path
from typing import Any

import pytest
from nicegui import ui

from tests.playground.browsing import Browser
from tests.playground.conftest import HOSTILE, LABEL
from tests.playground.test_forecast import SLOW, drop

WIDTH = 390


async def open_page(user: Any, name: str) -> None:
    """Open the page, and choose a model."""
    await user.open("/sequences")
    await user.should_see("Live stream", retries=SLOW)
    await choose_simulated(user, name)


async def choose_simulated(user: Any, name: str) -> None:
    """Choose a model, and wait for its panel."""
    [select] = [each for each in user.find(kind=ui.select).elements if each.props.get("label") == "Model"]
    [place] = [place for place, title in select.options.items() if title.startswith(f"{name},")]
    with user:
        select.set_value(place)
    await user.should_see(HINTS[name], retries=SLOW)


HINTS = {
    "activity": "with the columns x, y, power",
    "begun": "Initial speaker (3 numbers)",
    "both-ways": "both-ways needs whole sequences, so it has no stream",
    "tags": "Takes text; gives label",
    "topics": "Takes token ids; gives label",
    "vanilla": "gives embedding",
}
SHOWN: dict[str, tuple[str, list[str]]] = {
    "activity": ("walking", []),
    "begun": ("1 sequence", ["step", "value 1", "value 2", "value 3"]),
    "both-ways": (
        "1 sequence",
        ["step", "label", "probability still", "probability walking", "probability running"],
    ),
    "tags": (
        "vowel",
        ["step", "text", "label", "probability none", "probability vowel", "probability consonant"],
    ),
    "topics": ("%", []),
    "vanilla": ("An embedding of 6 numbers", []),
}
"""For each model a text that its example shows, and the titles of its table."""


async def test_an_example_of_each_kind_of_model_is_shown(user: Any) -> None:
    await user.open("/sequences")
    await user.should_see("Live stream", retries=SLOW)
    for name, (text, titles) in SHOWN.items():
        await choose_simulated(user, name)
        user.find("Try an example").click()
        await user.should_see("1 sequence", retries=SLOW)
        await user.should_see(text, retries=SLOW)
        assert titles_of_tables(user) == titles


def titles_of_tables(user: Any) -> list[str]:
    """Return the titles of the columns of the tables on the page."""
    tables = [each for each in user.client.elements.values() if isinstance(each, ui.table)]
    return [column["label"] for table in tables for column in table.columns]


async def test_the_sequences_of_a_file_can_be_looked_at_and_downloaded(user: Any) -> None:
    await open_page(user, "topics")
    await drop(user, "ids.txt", "1 2 3\n99\n4\n")
    await user.should_see("3 sequences, 1 refused", retries=SLOW)
    user.find("Download the outputs").click()
    table = (await user.download.next(timeout=10)).text.splitlines()
    assert [row.partition(",")[0] for row in table] == ["sequence", "1", "2", "3"]
    assert "line 2 of ids.txt" in table[2]


async def test_steps_are_sent_one_by_one_and_a_further_one_pushed(user: Any) -> None:
    await open_page(user, "activity")
    user.find("Try an example").click()
    await user.should_see("1 sequence", retries=SLOW)
    user.find("One step").click()
    await user.should_see("(1 of 12 sent)", retries=SLOW)
    user.find("Further time step").type("0.5,1,2")
    user.find("Push").click()
    await user.should_see("(13 of 13 sent)", retries=SLOW)
    user.find("Begin anew").click()
    await user.should_not_see("of 13 sent")


async def test_an_empty_field_is_a_sentence(user: Any) -> None:
    await open_page(user, "activity")
    user.find("Run").click()
    await user.should_see("Expected a sequence in the field, found nothing", retries=SLOW)


def choose(browser: Browser, name: str) -> None:
    """Choose a model as a person does."""
    browser.click(".q-select")
    browser.wait_for(
        lambda driver: next(
            (
                one
                for one in driver.find_elements("css selector", ".q-menu .q-item")
                if one.text.startswith(f"{name},")
            ),
            None,
        ),
        f"expected the model {name}",
    ).click()


def press(browser: Browser, title: str) -> None:
    """Press the button with a title."""
    browser.wait_for(
        lambda driver: next(
            (
                one
                for one in driver.find_elements("css selector", "button")
                if one.is_displayed() and title in one.text
            ),
            None,
        ),
        f"expected a button {title}",
    ).click()


async def test_words_get_coloured_tags_and_steps_a_live_chart(browser: Browser, tmp_path: Path) -> None:
    browser.open("/sequences", shows="Live stream")
    choose(browser, "word-tags")
    browser.wait_for_text("Takes text; gives label")
    browser.find(".sq-sequence textarea").send_keys("the dog sees the <b>cat</b>")
    browser.press("\ue009", "\ue007")  # Ctrl+Enter
    browser.wait_for(
        lambda driver: driver.find_elements("css selector", ".sq-piece .sq-tag"), "expected tags"
    )
    browser.wait_for_text("<b>")
    browser.shot("sequences-tags")
    choose(browser, "activity")
    browser.wait_for_text("with the columns x, y, power")
    rows = "".join(f"{step % 7},{step % 3},{step % 5 + 1}\n" for step in range(20))
    (file := tmp_path / "moves.csv").write_text("x,y,power\n" + rows)
    browser.driver.find_element("css selector", "input[type=file]").send_keys(str(file))
    browser.wait_for_text("1 sequence")
    press(browser, "Play")
    browser.wait_for_text("(20 of 20 sent)")
    browser.find(".sq-chart canvas")
    browser.shot("sequences-live")


async def test_a_text_and_labels_that_hold_html_are_shown_as_they_stand(browser: Browser) -> None:
    browser.open("/sequences", shows="Live stream")
    choose(browser, HOSTILE.name)
    browser.wait_for_text("Takes text; gives label")
    browser.find(".sq-sequence textarea").send_keys(LABEL)
    press(browser, "Run")
    browser.wait_for(
        lambda driver: driver.find_elements("css selector", ".sq-piece .sq-tag"), "expected tags"
    )
    press(browser, "Play")
    browser.wait_for_text("sent)")
    chart = browser.find(".sq-chart canvas")
    hover(browser, chart)
    browser.wait_for(lambda driver: LABEL in driver.execute_script(TOOLTIP, chart), "expected a tooltip")
    assert not browser.driver.find_elements("css selector", "img[src='x']")
    assert browser.driver.title.startswith("Sequences")


# The tooltip of the chart is the sibling of its canvas' box.
TOOLTIP = "return arguments[0].closest('.sq-chart').innerText"


def hover(browser: Browser, element: Any) -> None:
    """Move the pointer over an element."""
    from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415 - of the extra dev

    ActionChains(browser.driver).scroll_to_element(element).move_to_element(element).perform()


@pytest.mark.parametrize("route", ["/classify", "/forecast", "/sequences"])
async def test_a_page_fits_a_phone_in_the_dark(browser: Browser, route: str) -> None:
    browser.resize(WIDTH)
    browser.open(route, shows="Try an example")
    for _ in range(2):
        browser.click("#sq-theme")
    browser.find("body.body--dark")
    press(browser, "Try an example")
    browser.find(".sq-answer")
    browser.wait_for(lambda _: browser.find(".sq-answer").text, "expected an answer")
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= WIDTH
    browser.shot(f"{route[1:]}-phone-dark")
