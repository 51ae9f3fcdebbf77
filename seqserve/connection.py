"""Address, channel options, credentials and timeouts, shared by both clients."""

import json
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import grpc

from seqserve import arguments
from seqserve.address import check_address, is_local
from seqserve.errors import WrongValue

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
SERVER_VARIABLE: Final = "SEQSERVE_SERVER"
DEFAULT_TIMEOUT_S: Final = 60.0

ChannelOption: TypeAlias = tuple[str, Any]
"""Name and value of a gRPC channel argument."""


class _NotGiven(Enum):
    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "USE_CLIENT_TIMEOUT"


USE_CLIENT_TIMEOUT: Final = _NotGiven.NOT_GIVEN

Timeout: TypeAlias = float | Literal[_NotGiven.NOT_GIVEN] | None
"""Seconds until a call must have ended.

USE_CLIENT_TIMEOUT takes the client's timeout, None means no limit, 5.0 means five seconds. The server
receives the deadline, and rejects at once a request that it cannot finish in time.
"""

# round_robin spreads calls over all addresses of a name (a headless Kubernetes Service) and has no effect on
# a single address. A server whose SEQSERVE_MAX_ANSWER_BYTES is raised sends more than the 4 MiB that gRPC
# takes by default. The reconnect backoff is short enough to reach a restarted server while seqserve.retry
# still retries, and keepalive detects a server whose machine is gone.
_OPTIONS: Final[dict[str, Any]] = {
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
}


def server_address(address: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the address to connect to, checked.

    It is the one given, else that of SEQSERVE_SERVER where the variable is set and not empty, else
    DEFAULT_ADDRESS.

    Raises:
        WrongType: The address given is no str.
        WrongValue: The address has no form that gRPC can connect to; the error names `address` or the
            variable.
    """
    if address is not None:
        return check_address(address)
    if named := environment.get(SERVER_VARIABLE):
        return check_address(named, SERVER_VARIABLE)
    return DEFAULT_ADDRESS


def channel_options(address: str, extra: Sequence[ChannelOption] = ()) -> list[ChannelOption]:
    """Return the client's channel options, overridden by `extra`.

    A proxy of the environment (http_proxy and its kin) cannot reach this machine's loopback or sockets, so it
    is not used for them.
    """
    local = {"grpc.enable_http_proxy": 0} if is_local(address) else {}
    return list((_OPTIONS | local | dict(arguments.pairs("options", extra))).items())


def tls(
    ca: Path | str | None = None, certificate: Path | str | None = None, key: Path | str | None = None
) -> grpc.ChannelCredentials:
    """Create credentials for an encrypted connection; all files are PEM.

    Args:
        ca: Certificates that the server's certificate must chain to; None uses the roots that gRPC ships.
        certificate: The client's certificate chain, for servers that require one.
        key: The private key of `certificate`.

    Returns:
        The credentials, for the `credentials` argument of a client.

    Raises:
        WrongType: A path is neither a Path nor a str.
        WrongValue: Only one of `certificate` and `key` was given.
        OSError: A file cannot be read.
    """
    paths = {"ca": ca, "key": key, "certificate": certificate}
    for name, path in paths.items():
        arguments.instance(name, path, Path, str)
    if (certificate is None) != (key is None):
        name = "key" if key is None else "certificate"
        raise arguments.refusal(
            WrongValue, name, "expected a certificate and its key, found one without the other"
        )
    return grpc.ssl_channel_credentials(
        *(None if path is None else Path(path).read_bytes() for path in paths.values())
    )


def authorization(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries the token, or no metadata without one."""
    found = arguments.token("token", token)
    return () if found is None else (("authorization", f"Bearer {found}"),)


def timeout_or(given: Timeout, default_s: float | None) -> float | None:
    """Return `given`, checked, or `default_s` if it is USE_CLIENT_TIMEOUT.

    None and infinity mean no limit, and are returned as None.
    """
    return default_s if isinstance(given, _NotGiven) else arguments.timeout("timeout_s", given)
