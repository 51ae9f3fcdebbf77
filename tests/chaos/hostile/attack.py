"""Runs one attack: `python -m tests.chaos.hostile.attack NAME GRPC_PORT HTTP_PORT`.

It is a process of its own, so that what it does holds up nobody who watches the server.
"""

import asyncio
import string
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from tests.chaos.hostile import attacks
from tests.chaos.hostile.attacks import Target

MIB = 1 << 20
LETTERS = string.ascii_letters + " "

ATTACKS: dict[str, Callable[[Target], Coroutine[Any, Any, None]]] = {
    "half-sent-messages": lambda target: attacks.half_sent_messages(target, 500, 4 * MIB, 15),
    "idle-connections": lambda target: attacks.idle_connections(target, 1_000, 15),
    "odd-paths": lambda target: attacks.odd_paths(target, 2_000),
    "far-deadlines": lambda target: attacks.far_deadlines(target, "charlm", LETTERS, 1_000),
    "deaf-watches": lambda target: attacks.deaf_watches(target, 10, 100, 5),
    "empty-fields": lambda target: attacks.empty_fields(target, 2_000_000, 5),
    "large-texts": lambda target: attacks.large_texts(target, "sentiment", 200),
    "one-long-prompt": lambda target: attacks.one_long_prompt(target, "charlm", LETTERS, 1_100, 99_000),
    "long-scores": lambda target: attacks.long_scores(target, "charlm", LETTERS, 200, 20_000),
    "silent-readers": lambda target: attacks.silent_readers(target, "charlm", 1_000, 15),
    "slow-probes": lambda target: attacks.slow_probes(target, 300, 10),
}

if __name__ == "__main__":
    asyncio.run(ATTACKS[sys.argv[1]](Target(int(sys.argv[2]), int(sys.argv[3]))))
