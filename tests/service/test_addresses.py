"""service.addresses."""

import errno
import socket
from collections.abc import Iterator, Mapping

import pytest

from service import addresses
from tests.service.sockets import NoIpv6


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
    assert "another seqserve" in (addresses.taken(f"both:{port}") or "")
    assert not addresses.is_free(f"both:{port}")


def test_name_of_which_one_address_is_not_here_may_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "203.0.113.1", "127.0.0.1")
    assert addresses.taken("both:0") is None
    assert addresses.is_free("both:0")
    assert addresses.reason("both:0", RuntimeError("the certificate")) == "the certificate"


def test_address_that_is_not_here_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "203.0.113.1")
    assert not addresses.is_free("elsewhere:0")


def fail_at(monkeypatch: pytest.MonkeyPatch, codes: Mapping[str, int]) -> None:
    """Let binding these addresses fail, as it does where another program has them or they are missing."""

    def failure(_family: int, place: tuple[str, int]) -> int | None:
        return codes.get(place[0])

    monkeypatch.setattr(addresses, "_failure", failure)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_localhost_is_both_loopbacks_though_the_table_of_hosts_has_one(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """gRPC takes both, and callers that connect to ::1 would reach another program."""
    resolve_to(monkeypatch, "127.0.0.1")
    assert [place[:2] for _, place in addresses.resolved(host, 5)] == [("127.0.0.1", 5), ("::1", 5)]
    fail_at(monkeypatch, {"::1": errno.EADDRINUSE})
    assert "another seqserve" in (addresses.taken(f"{host}:5") or "")
    assert "another seqserve" in addresses.reason(f"{host}:5", OSError("raw"))
    assert not addresses.is_free(f"{host}:5")


def test_address_that_a_name_has_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")
    assert [place for _, place in addresses.resolved("many", 5)] == [("127.0.0.1", 5), ("127.0.0.2", 5)]


@pytest.mark.parametrize("first", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENOBUFS])
def test_reason_is_what_decides_though_another_address_fails_before(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    fail_at(monkeypatch, {"127.0.0.2": first, "127.0.0.1": errno.EACCES})
    expected = "this user may not listen at port 80"
    assert addresses.reason("both:80", OSError("raw")).startswith(expected)
    assert (addresses.taken("both:80") or "").startswith(expected)


def test_localhost_without_ipv6_is_127_0_0_1(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(socket, "socket", NoIpv6)
    assert addresses.taken("localhost:0") is None
    assert addresses.is_free("localhost:0")
    assert addresses.reason("localhost:0", RuntimeError("the certificate")) == "the certificate"
    assert "another seqserve" in (addresses.taken(f"localhost:{port}") or "")
    assert not addresses.is_free("[::1]:0")


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
    monkeypatch.setattr(addresses, "_failures", lambda _address: [code])
    assert addresses.reason("[::1]:80", RuntimeError()) == expected
