"""A headless Chromium at the page of deploy/envoy/example, which a web server of the test's own serves."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration.envoy import DEPLOY

PAGE = "/example/index.html"
WAIT_S = 20
_LOOPBACK = {"localhost", "127.0.0.1", ""}
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # refused to root otherwise
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


def missing() -> str | None:
    """Return what the page cannot be tried without, with how to get it; None if everything is there."""
    if not (DEPLOY / "example/node_modules/@connectrpc/connect-web").is_dir():
        return "the page's libraries are missing: npm ci in deploy/envoy/example, or make envoy-test"
    if find_spec("selenium") is None:
        return "selenium is missing: make install-dev"
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        return "chromium or chromedriver is missing: apt-get install chromium chromium-driver"
    return None


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is the base class's
        """Write no line a request."""


@contextmanager
def served_page(folder: Path = DEPLOY) -> Iterator[int]:
    """Serve a folder on a free port of this machine until the end of the block, and yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Page:
    """The page in a browser, used as a person would.

    Args:
        driver: Selenium's.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def open(self, url: str, **fields: str) -> None:
        """Open the page, wait until it is ready, and fill in fields by their ids."""
        await asyncio.to_thread(self._open, url, fields)

    async def press(self, name: str) -> None:
        """Press the button of that id."""
        await asyncio.to_thread(self._element(name).click)

    async def until(self, name: str, *texts: str) -> str:
        """Wait until an element has one of these texts; return it."""
        return await asyncio.to_thread(self._until, name, lambda text: text in texts)

    async def until_longer(self, name: str, length: int) -> str:
        """Wait until an element has more characters than that; return its text."""
        return await asyncio.to_thread(self._until, name, lambda text: len(text) > length)

    def text(self, name: str) -> str:
        """The text of an element, with its line breaks."""
        return str(self._element(name).get_property("textContent"))

    def hosts(self) -> set[str]:
        """Return the hosts that were asked since the last time."""
        events = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        urls = [
            urlsplit(event["params"]["request"]["url"])
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return {url.hostname or "" for url in urls}

    def _open(self, url: str, fields: dict[str, str]) -> None:
        from selenium.webdriver.support.ui import Select  # noqa: PLC0415 - of the extra dev

        self._driver.get(url)
        self._until("state", lambda text: text == "ready")
        for name, value in fields.items():
            field = self._element(name)
            if field.tag_name == "select":
                Select(field).select_by_value(value)
            else:
                field.clear()
                field.send_keys(value)

    def _element(self, name: str) -> Any:
        return self._driver.find_element("id", name)

    def _until(self, name: str, is_met: Any) -> str:
        from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415 - of the extra dev

        WebDriverWait(self._driver, WAIT_S, poll_frequency=0.05).until(
            lambda _: is_met(self.text(name)), f"{name}: {self.text(name)!r}, {self.text('error')!r}"
        )
        return self.text(name)


@contextmanager
def opened_browser() -> Iterator[Page]:
    """Start Chromium until the end of the block; skip the test where something is missing."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    from selenium import webdriver  # noqa: PLC0415 - of the extra dev
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        page = Page(driver)
        yield page
        assert page.hosts() <= _LOOPBACK
    finally:
        driver.quit()
