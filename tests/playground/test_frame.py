"""The frame around the pages, in a real browser and without one."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from nicegui import ui

from seqserve.playground.pages import PAGES
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import get
from tests.playground.browsing import Browser, free_port
from tests.playground.keys import ESCAPE, TAB
from tests.playground.simulated import fill, simulated_user
from tests.tiny import export_generator

_CANCELLED = (
    r"seqserve_requests_total\{code=.CANCELLED.,method=./seqserve.v1.TextGeneration/Generate.\} (\S+)"
)


async def test_letters_after_g_open_pages(browser: Browser) -> None:
    browser.open("/", shows="charlm")
    browser.press("g")
    browser.press("w")
    browser.wait_for(lambda driver: driver.title.startswith("Write"), "expected the page Write")
    browser.wait_for_text("Max tokens")


async def test_keys_are_listed_and_letters_that_are_typed_open_nothing(browser: Browser) -> None:
    browser.open("/write", shows="Max tokens")
    control = browser.find('[aria-label="Prompt"]')
    control.send_keys("gm?")
    assert control.get_attribute("value").endswith("gm?")
    assert browser.driver.title.startswith("Write")
    browser.driver.execute_script("document.activeElement.blur()")
    browser.press("?")
    browser.wait_for_text("cancel what runs")
    assert all(f"g {page.key}" in browser.text for page in PAGES)
    browser.shot("keys")
    browser.press(ESCAPE)
    browser.wait_for(lambda _: "cancel what runs" not in browser.text, "a closed help")


async def test_first_control_of_a_page_skips_its_navigation(browser: Browser) -> None:
    browser.open("/", shows="charlm")
    browser.press(TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the page"


async def test_theme_is_kept_from_page_to_page(browser: Browser) -> None:
    browser.open("/", shows="charlm")
    browser.click("#sq-theme")
    browser.click("#sq-theme")
    browser.wait_for(lambda _: browser.all("body.body--dark"), "a dark page")
    browser.open("/write", shows="Max tokens")
    assert browser.find("#sq-theme").get_attribute("aria-label") == "Theme: dark"
    assert browser.all("body.body--dark")
    browser.shot("write-dark")


def links(browser: Browser) -> list[Any]:
    return browser.all(".sq-links-column a")


async def test_phone_has_a_drawer_of_pages(browser: Browser) -> None:
    browser.resize(390, 844)
    browser.open("/", shows="charlm")
    browser.click('[aria-label="Pages"]')
    titles = [page.title for page in PAGES]
    browser.wait_for(
        lambda _: [one.text.splitlines()[-1:] for one in links(browser)] == [[title] for title in titles],
        "links to all pages",
    )
    browser.shot("drawer-phone")
    browser.wait_for(lambda _: links(browser)[1].rect["x"] >= 0, "an open drawer")
    links(browser)[1].click()
    browser.wait_for_text("Max tokens")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.title)
async def test_page_opens_without_a_browser(user: Any, page: Any) -> None:
    await user.open(page.route)
    await user.should_see(page.title)
    await user.should_see("serving", retries=50)


async def test_unreachable_server_is_a_banner_that_goes_away(tmp_path: Path) -> None:
    """The playground starts first. The page fills once the server is there, and says when it is gone."""
    export_generator(tmp_path)
    port = free_port()
    address = f"127.0.0.1:{port}"
    async with simulated_user(address) as user:
        await user.open("/")
        await user.should_see(f"Nothing answers at {address}", retries=100)
        async with ServerProcess(tmp_path, {"GRPC_ADDRESS": address}):
            await user.should_see("letters 1", retries=100)
            await user.should_not_see("Nothing answers", retries=100)
        await user.should_see("Nothing answers", retries=100)


async def test_failure_of_a_call_to_a_server_that_was_away_goes_with_the_banner(tmp_path: Path) -> None:
    """What a user did meanwhile has failed, and the page must not say so of a server that answers again."""
    export_generator(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    async with simulated_user(address) as user:
        async with ServerProcess(tmp_path, {"GRPC_ADDRESS": address}):
            await user.open("/write")
            await user.should_see("Max tokens", retries=100)
        await user.should_see("Nothing answers", retries=100)
        user.find(kind=ui.button, content="Write").click()
        async with asyncio.timeout(20):
            while len(user.find("Nothing answers").elements) < 2:  # noqa: ASYNC110 - banner and failure
                await asyncio.sleep(0.05)
        async with ServerProcess(tmp_path, {"GRPC_ADDRESS": address}):
            await user.should_not_see("Nothing answers", retries=100)
            await user.should_see("Max tokens")


async def test_closing_a_tab_cancels_its_calls(served: ServerProcess) -> None:
    before = await num_cancelled(served)
    async with simulated_user(served.address) as user:
        client = await user.open("/write")
        await user.should_see("Max tokens", retries=100)
        fill(user, "Max tokens", 20_000)
        user.find(kind=ui.button, content="Write").click()
        await user.should_see("tokens, seed", retries=100)
        client.delete()
        async with asyncio.timeout(10):
            while await num_cancelled(served) == before:
                pass


async def num_cancelled(server: ServerProcess) -> float:
    """Return how many generations have been cancelled."""
    found = re.search(_CANCELLED, (await get(f"{server.http}/metrics"))[1])
    return float(found[1]) if found else 0.0
