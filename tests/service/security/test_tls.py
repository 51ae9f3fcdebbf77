"""service.security.tls: which certificates gRPC is told of, and handshakes of the HTTP port.

Handshakes of gRPC are tested in tests/integration.
"""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from service.security import secrets_files
from service.security.secrets_files import ReloadedFiles
from service.security.tls import changes_of, server_context


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (path := tmp_path / "certificate").write_text("first")
    return path


def reloaded(path: Path) -> ReloadedFiles[list[str]]:
    """Files that are looked at anew at each call."""
    times: Iterator[int] = iter(range(0, 1_000, 10))
    return ReloadedFiles(
        "SETTING", [path], lambda contents: [one.decode() for one in contents], lambda: next(times)
    )


def test_unchanged_value_is_not_given_again(path: Path) -> None:
    files = reloaded(path)
    change = changes_of(files, files.value())
    assert [change() for _ in range(3)] == [None] * 3


def test_changed_value_is_given_once(path: Path) -> None:
    files = reloaded(path)
    change = changes_of(files, files.value())
    path.write_text("the second")
    assert [change() for _ in range(3)] == [["the second"], None, None]


def test_change_between_first_value_and_first_call_is_given(path: Path) -> None:
    files = reloaded(path)
    first = files.value()
    path.write_text("the second")
    files.value()
    assert changes_of(files, first)() == ["the second"]


def issue(authority: trustme.CA, folder: Path) -> bytes:
    """Write a new certificate and key; return the certificate's bytes as a peer sees them."""
    issued = authority.issue_cert("localhost")
    for name, data in (("key", issued.private_key_pem), ("certificate", issued.cert_chain_pems[0])):
        data.write_to_path(folder / f"{name}.new")
        (folder / f"{name}.new").replace(folder / name)
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def handshake(context: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    """Shake hands in memory; return the server's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for one in (theirs, ours):
            with suppress(ssl.SSLWantReadError):
                one.do_handshake()
    return theirs.getpeercert(binary_form=True)


def test_handshakes_over_http_take_the_files_as_they_are_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets_files, "CHECK_EVERY_S", 0)
    authority = trustme.CA()
    client = ssl.create_default_context()
    authority.configure_trust(client)
    first = issue(authority, tmp_path)
    context = server_context(tmp_path / "certificate", tmp_path / "key")
    assert handshake(context, client) == first
    second = issue(authority, tmp_path)
    assert [handshake(context, client) for _ in range(2)] == [second] * 2


def test_handshakes_over_http_ask_for_a_certificate_where_there_is_an_authority(tmp_path: Path) -> None:
    authority, callers = trustme.CA(), trustme.CA()
    issue(authority, tmp_path)
    callers.cert_pem.write_to_path(tmp_path / "callers")
    context = server_context(tmp_path / "certificate", tmp_path / "key", tmp_path / "callers")
    client = ssl.create_default_context()
    authority.configure_trust(client)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(context, client)
    callers.issue_cert("caller").configure_cert(client)
    assert handshake(context, client) is not None


def test_wrong_files_are_refused_at_the_start(tmp_path: Path) -> None:
    issue(trustme.CA(), tmp_path)
    (tmp_path / "key").write_text("no key")
    with pytest.raises(ValueError, match="expected a PEM certificate and its private key"):
        server_context(tmp_path / "certificate", tmp_path / "key")
