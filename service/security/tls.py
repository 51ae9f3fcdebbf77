"""TLS for the gRPC port, and for the HTTP port where it is asked for.

Certificates are reloaded when their files change; open connections keep the certificate they started with.
"""

import re
import ssl
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import grpc

from service.security.secrets_files import ReloadedFiles

Value = TypeVar("Value")

SETTING = "SEQSERVE_TLS_CERTIFICATE, SEQSERVE_TLS_KEY, SEQSERVE_TLS_CLIENT_CA"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def server_credentials(certificate: Path, key: Path, client_ca: Path | None = None) -> grpc.ServerCredentials:
    """Build server credentials that reload their files.

    Args:
        certificate: PEM file of the server's certificate chain.
        key: PEM file of its private key.
        client_ca: PEM file of the authorities that sign client certificates (mutual TLS). If set, a client
            without a valid certificate is refused in the handshake.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not valid PEM, or the key does not match the certificate.
    """
    paths = [certificate, key, *([client_ca] if client_ca is not None else [])]

    def parse(contents: list[bytes]) -> grpc.ServerCertificateConfiguration:
        _check(certificate, key, contents)
        return grpc.ssl_server_certificate_configuration(
            [(contents[1], contents[0])], contents[2] if client_ca is not None else None
        )

    files = ReloadedFiles(SETTING, paths, parse)
    first = files.value()
    changes: Any = changes_of(files, first)  # the type stubs of grpc do not know its documented None
    return grpc.dynamic_ssl_server_credentials(
        first, changes, require_client_authentication=client_ca is not None
    )


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Build the context of the HTTP port's handshakes, each of which takes the files as they are then.

    Args:
        certificate: PEM file of the server's certificate chain.
        key: PEM file of its private key.
        client_ca: PEM file of the authorities that sign client certificates (mutual TLS). If set, a client
            without a valid certificate is refused in the handshake.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not valid PEM, or the key does not match the certificate.
    """
    paths = [certificate, key, *([client_ca] if client_ca is not None else [])]

    def parse(contents: list[bytes]) -> ssl.SSLContext:
        _check(certificate, key, contents)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key, password=lambda: b"")
        for signers in contents[2:]:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=signers.decode("ascii"))
        return context

    files = ReloadedFiles(SETTING, paths, parse)
    first = files.value()

    def choose(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        # A handshake goes on with the context that is set here.
        if (current := files.value()) is not first:
            connection.context = current

    first.sni_callback = choose
    return first


def changes_of(files: ReloadedFiles[Value], first: Value) -> Callable[[], Value | None]:
    """Return a function that returns the files' value if it has changed since the last call, else None.

    gRPC calls it at each handshake, in any thread. For every value that it gets, changed or not, it frees the
    context of handshakes, which another thread may be using: the process crashes then (grpc issue 36693).

    Args:
        files: files that may change.
        first: value that counts as returned by a call before the first one.
    """
    last, lock = first, Lock()

    def change() -> Value | None:
        nonlocal last
        with lock:
            value = files.value()
            if value is last:
                return None
            last = value
            return value

    return change


def _check(certificate: Path, key: Path, contents: list[bytes]) -> None:
    """Check the files at load, so that a wrong one does not first show as failing handshakes.

    Raises:
        ValueError: a file is not valid PEM, or the key does not match the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password callback, an encrypted key would make OpenSSL prompt on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ValueError(
            f"{certificate}, {key}: "
            f"expected a PEM certificate and its private key, not encrypted, found {error}"
        ) from None
    if [certificate.read_bytes(), key.read_bytes()] != contents[:2]:
        raise ValueError(
            f"{certificate}, {key}: expected files at rest, found one that changed while it was read"
        )
    for signers in contents[2:]:
        _check_signers(signers)


def _check_signers(data: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(
            f"expected PEM certificates of those who sign callers' certificates, found {error}"
        ) from None
    if not _PEM.search(data):
        raise ValueError("expected PEM certificates of those who sign callers' certificates, found none")
