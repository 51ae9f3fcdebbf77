"""Handshakes that the TLS port refuses: old versions, weak ciphers, plaintext, garbage; others are served."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.test_access import Files, secure, serving
from tests.integration.wire import fields_of, framed
from tests.integration.withstood import MARK

QUICK_S = 10
TIMES = 10
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
VERSIONS = {
    "TLS 1.0": ssl.TLSVersion.TLSv1,
    "TLS 1.1": ssl.TLSVersion.TLSv1_1,
    "TLS 1.2": ssl.TLSVersion.TLSv1_2,
    "TLS 1.3": ssl.TLSVersion.TLSv1_3,
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> AsyncIterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tls")
    files = Files(folder / "certificate.pem", folder / "key.pem")
    # With an RSA key a server could take the ciphers without forward secrecy, too.
    files.write(authority.issue_cert("localhost", key_type=trustme.KeyType.RSA))
    async with serving(tiny_repository, **files.settings) as server:
        yield server


@asynccontextmanager
async def others_served(server: ServerProcess, authority: trustme.CA) -> AsyncIterator[None]:
    """Others are served before, beside and after; the log has no error, and nothing of what was sent."""
    events = len(server.events)
    async with secure(server, authority) as beside, asyncio.timeout(3 * QUICK_S):
        assert (await Calls(beside).classify(["good"]))[0].label
        yield
        assert (await Calls(beside).classify(["good"]))[0].label
    async with secure(server, authority) as after, asyncio.timeout(QUICK_S):
        assert (await Calls(after).classify(["good"]))[0].label
    assert [event for event in server.events[events:] if event["level"] == "error"] == []
    assert MARK not in repr(server.events[events:]) + repr(server.other_output)


def context_of(version: ssl.TLSVersion, alpn: list[str], ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    """Return a client's context of one version of TLS that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the old versions are what is tested
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


async def is_spoken_to(server: ServerProcess, context: ssl.SSLContext) -> bool:
    """Shake hands and send HTTP/2's preface; return whether the server answers with its SETTINGS."""
    writer = None
    try:
        async with asyncio.timeout(QUICK_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port, ssl=context)
            writer.write(PREFACE)
            return await reader.read(9) != b""
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


@pytest.mark.parametrize("name", ["TLS 1.2", "TLS 1.3"])
async def test_current_tls_is_served(guarded: ServerProcess, name: str) -> None:
    assert await is_spoken_to(guarded, context_of(VERSIONS[name], ["h2"], "DEFAULT"))


REFUSED: dict[str, tuple[str, list[str], str]] = {
    "TLS 1.0": ("TLS 1.0", ["h2"], "ALL:@SECLEVEL=0"),
    "TLS 1.1": ("TLS 1.1", ["h2"], "ALL:@SECLEVEL=0"),
    "no ALPN, 1.2": ("TLS 1.2", [], "DEFAULT"),
    "no ALPN, 1.3": ("TLS 1.3", [], "DEFAULT"),
    "HTTP/1.1 only": ("TLS 1.3", ["http/1.1"], "DEFAULT"),
    "unknown protocol": ("TLS 1.3", ["x" * 255], "DEFAULT"),
    "no authentication": ("TLS 1.2", ["h2"], "aNULL:@SECLEVEL=0"),
    "no encryption": ("TLS 1.2", ["h2"], "eNULL:@SECLEVEL=0"),
    "no forward secrecy": ("TLS 1.2", ["h2"], "kRSA:@SECLEVEL=0"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_weak_handshake_is_refused(guarded: ServerProcess, authority: trustme.CA, name: str) -> None:
    version, alpn, ciphers = REFUSED[name]
    context = context_of(VERSIONS[version], alpn, ciphers)
    async with others_served(guarded, authority):
        found = await asyncio.gather(*(is_spoken_to(guarded, context) for _ in range(TIMES)))
    assert not any(found)


def hello(version: bytes, *, announced: int | None = None) -> bytes:
    """Return a ClientHello of an old version with one cipher of its time."""
    body = version + bytes(32) + b"\0" + b"\0\2\0\x0a" + b"\1\0"
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16" + version + (announced or len(message)).to_bytes(2, "big") + message


PLAIN: dict[str, bytes] = {
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(37),
    "SSL 3": hello(b"\3\0"),
    "TLS 1.0 by hand": hello(b"\3\1"),
    "version of the future": hello(b"\x7f\x7f"),
    "HTTP/2 in the clear": PREFACE + framed(MARK.encode()),
    "HTTP/1.1 in the clear": b"POST / HTTP/1.1\r\nHost: x\r\nx: " + MARK.encode() + b"\r\n\r\n",
    "endless record": hello(b"\3\3", announced=0xFFFF) + bytes(70_000),
    "alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "data before the hello": b"\x17\x03\x03\x00\x20" + bytes(32),
    "zeros": bytes(100_000),
    "fields": repr(fields_of()).encode() * 100,
}


async def send(server: ServerProcess, data: bytes) -> bytes:
    """Send data in the clear and return what comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
    try:
        with suppress(ConnectionError):
            async with asyncio.timeout(QUICK_S):
                writer.write(data)
                return await reader.read(1 << 16)
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("name", PLAIN)
async def test_old_hello_or_plaintext_is_refused(
    guarded: ServerProcess, authority: trustme.CA, name: str
) -> None:
    """An alert of TLS may say why; frames of HTTP/2 in the clear would be a service without TLS."""
    async with others_served(guarded, authority):
        found = await asyncio.gather(*(send(guarded, PLAIN[name]) for _ in range(TIMES)))
    assert all(one == b"" or one.startswith(b"\x15\x03") for one in found), found


async def test_storm_of_bad_handshakes_leaves_the_server_running(
    guarded: ServerProcess, authority: trustme.CA
) -> None:
    """Threads of gRPC refuse them side by side; a context freed too early shows within a hundred or so."""
    async with others_served(guarded, authority):
        for _ in range(100):
            await asyncio.gather(
                *(send(guarded, PLAIN[name]) for name in ("SSL 2", "SSL 3") for _ in range(TIMES))
            )
    assert guarded.is_running


async def test_hundreds_of_halves_of_handshakes_hold_up_nobody(
    guarded: ServerProcess, authority: trustme.CA
) -> None:
    half = hello(b"\3\3")[:20]
    held = [await asyncio.open_connection("127.0.0.1", guarded.grpc_port) for _ in range(200)]
    try:
        for _, writer in held:
            writer.write(half)
        async with others_served(guarded, authority):
            pass
    finally:
        for _, writer in held:
            writer.transport.abort()
