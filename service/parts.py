"""The parts of the server that are made of the settings alone: gRPC's options, limits, keys, credentials.

Each raises `StartError` where its setting cannot be used.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import structlog

from service.api.calls import CallLimits
from service.api.connections import max_accepted
from service.api.held_bytes import min_held_bytes
from service.security import tls
from service.security.access import SETTING as ACCESS_SETTING
from service.security.access import Access
from service.security.state_tokens import Keys, KeysRefused, generate_keys, read_keys
from service.settings import Settings

if TYPE_CHECKING:
    from service.observability.tracing import Tracing

_log = structlog.get_logger(__name__)

# A connection that repeatedly pings at shorter intervals is closed.
MIN_PING_INTERVAL_MS = 10_000
# A connection is closed whose peer has not finished TLS and sent HTTP/2's first frames in time, or which has
# had no call for so long.
HANDSHAKE_TIMEOUT_MS, IDLE_TIMEOUT_MS = 10_000, 600_000
MAX_METADATA_BYTES = 16 << 10
MAX_PENDING_CALLS = 20_000
# Part of the memory that requests may hold, and the part in use at which waiting streams are ended.
HELD_PART, SHORT_OF_MEMORY = 0.25, 0.9
# Fields that a message may have beside its texts, series and observations.
OTHER_FIELDS = 1024


class StartError(Exception):
    """Failure to start: an address cannot be bound, a setting cannot be used, or no model can be served."""


def address_error(setting: str, address: str, why: str) -> StartError:
    """Return the failure to listen on the address of a setting."""
    return StartError(f"{setting}: expected an address that can be listened on, found {address}: {why}")


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """Return grpc's channel arguments: limits on messages, connections, streams and metadata."""
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", max_accepted(settings.max_connections)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_connection_idle_ms", IDLE_TIMEOUT_MS),
        ("grpc.max_concurrent_streams", settings.max_streams),
        # Calls that the event loop has not taken yet: grpc cancels them at random beyond 1,000 by default.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Without it gRPC buffers 64 KiB of a message that nobody reads yet, with it up to megabytes.
        ("grpc.http2.bdp_probe", 0),
    ]
    if settings.connection_age_seconds:
        options.append(("grpc.max_connection_age_ms", max(1, round(settings.connection_age_seconds * 1000))))
        options.append(("grpc.max_connection_age_grace_ms", round(settings.connection_grace_seconds * 1000)))
    return options


def call_limits(settings: Settings, memory: int) -> CallLimits:
    """Return the bounds on the messages of all calls, in a process that may use so many bytes of memory."""
    return CallLimits(
        _max_held_bytes(settings, memory),
        settings.max_message_bytes,
        settings.max_items + settings.max_observations + OTHER_FIELDS,
        settings.max_answer_bytes,
    )


def _max_held_bytes(settings: Settings, memory: int) -> int:
    least = min_held_bytes(settings.max_message_bytes)
    if settings.max_held_bytes is None:
        return max(least, int(HELD_PART * memory))
    if settings.max_held_bytes < least:
        raise StartError(
            f"SEQSERVE_MAX_HELD_BYTES: expected at least {least} bytes for messages of "
            f"{settings.max_message_bytes} bytes (SEQSERVE_MAX_MESSAGE_BYTES), "
            f"found {settings.max_held_bytes}"
        )
    return settings.max_held_bytes


@contextmanager
def repository_errors(settings: Settings) -> Iterator[None]:
    """Raise StartError where the repository cannot be listed."""
    try:
        yield
    except OSError as error:
        raise StartError(
            "SEQSERVE_REPOSITORY: expected a folder of models that can be listed, "
            f"found {settings.repository}: {os.strerror(error.errno or 0)}"
        ) from error


def access(settings: Settings) -> Access:
    """Return what checks tokens, or lets everybody in without a file of tokens."""
    try:
        return Access(settings.tokens)
    except (OSError, ValueError) as error:
        raise StartError(
            f"{ACCESS_SETTING}: expected a file of lines RIGHT NAME TOKEN, found {settings.tokens}: {error}"
        ) from error


def tracing(settings: Settings) -> "Tracing | None":
    """Return what traces calls; None: no collector is set."""
    if settings.traces_endpoint is None:
        return None
    try:
        from service.observability.tracing import tracing_to  # noqa: PLC0415 -- an extra
    except ModuleNotFoundError as error:
        raise StartError(
            "SEQSERVE_TRACES_ENDPOINT: expected seqserve's extra 'traces' to be installed, "
            f"found no module {error.name}: in a clone, "
            ".venv/bin/python -m pip install --constraint constraints.txt --editable '.[traces]'"
        ) from error
    return tracing_to(settings.traces_endpoint, settings.traces_ratio)


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Return the TLS credentials of the gRPC port; None: plaintext."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    try:
        return tls.server_credentials(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    except (OSError, ValueError) as error:
        raise StartError(f"{tls.SETTING}: expected PEM files, found {error}") from error


def http_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context of the HTTP port; None: plaintext."""
    if not settings.http_tls or settings.tls_certificate is None or settings.tls_key is None:
        return None
    try:
        return tls.server_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    except (OSError, ValueError) as error:
        raise StartError(f"{tls.SETTING}: expected PEM files, found {error}") from error


def state_keys(settings: Settings) -> Keys:
    """Return the keys of state tokens: those of the file, or new ones."""
    if settings.state_keys is None:
        _log.warning(
            "state tokens will not survive a restart nor open on another replica; set SEQSERVE_STATE_KEYS"
        )
        return generate_keys()
    try:
        return read_keys(settings.state_keys)
    except KeysRefused as error:
        raise StartError(f"SEQSERVE_STATE_KEYS: {error}") from None
