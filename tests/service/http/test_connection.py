"""service.http.connection and service.http.app: which connection gives way, and what applications may do."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.http.app import application
from service.http.connection import Connection, ConnectionLimits, OpenConnections
from service.http.probes import Probes
from service.http.server import HttpServer
from tests.service.http.test_probes import connected, read, yes


class Transport:
    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Fake:
    def __init__(self) -> None:
        self.transport = Transport()


def connections(number: int) -> list[Connection]:
    return [cast("Connection", Fake()) for _ in range(number)]


def is_aborted(one: Connection) -> bool:
    return cast("Any", one.transport).is_aborted is True


def test_one_that_is_without_a_request_for_longest_gives_way() -> None:
    opened, made = OpenConnections(4), connections(5)
    for one in made[:4]:
        opened.add(one)
    opened.renew(made[0])
    opened.add(made[4])
    assert [is_aborted(one) for one in made] == [False, True, False, False, False]
    assert len(opened) == 4


def test_calls_hold_three_quarters_of_the_connections_at_most_and_never_give_way() -> None:
    opened, made = OpenConnections(4), connections(6)
    for one in made[:4]:
        opened.add(one)
    assert [opened.hold(one) for one in made[:4]] == [True, True, True, False]
    opened.add(made[4])
    opened.add(made[5])
    assert [is_aborted(one) for one in made] == [False, False, False, True, True, False]
    opened.let_go(made[0])
    assert opened.hold(made[5])


def test_connection_that_has_gone_is_held_by_no_call() -> None:
    opened, [one] = OpenConnections(4), connections(1)
    opened.add(one)
    opened.remove(one)
    assert not opened.hold(one)


@pytest.mark.parametrize(("descriptors", "limit"), [(64, 8), (8, 2), (1024, 100)])
def test_limit_follows_the_descriptors(monkeypatch: pytest.MonkeyPatch, descriptors: int, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    opened = OpenConnections(100)
    assert opened.limit == limit
    assert 0 < opened.max_held < limit


@contextmanager
def serving(app: Any, limits: ConnectionLimits = ConnectionLimits()) -> Iterator[HttpServer]:
    """Serve an application at /app."""
    server = HttpServer("127.0.0.1", 0, limits)
    probes = Probes(CollectorRegistry(), yes, yes)
    server.start(application(probes, [Route("/app", app)], limits.max_head_bytes))
    try:
        yield server
    finally:
        server.stop()


class App:
    """ASGI application that answers, before it raises, as much as it is told to."""

    def __init__(self, *messages: Any) -> None:
        self._messages = messages

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        for message in self._messages:
            await send(message)
        raise ZeroDivisionError


def received(server: HttpServer, data: bytes) -> bytes:
    with ExitStack() as stack:
        opened = connected(server, stack, data)
        return b"".join(iter(partial(read, opened), b""))


ASKED = b"GET /app HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}


def test_application_that_raises_is_an_error_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with serving(App()) as server:
        answer = received(server, ASKED)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"internal error; the log has the trace" in answer
    assert [one.message for one in caplog.records] == ["an HTTP request has failed"]


def test_connection_ends_where_an_application_raises_in_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    body = {"type": "http.response.body", "body": b"abc", "more_body": True}
    with serving(App(START, body)) as server:
        assert not received(server, ASKED).endswith(b"0\r\n\r\n")
    assert [one.message for one in caplog.records] == ["an HTTP request has failed"]


def test_body_of_an_answer_does_not_wait_for_its_head_to_be_acknowledged() -> None:
    """asyncio sets the option for sockets that it makes itself, which those of the port are not."""
    found: list[int] = []

    class Endpoint:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            opened = scope["state"]["connection"].transport.get_extra_info("socket")
            found.append(opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await PlainTextResponse("ok")(scope, receive, send)

    with serving(Endpoint()) as server:
        received(server, ASKED)
    assert found != [0]
    assert len(found) == 1


def test_head_that_comes_at_once_is_bounded_too() -> None:
    large = b"X: " + b"x" * ConnectionLimits().max_head_bytes + b"\r\n"
    with serving(PlainTextResponse("ok")) as server:
        assert received(server, ASKED).startswith(b"HTTP/1.1 200")
        answer = received(server, ASKED[:-2] + large + b"\r\n")
    assert answer[9:12] in (b"431", b"400")


def test_header_of_a_proxy_does_not_choose_the_address(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["client"][0])(scope, receive, send)

    class Endpoint:
        def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
            return app(scope, receive, send)

    with serving(Endpoint()) as server:
        answer = received(server, ASKED[:-2] + b"X-Forwarded-For: 1.2.3.4\r\n\r\n")
    assert answer.endswith(b"127.0.0.1")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /app HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /app HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"POST /app HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_body_that_may_end_in_two_places_is_refused_and_nothing_after_it_is_answered(head: bytes) -> None:
    """A proxy that takes the length for the end would pass on a request that it has not seen."""
    with serving(PlainTextResponse("ok")) as server:
        answer = received(server, head + b"0\r\n\r\n" + ASKED)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"expected Content-Length or, over HTTP/1.1, Transfer-Encoding, and not both" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
