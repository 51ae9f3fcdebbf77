"""The name of a call, by which its lines in the log, its trace and what its caller has seen are found
together.
"""

import secrets
from collections.abc import Iterable
from itertools import count

KEY = "x-request-id"
MOST_CHARACTERS = 128

# One process's own, and numbers from there: to draw each would take as long as everything else that is done
# with it.
_PREFIX = secrets.token_hex(8)
_numbers = count(1)


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The id that came with a call where it is 1 to 128 printable ASCII characters, else a new one.

    Args:
        metadata: of the call; of several ids the first counts.
    """
    for key, value in metadata:
        if key == KEY:
            if (
                isinstance(value, str)
                and 0 < len(value) <= MOST_CHARACTERS
                and value.isascii()
                and value.isprintable()
            ):
                return value
            break
    return f"{_PREFIX}-{next(_numbers):x}"
