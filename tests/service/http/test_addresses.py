"""service.http.addresses: which addresses are listened on."""

import errno
import socket
from typing import Any

import pytest

from service.http.addresses import listen
from tests.service.sockets import NoIpv6


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    def resolved(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


def names_of(opened: list[socket.socket]) -> list[str]:
    """The addresses of listening sockets, each of which is shown to take a connection."""
    names = []
    for one in opened:
        socket.create_connection(one.getsockname()[:2], 5).close()
        names.append(str(one.getsockname()[0]))
        one.close()
    return names


def test_every_address_of_a_name_is_listened_on_with_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")
    opened = listen("many", 0, 5)
    assert len({one.getsockname()[1] for one in opened}) == 1
    monkeypatch.undo()
    assert names_of(opened) == ["127.0.0.1", "127.0.0.2"]


def test_address_that_the_machine_lacks_is_left_out_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ::1 of localhost where there is no IPv6. 192.0.2.1 is nobody's address."""
    resolve_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    opened = listen("partly", 0, 5)
    monkeypatch.undo()
    assert names_of(opened) == ["127.0.0.1"]
    resolve_to(monkeypatch, "192.0.2.1")
    with pytest.raises(OSError, match="assign requested address"):
        listen("elsewhere", 0, 5)


def test_address_in_use_is_an_error_that_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
        with pytest.raises(OSError, match="in use"):
            listen("many", port, 5)
        socket.create_server(("127.0.0.1", port)).close()


def test_another_free_port_is_tried_where_one_is_in_use_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    create, refused = socket.create_server, list[Any]()

    def create_unless_first(address: Any, **options: Any) -> socket.socket:
        if address[0] == "127.0.0.2" and not refused:
            refused.append(address)
            raise OSError(errno.EADDRINUSE, "in use")
        return create(address, **options)

    monkeypatch.setattr(socket, "create_server", create_unless_first)
    opened = listen("many", 0, 5)
    monkeypatch.undo()
    assert names_of(opened) == ["127.0.0.1", "127.0.0.2"]


def test_localhost_without_ipv6_is_127_0_0_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looking up ::1 fails, too."""

    def unknown(*_: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(socket, "socket", NoIpv6)
    opened = listen("localhost", 0, 5)
    monkeypatch.undo()
    assert names_of(opened) == ["127.0.0.1"]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return socket.has_dualstack_ipv6()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_localhost_is_both_loopbacks_and_any_address_of_ipv6_takes_ipv4() -> None:
    local = listen("localhost", 0, 5)
    assert names_of(local) == ["127.0.0.1", "::1"]
    [alone] = listen("::1", 0, 5)
    with alone, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", alone.getsockname()[1]), 5)
    [both] = listen("::", 0, 5)
    with both:
        socket.create_connection(("127.0.0.1", both.getsockname()[1]), 5).close()
