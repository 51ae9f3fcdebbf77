"""service.addresses."""

import errno
import socket
from collections.abc import Iterator

import pytest

from service import addresses


@pytest.fixture
def port() -> Iterator[int]:
    """A port of 127.0.0.1 that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    def resolved(_host: str, port: int, **_options: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_port_that_is_listened_at_is_named(host: str, port: int) -> None:
    assert (addresses.taken(f"{host}:{port}") or "").startswith(
        f"another program, or another seqserve, listens at port {port}"
    )


def test_name_of_which_one_address_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """gRPC listens at the other address alone, and callers of the name reach another program."""
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    assert "another seqserve" in (addresses.taken(f"localhost:{port}") or "")


def test_name_of_which_one_address_is_not_here_may_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "203.0.113.1")
    assert addresses.taken("both:0") is None


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:/nowhere/socket"])
def test_address_that_is_free_or_a_path_may_be_listened_on(address: str) -> None:
    assert addresses.taken(address) is None


def test_port_that_was_just_closed_is_free(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as served:
        address = served.getsockname()
        with socket.create_connection(address):
            served.accept()[0].close()  # leaves a connection that waits for its end
    assert addresses.taken(f"127.0.0.1:{address[1]}") is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.1:40001", "203.0.113.1 is no address of this machine; name one of its own"),
        ("[2001:db8::1]:40001", "2001:db8::1 is no address of this machine"),
        ("nowhere.invalid:40001", "the name nowhere.invalid has no address"),
        ("unix:/nowhere/socket", "the path"),
    ],
)
def test_reason_names_what_is_wrong(address: str, expected: str) -> None:
    if address.startswith("[") and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    assert addresses.reason(address, RuntimeError("the path")).startswith(expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EACCES, "this user may not listen at port 80; name a port of 1024 or more"),
        (errno.EAFNOSUPPORT, "this machine has no addresses of the kind of ::1"),
        (errno.ENOBUFS, "ENOBUFS"),
    ],
)
def test_error_of_binding_is_a_sentence(monkeypatch: pytest.MonkeyPatch, code: int, expected: str) -> None:
    """Root may listen at every port, so the error is made here."""
    monkeypatch.setattr(addresses, "_failures", lambda _address: iter([code]))
    assert addresses.reason("[::1]:80", RuntimeError()) == expected
