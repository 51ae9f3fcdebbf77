"""Every attack, against a server with a bound on what requests hold."""

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.hostile.attack import ATTACKS, MIB
from tests.chaos.hostile.siege import besiege
from tests.chaos.outcome import Outcome

HELD_BYTES = 512 * MIB


def hostile(repository: Path) -> dict[str, Callable[[], Coroutine[Any, Any, Outcome]]]:
    """Return the attacks by name.

    Args:
        repository: folder of models: `charlm`, `sentiment` and `stock`.
    """
    settings = {"MAX_HELD_BYTES": str(HELD_BYTES)}
    return {name: partial(besiege, name, repository, "sentiment", settings, HELD_BYTES) for name in ATTACKS}
