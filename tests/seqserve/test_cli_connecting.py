"""The command where no server answers it: each kind of failure is a sentence that says what to do."""

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
import trustme
from typer.testing import CliRunner, Result

from seqserve.cli import session
from seqserve.cli.app import app
from seqserve.cli.connecting import explain, server_address
from seqserve.connection import DEFAULT_ADDRESS, SERVER_VARIABLE
from seqserve.errors import DeadlineExceeded, SeqserveError, ServerFailure, Unavailable
from seqserve.retry import Retry
from tests.seqserve.scripted_server import ScriptedServer

FAILING = "connections to all backends failing; last error: "
REFUSED = FAILING + "UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY", Retry(attempts=2))
    for name in (SERVER_VARIABLE, "grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def ports(authority: trustme.CA) -> Iterator[dict[str, int]]:
    """Ports of what may listen where a server is looked for, by its kind."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    pair = [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())]
    server = grpc.server(futures.ThreadPoolExecutor(2))
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Quiet)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = {
            "plain": server.add_insecure_port("127.0.0.1:0"),
            "tls": server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair)),
            "mutual": server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials(pair, authority.cert_pem.bytes(), True)
            ),
            "http": http.server_port,
            "silent": silent.getsockname()[1],
            "unused": unused.getsockname()[1],
        }
        server.start()
        threading.Thread(target=http.serve_forever, args=(0.01,)).start()
        yield found
        http.shutdown()
        http.server_close()
        server.stop(None).wait()


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("unused", [], "nothing answers at {address}: is the server running? Start one with 'make serve'"),
        ("unused", ["--tls"], "nothing answers at {address}"),
        ("plain", [], "the server at {address} has no such call: is it seqserve"),
        ("plain", ["--tls"], "what answers at {address} does not speak TLS: leave out --tls"),
        ("tls", [], "{address} closes the connection: if it expects TLS, use --tls, or --tls-ca FILE"),
        ("tls", ["--tls"], "the certificate of {address} is not signed by an authority that is trusted here"),
        ("mutual", ["--tls-ca", "CA"], "if it expects a client certificate, use --tls-certificate FILE"),
        ("http", [], "what answers at {address} does not speak gRPC: the server's gRPC port is 50051"),
        ("http", ["--tls"], "what answers at {address} does not speak TLS"),
        ("silent", ["--timeout", "0.3"], "no answer from {address} in time"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else each.split(",")[0].split(":")[0],
)
def test_failed_connection_is_a_sentence(
    ports: dict[str, int], ca_file: str, kind: str, options: list[str], expected: str
) -> None:
    address = f"127.0.0.1:{ports[kind]}"
    given = [ca_file if option == "CA" else option for option in options]
    result = invoke("--server", address, *given, "models")
    assert result.exit_code == 1
    assert expected.format(address=address) in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["classify", "a"], ["generate", "a"], ["score", "ab"], ["bench", "score"]]
)
def test_every_command_says_that_nothing_answers(ports: dict[str, int], command: list[str]) -> None:
    result = invoke("--server", f"127.0.0.1:{ports['unused']}", *command)
    assert (result.exit_code, result.stderr.startswith("error: nothing answers at ")) == (1, True)


def test_certificate_for_another_name_is_named(ports: dict[str, int], ca_file: str) -> None:
    failure = Unavailable(FAILING + "UNKNOWN: Peer name localhost is not in peer certificate")
    assert "is for another name" in (explain(failure, "localhost:1", has_tls=True) or "")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (
            Unavailable("errors resolving nowhere:1: [field:hostname lookup error:Domain name not found]"),
            "nowhere:1: no machine of that name was found",
        ),
        (
            Unavailable(
                FAILING + "UNKNOWN: ipv4:10.0.0.1:1: Failed to connect to remote host: No route to host"
            ),
            "nowhere:1 cannot be reached: No route to host",
        ),
        (
            Unavailable(FAILING + "unix:/a: connect failed: addr: unix:/a error: No such file or directory"),
            "nothing answers at nowhere:1",
        ),
        (Unavailable("the server drains", reason="WITHDRAWN"), None),
        (Unavailable("Socket closed"), None),
        (DeadlineExceeded("the queue is long", reason="DEADLINE_TOO_NEAR"), None),
        (ServerFailure("its engine has stopped"), None),
    ],
    ids=lambda each: str(each)[:40],
)
def test_sentence_is_made_of_grpcs_text_alone(failure: SeqserveError, expected: str | None) -> None:
    said = explain(failure, "nowhere:1", has_tls=False, environment={})
    assert said is None if expected is None else (said or "").startswith(expected)


@pytest.mark.parametrize("address", [DEFAULT_ADDRESS, "localhost:1", "unix:/tmp/socket"])
def test_proxy_that_is_not_used_is_not_named(address: str) -> None:
    environment = {"http_proxy": "http://p"}
    said = explain(Unavailable(REFUSED), address, has_tls=False, environment=environment)
    assert said is not None
    assert "http_proxy" not in said


def test_proxy_is_named_and_its_value_is_not() -> None:
    said = explain(
        Unavailable(REFUSED), "a:1", has_tls=False, environment={"http_proxy": "http://me:secret@p"}
    )
    assert said is not None
    assert "http_proxy is set" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("given", "variable", "address"),
    [
        ((None, None), None, DEFAULT_ADDRESS),
        ((None, None), "", DEFAULT_ADDRESS),
        ((None, None), "variable:1", "variable:1"),
        ((None, "before:1"), "variable:1", "before:1"),
        (("after:1", "before:1"), "variable:1", "after:1"),
        (("unix:/tmp/socket", None), None, "unix:/tmp/socket"),
        (("ipv4:10.0.0.1:1,10.0.0.2:1", None), None, "ipv4:10.0.0.1:1,10.0.0.2:1"),
        (("[::1]:50051", None), None, "[::1]:50051"),
    ],
)
def test_address_is_the_first_that_is_given(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str | None, ...], variable: str | None, address: str
) -> None:
    if variable is not None:
        monkeypatch.setenv(SERVER_VARIABLE, variable)
    assert server_address(*given) == address


@pytest.mark.parametrize(
    "address",
    [
        *("localhost", "localhost:", ":50051", "localhost:http", "localhost:0", "localhost:65536", "a b:1"),
        *("http://localhost:50051", "::1:50051", "127.0.0.1\uff1a50051", "localhost:50051/"),
    ],
)
@pytest.mark.parametrize("where", ["--server", SERVER_VARIABLE])
def test_address_in_no_form_is_refused_where_it_was_given(
    monkeypatch: pytest.MonkeyPatch, where: str, address: str
) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, address if where == SERVER_VARIABLE else "other:1")
    result = invoke(*(["--server", address] if where == "--server" else []), "models")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {where}: expected an address with")
    assert f"such as {DEFAULT_ADDRESS}, " in result.stderr
    assert f"found {address!r}" in result.stderr


def test_variable_names_the_server(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, server.address)
    assert invoke("models").exit_code == 0
