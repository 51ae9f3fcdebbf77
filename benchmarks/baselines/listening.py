"""How a baseline's server says where it listens: as ours does."""

import json
import sys


def announce(port: int) -> None:
    """Write the event "listening" to standard error."""
    sys.stderr.write(json.dumps({"event": "listening", "grpc_port": port}) + "\n")
    sys.stderr.flush()
