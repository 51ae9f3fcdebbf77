"""The page Engine, in a real browser and without one."""

import urllib.request
from typing import Any

from tests.integration.process import ServerProcess
from tests.playground.browsing import Browser

PHONE = 390
PREFILL, DECODE = (0, 114, 178), (230, 159, 0)


def shown(browser: Browser, name: str) -> int:
    """Return a number that the picture says of itself: ticks, sequences, or the total of its ticks."""
    return int(browser.find(".sq-ticks").get_attribute(f"data-{name}") or 0)


def wait_for_sequences(browser: Browser, count: int) -> None:
    browser.wait_for(
        lambda _: shown(browser, "sequences") >= count, f"expected {count} sequences in the picture"
    )


def tip(browser: Browser) -> str:
    text: str = browser.find(".sq-ticks-tip").text
    return text


def choose(browser: Browser, selector: str, option: str) -> None:
    """Choose an option of a select."""
    browser.click(selector)

    def found(driver: Any) -> Any:
        options = driver.find_elements("css selector", ".q-menu .q-item")
        return next((one for one in options if one.text == option), None)

    browser.wait_for(found, f"expected the option {option}").click()


def ended_watches(server: ServerProcess) -> float:
    """Return the watches that have ended, as the server counts them."""
    with urllib.request.urlopen(f"{server.http}/metrics") as answer:  # noqa: S310 - loopback
        lines = answer.read().decode().splitlines()
    name = 'seqserve_requests_total{code="CANCELLED",method="/seqserve.v1.Models/WatchEngine"}'
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


async def test_sequences_join_and_leave_in_the_picture(browser: Browser) -> None:
    browser.open("/engine", shows="Watching charlm 3")
    browser.find(".sq-ticks canvas")
    assert shown(browser, "total") == 0
    browser.press("\ue009", "\ue007")  # Ctrl+Enter
    wait_for_sequences(browser, 15)
    assert float(browser.find(".sq-number-rows").text) > 1
    assert browser.find(".sq-number-first_token").text.endswith(" ms")
    assert browser.find(".sq-number-useful").text.endswith(" %")
    browser.click("#sq-pause")
    browser.wait_for_text("Go on")
    browser.shot("engine")
    assert colours(browser) & {PREFILL, DECODE}
    total = shown(browser, "total")
    browser.wait_for(
        lambda driver: not driver.find_element("css selector", ".sq-cancel").is_displayed(), "answers"
    )
    assert shown(browser, "total") == total


def colours(browser: Browser) -> set[tuple[int, int, int]]:
    """Return the opaque colours of the picture."""
    script = """
        const canvas = document.querySelector('.sq-ticks canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const found = new Set();
        for (let at = 0; at < data.length; at += 4)
            if (data[at + 3] === 255) found.add(`${data[at]},${data[at + 1]},${data[at + 2]}`);
        return [...found];
    """
    found = browser.driver.execute_script(script)
    return {tuple(map(int, one.split(","))) for one in found}  # type: ignore[misc]


async def test_ticks_are_walked_through_with_the_keyboard(browser: Browser) -> None:
    browser.open("/engine", shows="Watching charlm 3")
    choose(browser, ".sq-model", "sentiment")
    browser.wait_for_text("Watching sentiment 4")
    browser.click(".sq-send")
    wait_for_sequences(browser, 5)
    browser.driver.execute_script("document.querySelector('.sq-ticks canvas').focus()")
    browser.press("\ue012")  # left arrow
    browser.wait_for_text("Go on")
    first = tip(browser)
    assert "chunk tick at" in first
    assert "many to one" in first
    for _ in range(3):
        browser.press("\ue012")
    assert tip(browser) != first
    browser.press("+")
    browser.wait_for_text("1 s")
    browser.click("#sq-pause")
    browser.wait_for_text("Pause")
    browser.press("\ue00c")  # escape, which cancels the load if it still runs


async def test_block_that_is_clicked_is_described_and_stops_the_picture(browser: Browser) -> None:
    browser.open("/engine", shows="Watching charlm 3")
    browser.click(".sq-send")
    wait_for_sequences(browser, 10)
    canvas = browser.find(".sq-ticks canvas")
    from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415 - of the extra dev

    def click_rightwards(_: Any) -> bool:
        for offset in range(0, 400, 12):
            ActionChains(browser.driver).move_to_element_with_offset(canvas, offset, -20).click().perform()
            if "time steps" in tip(browser):
                return True
        return False

    browser.wait_for(click_rightwards, "expected a block under the pointer")
    browser.wait_for_text("Go on")


async def test_page_fits_a_phone_and_a_dark_room(browser: Browser) -> None:
    browser.resize(PHONE)
    browser.open("/engine", shows="Watching charlm 3")
    browser.click("#sq-theme")
    browser.click("#sq-theme")
    browser.wait_for(
        lambda driver: "body--dark" in driver.find_element("tag name", "body").get_attribute("class"), "dark"
    )
    browser.click(".sq-send")
    wait_for_sequences(browser, 10)
    browser.shot("engine-phone-dark")
    width = browser.driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= PHONE


async def test_watch_ends_with_its_tab(browser: Browser, served: ServerProcess) -> None:
    browser.open("/engine", shows="Watching charlm 3")
    before = ended_watches(served)
    browser.driver.get("about:blank")
    browser.wait_for(lambda _: ended_watches(served) > before, "expected the watch to end")


async def test_numbers_are_shown_without_a_browser(user: Any) -> None:
    await user.open("/engine")
    await user.should_see("Watching charlm 3", retries=100)
    await user.should_see("Time to first token")
