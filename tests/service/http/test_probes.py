"""service.http.probes."""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.http.probes import ProbeServer


def yes() -> bool:
    return True


def no() -> bool:
    return False


@contextmanager
def served(is_alive: Callable[[], bool] = yes, is_ready: Callable[[], bool] = yes) -> Iterator[ProbeServer]:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    server = ProbeServer("127.0.0.1", 0, registry, is_alive, is_ready)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[ProbeServer]:
    """One that is alive and ready; stopping takes half a second, so it is shared."""
    with served() as running:
        yield running


def ask(server: ProbeServer, path: str, method: str = "GET", accept: str = "*/*") -> tuple[int, str, str]:
    """Status, content type, body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_healthy_server_says_so(server: ProbeServer) -> None:
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
def test_metrics_are_those_of_the_registry(server: ProbeServer, path: str) -> None:
    status, kind, text = ask(server, path)
    assert status == 200
    assert kind.startswith("text/plain")
    assert "things_total 3.0" in text


def test_metrics_speak_openmetrics_when_asked(server: ProbeServer) -> None:
    _, kind, text = ask(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics/", "/livez/x"])
def test_other_paths_are_not_found_and_told_those_there_are(server: ProbeServer, path: str) -> None:
    status, _, text = ask(server, path)
    assert status == 404
    assert text == "expected /metrics, /livez or /readyz\n"


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/metrics", 200), ("/none", 404)])
def test_head_has_the_status_and_no_body(server: ProbeServer, path: str, status: int) -> None:
    found, _, body = ask(server, path, "HEAD")
    assert (found, body) == (status, "")


def test_post_is_not_supported(server: ProbeServer) -> None:
    assert ask(server, "/livez", "POST")[0] == 501


def test_connection_is_kept_for_the_next_request(server: ProbeServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for path in ("/livez", "/metrics", "/readyz"):
        connection.request("GET", path)
        assert connection.getresponse().read()
    connection.close()


def test_taken_address_is_an_error(server: ProbeServer) -> None:
    with pytest.raises(OSError, match="in use"):
        ProbeServer("127.0.0.1", server.port, CollectorRegistry(), yes, yes)


def test_stopped_server_listens_no_more() -> None:
    with served() as stopping:
        port = stopping.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
