"""The frame around the pages, in a real browser and without one."""

from typing import Any

from tests.playground.browsing import Browser


async def test_letters_after_g_open_pages(browser: Browser) -> None:
    browser.open("/", shows="charlm")
    browser.press("g")
    browser.press("w")
    browser.wait_for(lambda driver: driver.title.startswith("Write"), "expected the page Write")


async def test_models_are_listed(user: Any) -> None:
    await user.open("/")
    await user.should_see("charlm 3", retries=50)
