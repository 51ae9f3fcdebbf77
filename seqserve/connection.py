"""What both clients share before the first call: address, channel options, timeouts."""

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

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
"""Seconds until a call must have ended. Not given: the client's; None: no limit; 5.0: five seconds. The server knows it, and refuses at once what
it cannot finish in time."""

# round_robin spreads calls over every address that a name has (a headless Kubernetes Service); with one address it changes nothing.
# model.json travels in Models.List and Models.Get, hence more room than gRPC's 4 MiB.
_OPTIONS: Final[dict[str, Any]] = {
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
}


def channel_options(extra: Sequence[ChannelOption]) -> list[ChannelOption]:
    """Our options, `extra` winning over them."""
    return list((_OPTIONS | dict(extra)).items())


def timeout_or(given: Timeout, default_s: float | None) -> float | None:
    """The timeout given, or else the default."""
    return default_s if isinstance(given, _NotGiven) else given
