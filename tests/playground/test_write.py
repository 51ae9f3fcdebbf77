"""The page Write, used as a person would."""

import asyncio

import pytest
from nicegui import ui
from nicegui.testing import User

from seqserve.playground.app import MAX_TYPED
from seqserve.playground.token_text import TokenText
from tests.playground.browsing import Browser
from tests.playground.keys import CONTROL, ENTER, ESCAPE, RIGHT
from tests.playground.simulated import fill

DONE = "ended by length"


def type_into(browser: Browser, label: str, text: str) -> None:
    """Replace what a control holds, which is named by its label."""
    control = browser.find(f'[aria-label="{label}"]')
    control.click()
    control.send_keys(CONTROL + "a")
    control.send_keys(text)


def tokens(browser: Browser) -> list[str]:
    found: list[str] = browser.driver.execute_script(
        "return [...document.querySelectorAll('.sq-token')].map(one => one.textContent)"
    )
    return found


def wait_for_tokens(browser: Browser, count: int) -> list[str]:
    """Wait until so many tokens stand there; the line that says the end may come before the last."""
    browser.wait_for(lambda _: len(tokens(browser)) >= count, f"{count} tokens")
    found = tokens(browser)
    assert len(found) == count
    return found


def wait_for_status(browser: Browser, said: str) -> None:
    """Wait until a line of status says so; to read all of a long page holds the browser up."""
    ask = "return [...document.querySelectorAll('.sq-quiet')].map(one => one.textContent).join(' ')"
    browser.wait_for(lambda driver: said in driver.execute_script(ask), f"expected the status {said!r}")


def open_page(browser: Browser) -> None:
    browser.open("/write", shows="Max tokens")


async def test_text_streams_in_colours_with_alternatives(browser: Browser) -> None:
    open_page(browser)
    type_into(browser, "Max tokens", "60")
    type_into(browser, "Seed (empty: drawn)", "7")
    browser.find('[aria-label="Prompt"]').click()
    browser.press(CONTROL, ENTER)
    browser.wait_for_text(DONE)
    wait_for_tokens(browser, 60)
    backgrounds = browser.driver.execute_script(
        "return [...new Set([...document.querySelectorAll('.sq-token')].map(one => one.style.background))]"
    )
    assert len(backgrounds) > 2
    first = browser.find(".sq-token[tabindex='0']")
    browser.driver.execute_script("arguments[0].focus()", first)
    browser.wait_for(
        lambda driver: len(driver.find_elements("css selector", ".sq-other")) == 5, "alternatives"
    )
    shown = [one.text for one in browser.all(".sq-other-name")]
    assert len(set(shown)) == 5
    browser.press(RIGHT)
    browser.wait_for(
        lambda _: browser.find(".sq-token[tabindex='0']").get_attribute("data-index") == "1",
        "the next character",
    )
    assert len(browser.all(".sq-other")) == 5
    browser.shot("write")


async def test_two_settings_run_side_by_side_and_a_link_shows_the_same_text_again(browser: Browser) -> None:
    open_page(browser)
    browser.click_text("Try an example")
    browser.wait_for_text("Settings, second setting")
    for control in browser.all('[aria-label="Max tokens"]'):
        control.send_keys(CONTROL + "a")
        control.send_keys("40")
    browser.click(".sq-send")
    browser.wait_for(lambda _: browser.text.count(DONE) == 2, "two texts")
    written = wait_for_tokens(browser, 80)
    browser.click_text("Share")
    link = browser.wait_for(
        lambda _: browser.find('[aria-label="Link to this text"]').get_attribute("value"), "a link"
    )
    browser.shot("write-two")
    browser.driver.get("about:blank")
    browser.driver.get(link)
    browser.wait_for_text("Filled in from the link")
    browser.click(".sq-send")
    browser.wait_for(lambda _: browser.text.count(DONE) == 2, "two texts")
    assert wait_for_tokens(browser, 80) == written


async def test_escape_cancels_a_text(browser: Browser) -> None:
    open_page(browser)
    type_into(browser, "Max tokens", "20000")
    browser.click(".sq-send")
    browser.wait_for(lambda _: len(tokens(browser)) > 20, "a text that runs")
    browser.press(ESCAPE)
    wait_for_status(browser, "cancelled")


async def test_text_that_is_sent_twice_at_once_is_written_once(browser: Browser) -> None:
    open_page(browser)
    type_into(browser, "Max tokens", "50")
    # As a key that repeats.
    browser.driver.execute_script("for (let n = 0; n < 5; n++) document.querySelector('.sq-send').click()")
    browser.wait_for_text(DONE)
    browser.wait_for(lambda _: browser.all(".sq-token[data-index='49']"), "the last token")
    assert len(tokens(browser)) == 50


async def test_setting_out_of_range_ends_the_text_and_says_so(browser: Browser) -> None:
    open_page(browser)
    type_into(browser, "Temperature", "-1")
    browser.click(".sq-send")
    browser.wait_for_text("expected 0 or more, found -1.")
    browser.wait_for(lambda _: "failed" in browser.text, "the end of the text")
    assert "waiting for the first token" not in browser.text


async def test_fields_take_no_more_than_a_message_to_the_playground_holds(browser: Browser) -> None:
    open_page(browser)
    for label in ("Prompt", "Seed (empty: drawn)"):
        assert browser.find(f'[aria-label="{label}"]').get_attribute("maxlength") == str(MAX_TYPED)


async def test_long_text_is_added_in_parts_to_what_stands_there(browser: Browser) -> None:
    """A page that makes all tokens anew for each further one is so busy that it loses its connection."""
    open_page(browser)
    browser.driver.execute_script(
        "window.changes = 0; const count = all => { window.changes += all.length };"
        "const what = {childList: true, subtree: true};"
        "new MutationObserver(count).observe(document.querySelector('.sq-text'), what)"
    )
    type_into(browser, "Max tokens", "600")
    browser.click(".sq-send")
    browser.wait_for(lambda _: len(tokens(browser)) > 0, "the first token")
    browser.driver.execute_script("document.querySelector('.sq-token').isFirst = true")
    wait_for_tokens(browser, 600)
    assert browser.driver.execute_script("return document.querySelector('.sq-token').isFirst")
    # Far fewer layouts than tokens: those that come within a moment are added at once.
    assert browser.driver.execute_script("return window.changes") < 400


async def test_wrong_setting_is_a_sentence(browser: Browser) -> None:
    open_page(browser)
    type_into(browser, "Seed (empty: drawn)", "seven")
    browser.click(".sq-send")
    browser.wait_for_text("seed: expected a whole number of 0..18446744073709551615, found 'seven'.")


async def test_page_fits_a_phone_in_the_dark(browser: Browser) -> None:
    browser.resize(390, 844)
    open_page(browser)
    browser.click("#sq-theme")
    browser.click("#sq-theme")
    browser.wait_for(lambda _: browser.all("body.body--dark"), "a dark page")
    type_into(browser, "Max tokens", "80")
    browser.click(".sq-send")
    browser.wait_for_text(DONE)
    assert browser.overflow() == []
    browser.shot("write-phone-dark")


@pytest.mark.parametrize("prompt", ["ROMEO:\n", "", "\u2019O\u2026"], ids=["plain", "empty", "normalized"])
async def test_alternatives_belong_to_their_characters(user: User, prompt: str) -> None:
    """A character has the probability that the alternatives in its place give it, whatever stands before."""
    await user.open("/write")
    await user.should_see("Max tokens", retries=100)
    fill(user, "Prompt", prompt)
    fill(user, "Max tokens", 30)
    fill(user, "Seed (empty: drawn)", "7")
    user.find(kind=ui.button, content="Write").click()
    await user.should_see("ended by length", retries=100)
    [shown] = user.find(kind=TokenText).elements
    async with asyncio.timeout(10):
        while not shown.alternatives:  # noqa: ASYNC110 - they come with another call, which tells nobody
            await asyncio.sleep(0.01)
    assert len(shown.tokens) == 30
    likely = 0
    for token, others in zip(shown.tokens, shown.alternatives, strict=True):
        logprobs = {one.text: one.logprob for one in others}
        assert len(logprobs) == 5
        if token.text in logprobs:
            likely += 1
            assert token.logprob == pytest.approx(logprobs[token.text], abs=1e-5)
        else:
            assert token.logprob is not None
            assert token.logprob < min(logprobs.values())
    assert likely > 10
