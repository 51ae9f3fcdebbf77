"""Request ids, which tie a call's log lines, its trace and the client's records together."""

import secrets
from collections.abc import Iterable
from itertools import count

KEY = "x-request-id"
MAX_CHARACTERS = 128

# A random prefix per process and a counter are cheaper than a random id per call.
_PREFIX = secrets.token_hex(8)
_numbers = count(1)


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the id in a call's metadata if it is 1 to 128 printable ASCII characters, else a new one.

    Args:
        metadata: metadata of the call; of several ids the first counts.
    """
    for key, value in metadata:
        if key == KEY:
            if (
                isinstance(value, str)
                and 0 < len(value) <= MAX_CHARACTERS
                and value.isascii()
                and value.isprintable()
            ):
                return value
            break
    return f"{_PREFIX}-{next(_numbers):x}"
