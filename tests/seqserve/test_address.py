"""Addresses are refused by name before gRPC guesses at them, and loopback takes no proxy."""

import pytest

from seqserve import AsyncClient, Client, Unavailable, WrongType, WrongValue
from seqserve.address import check_address, is_local, proxy_variable
from tests.seqserve.scripted_server import ScriptedServer

LOCAL = [
    "127.0.0.1:50051",
    "127.8.8.8:1",
    "localhost:50051",
    "[::1]:50051",
    "unix:/tmp/socket",
    "unix:socket",
    "unix:///tmp/socket",
    "unix-abstract:name",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "ipv4:127.0.0.1:1,127.0.0.2:65535",
    "ipv6:[::1]:50051",
]
REMOTE = [
    "example.org:50051",
    "10.0.0.1:50051",
    "[2001:db8::1]:50051",
    "dns:///seqserve.default.svc:50051",
    "dns://8.8.8.8/name:50051",
    "ipv4:127.0.0.1:1,10.0.0.2:1",
    "xds:///service",
]


@pytest.mark.parametrize("address", [*LOCAL, *REMOTE])
def test_addresses_that_grpc_understands_are_taken(address: str) -> None:
    assert check_address(address) == address
    assert is_local(address) is (address in LOCAL)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("", "without spaces"),
        (" :50051", "without spaces"),
        (" 127.0.0.1:50051", "without spaces"),
        ("127.0.0.1:50051\n", "without spaces"),
        ("http://host:1", "without http://"),
        ("https://host:1", "encrypts"),
        ("grpc://host:1", "without grpc://"),
        ("host", "with a host and a port"),
        ("localhost:", "with a host and a port"),
        (":50051", "with a host and a port"),
        ("host:port", "with a host and a port"),
        ("host:50051/", "without a path"),
        ("host:50051/v1", "without a path"),
        ("host:0", "with a port from 1 to 65535"),
        ("host:65536", "with a port from 1 to 65535"),
        ("::1:50051", "brackets"),
        ("[::1]", "brackets|with a host and a port"),
        ("dns:///name", "with a host and a port"),
        ("ipv4:10.0.0.1", "with a host and a port"),
        ("ipv4:10.0.0.1:1,10.0.0.2", "with a host and a port"),
        ("unix:", "path"),
        ("unix:///", "path"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "aio"])
async def test_addresses_that_grpc_would_guess_at_are_refused(
    kind: type[Client], address: str, what: str
) -> None:
    with pytest.raises(WrongValue, match=what) as caught:
        kind(address)
    assert caught.value.violations[0].field == "address"
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize("address", [50051, b"host:1", ("host", 1)], ids=repr)
def test_addresses_that_are_no_text_are_refused(address: object) -> None:
    with pytest.raises(WrongType, match=r"^address: expected a str"):
        Client(address)  # type: ignore[arg-type]


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(WrongValue, match="a user before an @") as caught:
        Client("http://user:s3cret@host:1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
async def test_a_proxy_of_the_environment_is_not_used_for_loopback(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with Client(server.address, retry=None) as client:
        assert len(client.models()) == 3
    async with AsyncClient(server.address, retry=None) as client_async:
        assert len(await client_async.models()) == 3


def test_a_failure_through_a_proxy_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:s3cret@127.0.0.1:9")
    with Client("192.0.2.1:50051", retry=None) as client, pytest.raises(Unavailable) as caught:
        client.models()
    assert caught.value.address == "192.0.2.1:50051"
    assert "through the proxy of the environment variable https_proxy" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({}, None),
        ({"HTTP_PROXY": "x"}, None),
        ({"http_proxy": ""}, None),
        ({"http_proxy": "x"}, "http_proxy"),
        ({"http_proxy": "x", "https_proxy": "x"}, "https_proxy"),
        ({"http_proxy": "x", "grpc_proxy": "x"}, "grpc_proxy"),
        ({"http_proxy": "x", "no_proxy": "other, .org"}, None),
        ({"http_proxy": "x", "no_proxy": "other"}, "http_proxy"),
        ({"http_proxy": "x", "no_grpc_proxy": "other", "no_proxy": ".org"}, "http_proxy"),
    ],
    ids=str,
)
def test_the_variable_is_the_one_that_grpc_reads(environment: dict[str, str], variable: str | None) -> None:
    assert proxy_variable("dns:///example.org:50051", environment) == variable
    assert proxy_variable("127.0.0.1:50051", environment) is None
