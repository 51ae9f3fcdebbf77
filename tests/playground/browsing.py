"""The playground as a process, and a real browser at it: what tests of pages use as a person would."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.integration.process import ROOT

SHOTS = ROOT / "runs" / "playground"
WAIT_S = 20
_PROGRAM = "from seqserve.cli import main; main()"
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Of the tests themselves; NiceGUI acts otherwise where it finds the last.
_OTHERS = ("SEQSERVE_", "NICEGUI_", "PYTEST_")
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # refused to root otherwise
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--window-size=1280,900",
)


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@asynccontextmanager
async def playground_process(address: str, *options: str) -> AsyncIterator[str]:
    """Run `seqserve playground` for a server until the end of the block, and yield its URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        *options,
        "playground",
        "--server",
        address,
        "--port",
        str(port),
        "--no-open",
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await _listening(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert said.decode().splitlines()[1:] == [], "a playground says one line, that it runs, and nothing else"


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    """Wait until the process accepts a connection; nothing tells when it does."""
    async with asyncio.timeout(WAIT_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise AssertionError("the playground ended before it listened")


def make_driver() -> Any:
    """Start a headless Chromium that keeps its console and its requests; skip where a part is missing."""
    if find_spec("selenium") is None:
        pytest.skip("selenium is missing: make install-dev")
    binary = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    from selenium import webdriver  # noqa: PLC0415 - of the extra dev
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


class Browser:
    """A browser at a playground.

    Args:
        driver: Selenium's driver.
        url: URL of the playground.
    """

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, route: str, *, shows: str) -> None:
        """Open a page, and wait until it shows a text."""
        self.driver.get(self.url + route)
        self.wait_for_text(shows)

    def wait_for(self, condition: Callable[[Any], Any], what: str) -> Any:
        """Wait until a condition of the driver is true, and return its value."""
        from selenium.common.exceptions import StaleElementReferenceException  # noqa: PLC0415
        from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

        waiting = WebDriverWait(
            self.driver, WAIT_S, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(condition, f"{what}; the page shows {self.text!r}")

    def wait_for_text(self, text: str) -> None:
        self.wait_for(lambda _: text in self.text, f"expected the text {text!r}")

    @property
    def text(self) -> str:
        """What the page shows."""
        found: str = self.driver.execute_script("return document.body ? document.body.innerText : ''")
        return found

    def find(self, selector: str) -> Any:
        """Wait for an element that a CSS selector finds and that is shown."""
        return self.wait_for(
            lambda driver: next(
                (one for one in driver.find_elements("css selector", selector) if one.is_displayed()), None
            ),
            f"expected an element {selector}",
        )

    def all(self, selector: str) -> list[Any]:
        """Return the elements that a CSS selector finds now."""
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def click_text(self, text: str, selector: str = "button") -> None:
        """Click the button, or another element, that has a text."""
        self.wait_for(
            lambda driver: next(
                (
                    one
                    for one in driver.find_elements("css selector", selector)
                    if one.is_displayed() and text.casefold() in one.text.casefold()
                ),
                None,
            ),
            f"expected {selector} with the text {text}",
        ).click()

    def overflow(self) -> list[str]:
        """Return the classes of elements beyond the page's right edge; parts that scroll may reach there."""
        found: list[str] = self.driver.execute_script(
            "const width = document.documentElement.clientWidth;"
            "const scrolls = one => one && one !== document.body && "
            "(/auto|scroll|hidden/.test(getComputedStyle(one).overflowX) || scrolls(one.parentElement));"
            "return [...document.querySelectorAll('.sq-page *, .sq-header *')]"
            ".filter(one => one.getBoundingClientRect().right > width + 1 && !scrolls(one.parentElement))"
            ".map(one => one.className.toString())"
        )
        return found

    def press(self, *keys: str) -> None:
        """Press keys at once, on the element that has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415

        *held, last = keys
        actions = ActionChains(self.driver)
        for key in held:
            actions.key_down(key)
        actions.send_keys(last)
        for key in reversed(held):
            actions.key_up(key)
        actions.perform()

    def resize(self, width: int, height: int = 900) -> None:
        """Set the size of the page in CSS pixels; headless windows are at least 500 wide without it."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def shot(self, name: str) -> None:
        """Keep a screenshot in runs/playground/."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(SHOTS / f"{name}.png"))

    def reset(self) -> None:
        """Forget cookies, sizes and logs, for the next test."""
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")

    def assert_clean(self) -> None:
        """Fail on an error or warning in the console, and on a request to another host."""
        said = [one for one in self.driver.get_log("browser") if one["level"] in ("SEVERE", "WARNING")]
        assert said == []
        assert self.foreign_requests() == []

    def foreign_requests(self) -> list[str]:
        """Return the URLs of requests since the last call that were not to the playground."""
        own = (f"{self.url}/", f"ws{self.url.removeprefix('http')}/", "data:", "blob:", "about:")
        events = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        urls = [
            one["params"]["request"]["url"]
            if one["method"] == "Network.requestWillBeSent"
            else one["params"]["url"]
            for one in events
            if one["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")
        ]
        return [url for url in urls if not url.startswith(own)]


def copy_shipped(folder: Path) -> Path:
    """Copy the models that ship into a folder of models, beside which a test may put its own."""
    shutil.copytree(ROOT / "exported", folder)
    return folder
