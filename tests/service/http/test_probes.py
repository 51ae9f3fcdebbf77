"""service.http: probes and metrics, and the limits of the port that serves them."""

import errno
import gzip
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.registry import Collector

from service.http.app import application
from service.http.connection import ConnectionLimits
from service.http.probes import Probes
from service.http.server import HttpServer

MAX_CONNECTIONS = 16
LIMITS = ConnectionLimits(max_connections=MAX_CONNECTIONS)


def yes() -> bool:
    return True


def no() -> bool:
    return False


def started(
    registry: CollectorRegistry,
    limits: ConnectionLimits,
    is_alive: Callable[[], bool] = yes,
    is_ready: Callable[[], bool] = yes,
    host: str = "127.0.0.1",
) -> HttpServer:
    server = HttpServer(host, 0, limits)
    server.start(application(Probes(registry, is_alive, is_ready), (), limits.max_head_bytes))
    return server


@contextmanager
def served(
    is_alive: Callable[[], bool] = yes,
    is_ready: Callable[[], bool] = yes,
    limits: ConnectionLimits = LIMITS,
) -> Iterator[HttpServer]:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    server = started(registry, limits, is_alive, is_ready)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    """One that is alive and ready."""
    with served() as running:
        yield running


def answer_of(
    server: HttpServer, path: str, method: str, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """The answer to a request that has these headers alone, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def ask(server: HttpServer, path: str, method: str = "GET", accept: str = "*/*") -> tuple[int, str, str]:
    """Status, content type, body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_healthy_server_says_so(server: HttpServer) -> None:
    assert ask(server, "/livez") == (200, "text/plain", "ok\n")
    assert ask(server, "/readyz") == (200, "text/plain", "ok\n")


def test_livez_says_when_the_process_should_not_live() -> None:
    with served(is_alive=no) as dying:
        assert ask(dying, "/livez") == (503, "text/plain", "not ok\n")
        assert ask(dying, "/readyz")[0] == 200


def test_readyz_says_when_no_requests_are_taken() -> None:
    with served(is_ready=no) as starting:
        assert ask(starting, "/readyz") == (503, "text/plain", "not ok\n")
        assert ask(starting, "/livez")[0] == 200


def test_readyz_follows_its_check() -> None:
    state = {"ready": False}
    with served(is_ready=lambda: state["ready"]) as starting:
        assert ask(starting, "/readyz")[0] == 503
        state["ready"] = True
        assert ask(starting, "/readyz")[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name=x"])
def test_metrics_are_those_of_the_registry(server: HttpServer, path: str) -> None:
    status, kind, text = ask(server, path)
    assert status == 200
    assert kind.startswith("text/plain")
    assert "things_total 3.0" in text


def test_metrics_speak_openmetrics_when_asked(server: HttpServer) -> None:
    _, kind, text = ask(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics/", "/livez/x"])
def test_other_paths_are_not_found_and_told_those_there_are(server: HttpServer, path: str) -> None:
    status, _, text = ask(server, path)
    assert status == 404
    assert text == "expected /metrics, /livez or /readyz\n"


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/metrics", 200), ("/none", 404)])
def test_head_has_the_status_and_no_body(server: HttpServer, path: str, status: int) -> None:
    found, _, body = ask(server, path, "HEAD")
    assert (found, body) == (status, "")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize(
    ("method", "status"), [("POST", 405), ("PUT", 405), ("OPTIONS", 405), ("get", 501), ("BREW", 501)]
)
def test_other_methods_are_refused_with_those_there_are(
    server: HttpServer, path: str, method: str, status: int
) -> None:
    answer, body = answer_of(server, path, method)
    assert (answer.status, answer.headers["Allow"]) == (status, "GET, HEAD")
    assert body == b"expected GET or HEAD\n"


def test_other_methods_do_not_find_other_paths(server: HttpServer) -> None:
    assert ask(server, "/none", "POST")[0] == 404


@pytest.mark.parametrize("path", ["/livez?verbose", "/readyz?"])
def test_query_of_a_probe_is_ignored(server: HttpServer, path: str) -> None:
    assert ask(server, path) == (200, "text/plain", "ok\n")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [(None, None), ("gzip", "gzip"), ("deflate, GZIP;q=0.5", "gzip"), ("gzip;q=0", None), ("identity", None)],
)
@pytest.mark.parametrize("accept", ["*/*", "application/openmetrics-text;version=1.0.0"])
def test_metrics_are_compressed_for_those_who_take_it(
    server: HttpServer, accepted: str | None, coding: str | None, accept: str
) -> None:
    headers = {"Accept": accept} | ({"Accept-Encoding": accepted} if accepted else {})
    answer, body = answer_of(server, "/metrics", "GET", headers)
    plain = answer_of(server, "/metrics", "GET", {"Accept": accept})[1]
    assert answer.headers["Content-Encoding"] == coding
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert answer.headers["Content-Length"] == str(len(body))
    assert (gzip.decompress(body) if coding else body) == plain
    head, nothing = answer_of(server, "/metrics", "HEAD", headers)
    assert (head.status, nothing) == (200, b"")
    assert {**head.headers} == {**answer.headers}


def test_accept_encoding_of_several_lines_counts_as_one(server: HttpServer) -> None:
    asked = b"GET /metrics HTTP/1.0\r\nAccept-Encoding: br\r\naccept-encoding: gzip\r\n\r\n"
    with ExitStack() as stack:
        received = b"".join(iter(partial(read, connected(server, stack, asked)), b""))
    assert b"content-encoding: gzip" in received.lower()


@pytest.mark.parametrize("path", ["/livez", "/none"])
def test_answers_of_a_line_are_not_compressed(server: HttpServer, path: str) -> None:
    assert answer_of(server, path, "GET", {"Accept-Encoding": "gzip"})[0].headers["Content-Encoding"] is None


def test_connection_is_kept_for_the_next_request(server: HttpServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for path in ("/livez", "/metrics", "/readyz"):
        connection.request("GET", path)
        assert connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize("version", ["x", "1.0.0-rc", "1.0.0=2", "None", "1" * 5000])
def test_metrics_are_plain_text_where_the_version_asked_for_is_odd(
    server: HttpServer, caplog: pytest.LogCaptureFixture, kind: str, version: str
) -> None:
    status, content_type, body = ask(server, "/metrics", accept=f"{kind};version={version}")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "things_total 3.0" in body
    assert caplog.records == []


def test_line_break_in_the_version_asked_for_is_not_repeated(server: HttpServer) -> None:
    asked = b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text;version=1.\n0.0\r\n\r\n"
    with ExitStack() as stack:
        received = b"".join(iter(partial(read, connected(server, stack, asked)), b""))
    assert received.startswith(b"HTTP/1.1 400")
    assert b"version=1." not in received


def test_taken_address_is_an_error(server: HttpServer) -> None:
    with pytest.raises(OSError, match="in use"):
        HttpServer("127.0.0.1", server.port, LIMITS)


def test_stopped_server_listens_no_more() -> None:
    with served() as stopping:
        port = stopping.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


class SlowCollector(Collector):
    """Collector of no metrics, which takes a while."""

    def collect(self) -> Iterator[Metric]:
        threading.Event().wait(0.1)
        yield from ()


def test_stop_does_not_wait_for_queued_scrapes(capfd: pytest.CaptureFixture[str]) -> None:
    registry = CollectorRegistry()
    registry.register(SlowCollector())
    slow = started(registry, ConnectionLimits(max_connections=64))
    with ExitStack() as stack:
        for _ in range(30):
            connected(slow, stack, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        until = monotonic() + 10
        while len(slow._connections) < 30 and monotonic() < until:
            threading.Event().wait(0.01)
        assert len(slow._connections) == 30
        began = monotonic()
        slow.stop()
        assert monotonic() - began < 2
    assert capfd.readouterr() == ("", "")


def connected(server: HttpServer, stack: ExitStack, data: bytes = b"") -> socket.socket:
    found = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
    found.sendall(data)
    return found


def num_threads() -> int:
    return sum(thread.name == "http" or "process_request" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("data", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 200])
def test_connections_that_wait_or_do_not_read_cost_no_thread_and_no_newcomer(
    server: HttpServer, data: bytes
) -> None:
    with ExitStack() as stack:
        for _ in range(3 * MAX_CONNECTIONS):
            with suppress(ConnectionError):
                connected(server, stack, data)
        started = monotonic()
        assert ask(server, "/livez")[0] == 200
        assert monotonic() - started < 15
        assert num_threads() == 1
        assert len(server._connections) <= MAX_CONNECTIONS


def test_connection_that_cannot_be_taken_is_closed_and_the_next_ones_are_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with served() as server, ExitStack() as stack:
        connect = server.loop.connect_accepted_socket

        async def fail_once(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(server.loop, "connect_accepted_socket", connect)
            raise OSError(errno.ENOMEM, "")

        monkeypatch.setattr(server.loop, "connect_accepted_socket", fail_once)
        assert read(connected(server, stack)) == b""
        assert ask(server, "/livez")[0] == 200
    assert [record.message for record in caplog.records] == ["the HTTP port cannot accept connections"]


def received_until_closed(server: HttpServer, data: bytes) -> bytes:
    with ExitStack() as stack:
        silent = connected(server, stack, data)
        return b"".join(iter(partial(read, silent), b""))


@pytest.mark.parametrize("data", [b"", b"GET /livez HTTP/1.1\r\nHo"])
def test_connection_without_a_whole_head_is_closed(data: bytes) -> None:
    with served(limits=ConnectionLimits(head_s=0.05)) as server:
        assert received_until_closed(server, data) == b""


def test_head_in_drops_is_not_waited_for() -> None:
    with served(limits=ConnectionLimits(head_s=0.3)) as server, ExitStack() as stack:
        slow = connected(server, stack)
        slow.settimeout(0.02)
        for sent in range(1000):
            try:
                slow.sendall(b"GET / HTTP/1.1\r\nX: " if not sent else b"x")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 0 < sent < 100


def test_idle_connection_is_closed_after_its_last_answer() -> None:
    with served(limits=ConnectionLimits(idle_s=1)) as server:
        received = received_until_closed(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received.endswith(b"ok\n")


def send_for_ever(sender: socket.socket, data: bytes) -> None:
    until = monotonic() + 10
    while monotonic() < until:
        sender.sendall(data)


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked", b"Content-Length: 1000000000"])
def test_body_that_nobody_reads_ends_its_connection(head: bytes) -> None:
    with served(limits=ConnectionLimits(head_s=0.2)) as server, ExitStack() as stack:
        sender = connected(server, stack, b"POST /livez HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
        with pytest.raises(ConnectionError):
            send_for_ever(sender, b"4\r\nabcd\r\n" * 10_000)


def test_peer_who_does_not_read_is_cut_off() -> None:
    registry = CollectorRegistry()
    for number in range(200):
        Counter(f"things_{number}", "Things " * 1000, registry=registry)
    large = started(registry, ConnectionLimits(idle_s=1))
    try:
        with ExitStack() as stack:
            deaf = stack.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.settimeout(10)
            deaf.connect(("127.0.0.1", large.port))
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            until = monotonic() + 10
            while large._connections and monotonic() < until:
                threading.Event().wait(0.01)
            assert not large._connections
            assert ask(large, "/livez")[0] == 200
    finally:
        large.stop()


def read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\xff\xfe\r\n\r\n", b"400"),
        (b"GET /livez\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),  # without a Host
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
        (b"G" * 2 * LIMITS.max_head_bytes, b"400"),
    ],
)
def test_connection_ends_after_such_a_request(server: HttpServer, data: bytes, status: bytes) -> None:
    with ExitStack() as stack:
        received = b"".join(iter(partial(read, connected(server, stack, data)), b""))
    assert received[9:12] == status


def test_peers_who_break_off_leave_no_line(
    server: HttpServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            broken = connected(server, stack, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
            broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(server, "/livez")[0] == 200
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_check_that_raises_is_an_error_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with served(is_alive=lambda: bool(1 / 0)) as broken:
        assert ask(broken, "/livez") == (500, "text/plain", "internal error; the log has the trace\n")
        assert ask(broken, "/readyz")[0] == 200
    assert [record.message for record in caplog.records] == ["a probe has failed"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="IPv6 is missing")
def test_any_address_of_ipv6_takes_ipv4_too() -> None:
    both = started(CollectorRegistry(), LIMITS, host="::")
    try:
        assert ask(both, "/livez")[0] == 200
    finally:
        both.stop()
