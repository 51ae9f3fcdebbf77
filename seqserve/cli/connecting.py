"""The address of the server, and what a failed connection means to somebody at a terminal.

gRPC reports a connection that cannot be made as text alone; `explain` recognises the texts of grpcio 1.76 and
later, and leaves every other failure to its own message.
"""

import os
import re
from collections.abc import Mapping

from seqserve import connection
from seqserve.address import check_address, proxy_variable
from seqserve.connection import SERVER_VARIABLE
from seqserve.errors import DeadlineExceeded, SeqserveError, Unavailable, Unimplemented, WrongValue

# Patterns of gRPC's texts, each with a sentence: without TLS, and with it. The first that is found counts.
_CLEAR, _TLS = 0, 1
_NOTHING = (
    "nothing answers at {address}: is the server running? Start one with 'make serve', or name another "
    "address with --server HOST:PORT or {variable}"
)
_NO_NAME = "{address}: no machine of that name was found; check the address, --server HOST:PORT"
_NO_TLS = "what answers at {address} does not speak TLS: leave out --tls and the options --tls-...; {port}"
_NO_GRPC = "what answers at {address} does not speak gRPC: {port}"
_PORT = "the server's gRPC port is 50051 by default, and 8080 is its HTTP port"
_UNKNOWN_CA = (
    "the certificate of {address} is not signed by an authority that is trusted here: "
    "name the file of its authority, --tls-ca FILE"
)
_OTHER_NAME = "the certificate of {address} is for another name: call the server by a name in its certificate"
_CLOSED_CLEAR = "{address} closes the connection: if it expects TLS, use --tls, or --tls-ca FILE; {port}"
_CLOSED_TLS = (
    "{address} closes the connection after the TLS handshake: if it expects a client certificate, use "
    "--tls-certificate FILE and --tls-key FILE"
)
_UNREACHABLE = "{address} cannot be reached: {reason}; check the address, --server HOST:PORT"
_SENTENCES: tuple[tuple[str, tuple[str, str]], ...] = (
    (r"errors resolving|address lookup failed", (_NO_NAME, _NO_NAME)),
    (r"Connection refused|unix:.*No such file or directory", (_NOTHING, _NOTHING)),
    (r"WRONG_VERSION_NUMBER", (_NO_TLS, _NO_TLS)),
    (r"CERTIFICATE_VERIFY_FAILED", (_UNKNOWN_CA, _UNKNOWN_CA)),
    (r"not in peer certificate|Hostname Verification", (_OTHER_NAME, _OTHER_NAME)),
    (r"Failed parsing HTTP/2|Expected SETTINGS frame", (_NO_GRPC, _NO_GRPC)),
    (r"all backends failing.*(?:Socket closed|Connection reset|Broken pipe)", (_CLOSED_CLEAR, _CLOSED_TLS)),
    (
        r"(?:connect to remote host|connect failed).*?: (?P<reason>[A-Z][\w ]+)$",
        (_UNREACHABLE, _UNREACHABLE),
    ),
)


def server_address(*given: str | None) -> str:
    """Return the address to connect to: the first one given, else SEQSERVE_SERVER, else the default.

    Args:
        given: Values of --server, the one that counts most first; None means not given.

    Raises:
        ValueError: The address has no form that gRPC can connect to; the text names where it was given.
    """
    address = next((each for each in given if each is not None), None)
    try:
        if address is not None:
            return check_address(address, "--server")
        return connection.server_address(None)
    except WrongValue as error:
        raise ValueError(str(error)) from error


def explain(
    error: SeqserveError, address: str, *, has_tls: bool, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Say in a sentence why a server cannot be talked to.

    Args:
        error: What the call ended with.
        address: Address of the server.
        has_tls: Whether the connection is encrypted.
        environment: Variables of the process, of which those that name a proxy matter.

    Returns:
        The sentence, or None if the error came from a server, or is unknown.
    """
    if error.reason:
        return None
    sentence = _sentence(error, address, has_tls)
    if sentence is None or isinstance(error, Unimplemented):
        return sentence
    if (proxy := proxy_variable(address, environment)) is not None:
        sentence += f"\n  {proxy} is set: gRPC connects through that proxy unless no_proxy names the host"
    return sentence


def _sentence(error: SeqserveError, address: str, has_tls: bool) -> str | None:
    if isinstance(error, Unimplemented) and "Method not found" in str(error):
        return f"the server at {address} has no such call: is it seqserve, and as new as this command?"
    if isinstance(error, DeadlineExceeded):
        return (
            f"no answer from {address} in time: the server is busy, or what listens there does not speak "
            "gRPC; --timeout SECONDS waits longer"
        )
    if not isinstance(error, Unavailable):
        return None
    text = str(error)
    for pattern, sentences in _SENTENCES:
        if (found := re.search(pattern, text, re.DOTALL)) is not None:
            reason = found.groupdict().get("reason") or ""
            return sentences[_TLS if has_tls else _CLEAR].format(
                address=address, variable=SERVER_VARIABLE, port=_PORT, reason=reason
            )
    return None
