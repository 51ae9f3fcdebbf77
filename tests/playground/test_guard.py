"""seqserve.playground.guard: which requests reach the pages, and what every answer says."""

from collections.abc import MutableMapping
from typing import Any

import pytest

from seqserve.playground.guard import POLICY, Guard, is_allowed, is_loopback

Message = MutableMapping[str, Any]


@pytest.mark.parametrize(
    "header",
    ["localhost", "localhost:8090", "127.0.0.1:8090", "[::1]:8090", "[::1]", "LOCALHOST:1", "10.0.0.7"],
)
def test_addresses_and_localhost_are_allowed(header: str) -> None:
    assert is_allowed(header, "127.0.0.1")


@pytest.mark.parametrize(
    "header",
    ["", "evil.example", "evil.example:8090", "127.0.0.1.evil.example", "[::1].evil", "localhost.evil"],
)
def test_names_of_other_sites_are_refused(header: str) -> None:
    assert not is_allowed(header, "127.0.0.1")


def test_name_that_is_listened_on_is_allowed() -> None:
    assert is_allowed("Box.local:8090", "box.local")
    assert not is_allowed("box.local:8090", "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("box", False),
    ],
)
def test_loopback_is_known(host: str, right: bool) -> None:
    assert is_loopback(host) == right


async def answers(kind: str, host: str, **more: str) -> list[Message]:
    """What a request for a host, with further headers, gets from a page that says nothing."""
    sent: list[Message] = []

    async def page(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {}

    said = {"host": host} | {name.replace("_", "-"): value for name, value in more.items()}
    headers = [(name.encode(), value.encode()) for name, value in said.items()]
    await Guard(page, "127.0.0.1")({"type": kind, "headers": headers}, receive, send)
    return sent


async def test_answers_carry_the_policy() -> None:
    [start] = await answers("http", "127.0.0.1:1")
    assert dict(start["headers"])[b"content-security-policy"].decode() == POLICY


async def test_request_for_another_site_is_refused() -> None:
    start, body = await answers("http", "evil.example")
    assert start["status"] == 400
    assert b"expected a Host header" in body["body"]
    assert await answers("websocket", "evil.example") == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "more",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:1"},
        {"origin": "http://127.0.0.1"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://[evil"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
        {"sec_fetch_site": "cross-site"},
    ],
)
async def test_request_of_another_page_is_refused(more: dict[str, str]) -> None:
    start, body = await answers("http", "127.0.0.1:1", **more)
    assert start["status"] == 400
    assert b"expected a request of the playground's own page" in body["body"]
    assert await answers("websocket", "127.0.0.1:1", **more) == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "HTTPS://127.0.0.1:1"},
        {"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors"},
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    ],
    ids=["no browser", "own", "behind TLS", "own script", "address bar", "link from elsewhere"],
)
async def test_request_of_its_own_page_and_a_link_are_answered(more: dict[str, str]) -> None:
    [start] = await answers("http", "127.0.0.1:1", **more)
    assert start["status"] == 200
