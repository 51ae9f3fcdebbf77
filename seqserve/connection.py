"""What both clients share before the first call: address, channel options, credentials, timeouts."""

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import grpc

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S: Final = 60.0

ChannelOption: TypeAlias = tuple[str, Any]
"""Name and value, as gRPC lists them under `channel arguments`."""


class _NotGiven(Enum):
    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "USE_CLIENT_TIMEOUT"


USE_CLIENT_TIMEOUT: Final = _NotGiven.NOT_GIVEN

Timeout: TypeAlias = float | Literal[_NotGiven.NOT_GIVEN] | None
"""Seconds until a call must have ended. Not given: the client's; None: no limit; 5.0: five seconds. The
server knows it, and refuses at once what it cannot finish in time."""

# round_robin spreads calls over every address that a name has (a headless Kubernetes Service); with one
# address it changes nothing. model.json travels in Models.List and Models.Get, hence more room than gRPC's 4
# MiB. A server that restarts is to be found again while calls are still tried again (seqserve.retry), and one
# whose machine is gone to be noticed.
_OPTIONS: Final[dict[str, Any]] = {
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
}


def channel_options(extra: Sequence[ChannelOption]) -> list[ChannelOption]:
    """Our options, `extra` winning over them."""
    return list((_OPTIONS | dict(extra)).items())


def tls(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Credentials of an encrypted connection, for a client's `credentials`; files are PEM.

    Args:
        ca: certificates that the server's must come from; None: those that gRPC ships.
        certificate: of the client, with those between it and its root, where the server wants one.
        key: private, of `certificate`.

    Raises:
        ValueError: one of `certificate` and `key` without the other.
        OSError: a file cannot be read.
    """
    if (certificate is None) != (key is None):
        raise ValueError("expected a certificate and its key, found one without the other")
    return grpc.ssl_channel_credentials(
        *(None if path is None else path.read_bytes() for path in (ca, key, certificate))
    )


def authorization(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token, or none."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


def timeout_or(given: Timeout, default_s: float | None) -> float | None:
    """The timeout given, or else the default."""
    return default_s if isinstance(given, _NotGiven) else given
